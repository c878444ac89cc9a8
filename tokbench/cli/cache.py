"""`tokbench cache`: what is kept of the references' features and of unfinished runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from tokbench.cli.options import say


@click.group(invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """Show what is kept in the cache folder (TOKBENCH_CACHE): references' features, and runs that can be resumed."""
    if context.invoked_subcommand is not None:
        return
    from tokbench.evaluation.checkpoint import unfinished
    from tokbench.paths import cache_dir

    folder = cache_dir()
    files = list((folder / "features").glob("*/*.npz"))
    click.echo(f"{folder}\n")
    click.echo(f"features of references: {len(files):,} files, {_size(sum(file.stat().st_size for file in files))}")
    left = list(unfinished(folder / "runs"))
    click.echo(f"unfinished runs: {len(left) or 'none'}")
    for run in left:
        about = run.about
        cell = f", cell {about['cell']}" if about.get("cell") else ""
        click.echo(
            f"  {about.get('adapter')} on {about.get('dataset')}{cell}: about {run.images:,} of "
            f"{about.get('images'):,} images, {_size(run.size)}, {_ago(run.age)}; "
            f"metrics {', '.join(about.get('metrics', []))}"
        )
    if left:
        click.echo("The same command goes on from there; 'tokbench cache clear --runs' deletes them.")


@cache.command()
@click.option("--features", "only_features", is_flag=True, help="Only the references' features.")
@click.option("--runs", "only_runs", is_flag=True, help="Only unfinished runs.")
def clear(only_features: bool, only_runs: bool) -> None:
    """Delete what is kept. A run that is under way keeps its own files; weights and datasets are not touched."""
    from tokbench.evaluation.checkpoint import delete
    from tokbench.paths import cache_dir

    folder = cache_dir()
    if only_features or not only_runs:
        count = _clear_features(folder / "features")
        click.echo(f"deleted the features of references ({count:,} files)")
    if only_runs or not only_features:
        places = sorted((folder / "runs").glob("*/"))
        gone = sum(delete(place) for place in places)
        click.echo(f"deleted {gone:,} unfinished runs")
        if gone < len(places):
            say(f"left alone: {len(places) - gone} runs that are under way")


def _clear_features(folder: Path) -> int:
    count = len(list(folder.glob("*/*.npz")))
    shutil.rmtree(folder, ignore_errors=True)
    return count


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _ago(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.0f} min ago" if minutes < 120 else f"{minutes / 60:.0f} h ago"
