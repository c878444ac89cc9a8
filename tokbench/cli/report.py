"""`tokbench report` and `tokbench view`: committed results as a site."""

from __future__ import annotations

from pathlib import Path

import click

from tokbench.cli.options import progress_bar, root_option, say
from tokbench.errors import UsageError

_RESULTS = click.option(
    "--results",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="The folder of results.",
)
_PICTURES = click.option(
    "--pictures/--no-pictures", default=True, help="Run the adapters for pictures, where that has not been done."
)


def _needs() -> None:
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise UsageError(f"the report needs {error.name}; pip install 'tokbench[report]'") from error


@click.command()
@_RESULTS
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("site"), show_default=True)
@_PICTURES
@click.option("--readme", is_flag=True, help="Draw the static pictures of a checkout's README and docs instead.")
@root_option
def report(results: Path, out: Path, pictures: bool, readme: bool, root: Path | None) -> None:
    """Write a static site of all results: tables, plots, pictures, and how every number was made.

    It works from a file, offline; pictures lie beside the page.
    """
    if readme:
        from tokbench.paths import find_root
        from tokbench.report.static_figures import draw

        place = find_root(root)
        if place is None or not (place / "docs").is_dir():
            raise UsageError("--readme draws the pictures of a checkout; run it in one, or name it with --root")
        for path in draw(place):
            say(f"wrote {path}")
        return
    _needs()
    from tokbench.report.site import build

    with progress_bar() as bar:
        page = build(results, out, root, pictures, bar)
    say(f"wrote {page} ({page.stat().st_size / 2**20:.1f} MiB without pictures)")


@click.command()
@_RESULTS
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("site"), show_default=True)
@_PICTURES
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 for any that is free.")
@root_option
def view(results: Path, out: Path, pictures: bool, port: int, root: Path | None) -> None:
    """Serve the site on this machine alone, and make it again when results change. Ctrl-C ends it."""
    _needs()
    from tokbench.report.serve import serve
    from tokbench.report.site import build

    def make() -> Path:
        with progress_bar() as bar:
            return build(results, out, root, pictures, bar)

    serve(results, out, make, port, say)
