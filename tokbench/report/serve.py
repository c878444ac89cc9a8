"""Serve the site on loopback; make it again when results change, which the open page notices by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tokbench.errors import TokbenchError, UsageError

EVERY = 2.0
"""Seconds between looks at the results."""


def state_of(results: Path) -> str:
    """What changes whenever a result does: names, sizes and times of all result files."""
    files = sorted(results.glob("*/*.json"))
    told = [(path.as_posix(), stat.st_size, stat.st_mtime_ns) for path in files if (stat := path.stat())]
    return f"{hash(tuple(told)) & (1 << 63) - 1:x}"


class Site(SimpleHTTPRequestHandler):
    """The folder of the site, and `/stamp`: what the site was made of."""

    stamp = ""

    def do_GET(self) -> None:
        if self.path == "/stamp":
            body = type(self).stamp.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Requests of one's own browser are no news."""


def serve(
    results: Path,
    out: Path,
    make: Callable[[], Path],
    port: int,
    say: Callable[[str], None],
    until: threading.Event | None = None,
) -> None:
    """What `make` makes of `results` in `out`, until Ctrl-C (or `until` is set). Raises UsageError where the port is
    taken."""
    until = until or threading.Event()
    try:  # before what takes long
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(Site, directory=str(out)))
    except OSError as error:
        raise UsageError(f"port {port} cannot be used ({error.strerror}); give another --port") from error
    with server:
        Site.stamp = state_of(results)  # before, too: what changes meanwhile may not be in the site
        make()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        say(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends it)")
        try:
            while not until.wait(EVERY):
                if (now := state_of(results)) == Site.stamp:
                    continue
                try:
                    make()
                    say("made again: results have changed")
                except TokbenchError as error:  # a file that is half written, say: the next look will find it whole
                    say(f"not made again: {error}")
                Site.stamp = now
        except KeyboardInterrupt:
            say("stopped")
        finally:
            server.shutdown()
