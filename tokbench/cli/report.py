"""`tokbench report` and `tokbench view`: write and serve a static site of results."""

from __future__ import annotations

from pathlib import Path

import click

from tokbench.cli.options import progress_bar, root_option, say
from tokbench.errors import UsageError

_RESULTS = click.option(
    "--out",
    "--results",
    "results",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder of results.",
)
_SITE = click.option(
    "--site",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("site"),
    show_default=True,
    help="Folder of the site, which is written.",
)
_PICTURES = click.option(
    "--pictures/--no-pictures",
    default=True,
    help="Run adapters to make example pictures that do not exist yet; without, the page shows those that are there.",
)


def _require_packages() -> None:
    try:
        import altair  # noqa: F401
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise UsageError(f"the report needs the package {error.name}; pip install 'tokbench[report]'") from error


@click.command()
@_RESULTS
@_SITE
@_PICTURES
@click.option("--readme", is_flag=True, help="Instead, draw the static figures in docs/ of a source checkout.")
@root_option
def report(results: Path, site: Path, pictures: bool, readme: bool, root: Path | None) -> None:
    """Write a static site of all results: tables, plots, pictures and provenance.

    The site works offline, opened as a file; pictures and per-image values are stored beside the page.
    """
    if readme:
        from tokbench.paths import find_root
        from tokbench.report.static_figures import draw

        checkout = find_root(root)
        if checkout is None or not (checkout / "docs").is_dir():
            raise UsageError("--readme needs a source checkout; run it in one, or give its path with --root")
        for path in draw(checkout):
            say(f"wrote {path}")
        return
    _require_packages()
    from tokbench.report.site import build

    with progress_bar() as bar:
        page = build(results, site, root, pictures, bar)
    say(f"wrote {page} ({page.stat().st_size / 2**20:.1f} MiB without pictures)")


@click.command()
@_RESULTS
@_SITE
@_PICTURES
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="Port; 0 selects a free one."
)
@root_option
def view(results: Path, site: Path, pictures: bool, port: int, root: Path | None) -> None:
    """Serve the site on localhost and rebuild it when results change. Stop with Ctrl-C."""
    _require_packages()
    from tokbench.report.serve import serve
    from tokbench.report.site import build

    def make() -> Path:
        with progress_bar() as bar:
            return build(results, site, root, pictures, bar)

    serve(results, site, make, port, say)
