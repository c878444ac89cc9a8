"""Serve the site on localhost and rebuild it when results change; open pages reload themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tokbench.errors import TokbenchError, UsageError

EVERY = 2.0
"""Seconds between checks for changed results."""


def state_of(results: Path) -> str:
    """Return a hash of the names, sizes and modification times of all result files."""
    files = sorted(results.glob("*/*.json"))
    entries = [(path.as_posix(), stat.st_size, stat.st_mtime_ns) for path in files if (stat := path.stat())]
    return f"{hash(tuple(entries)) & (1 << 63) - 1:x}"


class Site(SimpleHTTPRequestHandler):
    """Serves the folder of the site, and `/stamp`, which changes when the site is rebuilt."""

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
        """Log nothing: the only client is the user's browser."""


def serve(
    results: Path,
    out: Path,
    make: Callable[[], Path],
    port: int,
    say: Callable[[str], None],
    until: threading.Event | None = None,
) -> None:
    """Build the site with `make` and serve it until Ctrl-C, or until `until` is set.

    Raises UsageError if the port cannot be used.
    """
    until = until or threading.Event()
    try:  # before building, which can take long
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(Site, directory=str(out)))
    except OSError as error:
        raise UsageError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from error
    with server:
        Site.stamp = state_of(results)  # before building, so that changes during the build trigger another one
        make()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        say(f"http://127.0.0.1:{server.server_port}/ (stop with Ctrl-C)")
        try:
            while not until.wait(EVERY):
                if (now := state_of(results)) == Site.stamp:
                    continue
                try:
                    make()
                    say("rebuilt the site: results have changed")
                except TokbenchError as error:  # for example a half-written file, complete at the next check
                    say(f"did not rebuild the site: {error}")
                Site.stamp = now
        except KeyboardInterrupt:
            say("stopped")
        finally:
            server.shutdown()
