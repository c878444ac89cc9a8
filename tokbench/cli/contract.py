"""`tokbench contract`: run the contract tests on adapters, including those of other repositories."""

from __future__ import annotations

from pathlib import Path

import click

from tokbench.cli.options import root_option


@click.command()
@click.argument("adapters", nargs=-1, required=True, metavar="ADAPTER...")
@click.option(
    "--side", type=click.IntRange(101, 256), default=256, show_default=True, help="Side of the six test photos, in px."
)
@root_option
def contract(adapters: tuple[str, ...], side: int, root: Path | None) -> None:
    """Test whether adapters fulfil the adapter contract.

    ADAPTER is a name, a TOML file, or a folder with adapter.py, whose TOML files are all tested. The tests run on the
    CPU with six photos. They cover the spec, shapes, the value range, tokens, seeds, batch sizes, token prefixes and
    odd image sizes. Each row of the table is one requirement, with the observation and, after a failure, the remedy.

    Exit status: 0 if all requirements are met, 1 if one is not, 2 for wrong usage.
    """
    from tokbench.results.markdown import table
    from tokbench.testing.adapters import check_adapter, photos

    failed = False
    for name in [one for adapter in adapters for one in _variants(adapter)]:
        checks = check_adapter(name, photos(side), root)
        failed |= any(check.outcome == "fail" for check in checks)
        rows = [
            [check.name, check.outcome, f"{check.found}{f'. Remedy: {check.remedy}' if check.remedy else ''}"]
            for check in checks
        ]
        click.echo(f"{name}\n\n{table(['requirement', 'outcome', 'found'], rows, left=range(3))}")
    if failed:
        raise SystemExit(1)


def _variants(adapter: str) -> list[str]:
    """Return the TOML files of a folder, or the argument itself if it is no folder or has none."""
    folder = Path(adapter)
    return [str(toml) for toml in sorted(folder.glob("*.toml"))] or [adapter] if folder.is_dir() else [adapter]
