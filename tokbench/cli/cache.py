"""`tokbench cache`: shows and clears cached reference features and the checkpoints of unfinished runs and trainings."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from tokbench.cli.options import say
from tokbench.io.counts import count_of


@click.group(invoke_without_command=True)
@click.pass_context
def cache(context: click.Context) -> None:
    """Show the contents of the cache folder (TOKBENCH_CACHE): features of reference images, and unfinished runs.

    Unfinished trainings are shown too; their checkpoints are in .cache/training of a Git checkout.
    """
    if context.invoked_subcommand is not None:
        return
    from tokbench.evaluation.checkpoint import unfinished
    from tokbench.paths import cache_dir
    from tokbench.training.states import states

    folder = cache_dir()
    files = list((folder / "features").glob("*/*.npz"))
    click.echo(f"{folder}\n")
    click.echo(
        f"reference features: {count_of(len(files), 'file')}, {_size(sum(file.stat().st_size for file in files))}"
    )
    runs = [run for run in unfinished(folder / "runs") if run.images]  # the others ended before the first image
    click.echo(f"unfinished runs: {len(runs) or 'none'}")
    for run in runs:
        about = run.about
        cell = f", cell {about['cell']}" if about.get("cell") else ""
        click.echo(
            f"  {about.get('adapter')} on {about.get('dataset')}{cell}: about {run.images:,} of "
            f"{count_of(about.get('images', 0), 'image')}, {_size(run.size)}, {_age_text(run.age)}; "
            f"metrics {', '.join(about.get('metrics', []))}"
        )
    if runs:
        click.echo("Repeat a run's command to resume it; 'tokbench cache clear --runs' deletes all unfinished runs.")
    trainings = list(states())
    click.echo(f"unfinished trainings: {len(trainings) or 'none'}")
    for state in trainings:
        click.echo(f"  {state.adapter}: {_size(state.size)}, {_age_text(state.age)}; {state.path}")
    if trainings:
        click.echo("Repeat 'tokbench train' to resume a training; 'tokbench cache clear --trainings' deletes all.")


@cache.command()
@click.option("--features", "only_features", is_flag=True, help="Delete only the reference features.")
@click.option("--runs", "only_runs", is_flag=True, help="Delete only the unfinished runs.")
@click.option(
    "--trainings", "only_trainings", is_flag=True, help="Delete only the checkpoints of unfinished trainings."
)
def clear(only_features: bool, only_runs: bool, only_trainings: bool) -> None:
    """Delete cached reference features, unfinished runs and the checkpoints of unfinished trainings.

    Files of runs in progress, weights and datasets are not deleted. A training in progress writes its checkpoint again.
    """
    from tokbench.evaluation.checkpoint import delete
    from tokbench.paths import cache_dir
    from tokbench.training.states import states

    folder = cache_dir()
    everything = not (only_features or only_runs or only_trainings)
    if only_features or everything:
        count = _clear_features(folder / "features")
        click.echo(f"deleted the reference features ({count_of(count, 'file')})")
    if only_runs or everything:
        folders = sorted((folder / "runs").glob("*/"))
        deleted = sum(delete(folder_of_run) for folder_of_run in folders)
        click.echo(f"deleted {count_of(deleted, 'unfinished run')}")
        if deleted < len(folders):
            say(f"kept: {count_of(len(folders) - deleted, 'run')} in progress")
    if only_trainings or everything:
        found = list(states())
        for state in found:
            state.path.unlink(missing_ok=True)
        click.echo(f"deleted {count_of(len(found), 'unfinished training')}")


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


def _age_text(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.0f} min ago" if minutes < 120 else f"{minutes / 60:.0f} h ago"
