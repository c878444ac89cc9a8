"""`tokbench train`: trains the adapters that define a training."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tokbench.api.device import choose_device
from tokbench.cli.options import (
    device_option,
    limit_option,
    progress_bar,
    reading_options,
    root_option,
    say,
    say_left_out,
    stoppable,
)
from tokbench.data.reading import ReadOptions
from tokbench.errors import UsageError
from tokbench.io.counts import count_of
from tokbench.metric_names import ITEMS

if TYPE_CHECKING:
    from tokbench.nn.trainable import TrainingData


@click.command()
@click.argument("adapters", metavar="ADAPTER...", nargs=-1)
@click.option(
    "--all", "everything", is_flag=True, help="Train every adapter that defines a training, dependencies first."
)
@click.option(
    "--data",
    help="Training data: dataset name or path [default: that in the adapters' TOML files, or tiny-imagenet-train].",
)
@reading_options("first")
@click.option(
    "--budget",
    help="Budget per training in seconds or images, for example 90s or 20000i [default: set by the profile].",
)
@click.option(
    "--profile",
    type=click.Choice(["cpu", "gpu"]),
    help="Batch size, learning rate and number of images [default: chosen by the device].",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of initial weights, data order and noise.",
)
@limit_option
@device_option
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Number of trainings in parallel."
)
@click.option("--retrain", is_flag=True, help="Also train adapters whose weights are up to date.")
@click.option("--dry-run", is_flag=True, help="Print only the plan: the adapters in order, with estimated times.")
@root_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for weights and training records, as adapters/<family>/<variant>.safetensors; dependencies are read "
    "from it first [default: beside each adapter's TOML file].",
)
def train(
    adapters: tuple[str, ...],
    everything: bool,
    data: str | None,
    reading: ReadOptions,
    budget: str | None,
    profile: str | None,
    seed: int,
    limit: int | None,
    device: str | None,
    jobs: int,
    retrain: bool,
    dry_run: bool,
    root: Path | None,
    out: Path | None,
) -> None:
    """Train the adapters of this repository, or your own adapters that define a training.

    Each training writes <variant>.safetensors (int8, or float16 if int8 would be less accurate) and
    <variant>.training.json. To resume an interrupted training, repeat the command; at most the last minute is lost.
    Small networks do not use a device fully: --jobs trains several at once, each after the adapters it depends on.

    The plan is printed first; its estimates are the CPU times of earlier trainings, scaled to the number of images.
    With --all, cheap trainings come first. Adapters are skipped if they were trained with the same recipe, data and
    bases; changes of code are not noticed (--retrain).

    Exit status: 1 if an adapter could not be trained (the others still are).
    """
    changes = _budget(budget) | {"seed": seed}
    from tokbench.modalities.open import open_dataset
    from tokbench.protocol.protocol import load_protocol
    from tokbench.training.data import load_training_data
    from tokbench.training.plan import choose_data, chosen, describe_plan, make_plan
    from tokbench.training.states import describe_data
    from tokbench.training.workers import trainings
    from tokbench.training.zoo import TrainOptions

    wanted = chosen(adapters, everything, root)
    data, others = choose_data(wanted, data, everything)
    for name, own in others.items():
        say(f"left out {name}: it is trained on {own}; train it with --data {own}")
    wanted = {name: toml for name, toml in wanted.items() if name not in others}
    chosen_device = choose_device(device)
    profile = profile or ("gpu" if chosen_device.startswith("cuda") else "cpu")
    dataset = open_dataset(data, load_protocol("tokbench"), None, limit, root, reading)
    say_left_out(dataset.left_out)
    failed, noun = False, ITEMS[dataset.modality].noun
    with stoppable(lambda: "repeat the command to resume; at most the last minute is lost"), progress_bar() as bar:

        @cache
        def images() -> TrainingData:
            return load_training_data(dataset, lambda done, total: bar(f"{noun}s read", done, total))

        @cache
        def description() -> str:
            return describe_data(dataset.name, len(images()), images().sha256)

        options = TrainOptions("", profile, changes, chosen_device, out, noun)
        plan = make_plan(wanted, options, len(dataset), description, root=root, by_cost=everything, retrain=retrain)
        for name in plan.up_to_date:
            say(f"skipped {name}: up to date; --retrain trains again")
        click.echo("\n".join(describe_plan(plan, jobs, noun)))
        if dry_run or not plan.trainings:
            return
        planned = {training.name: training.toml for training in plan.trainings}
        for outcome in trainings(planned, images(), replace(options, data=description()), jobs, bar, root):
            if outcome.record is None:
                say(f"failed {outcome.name}: {outcome.error}")
                failed = True
                continue
            record = outcome.record
            last = ", ".join(f"{term} {curve[-1]:g}" for term, curve in record.curve.items())
            speed = record.images / record.seconds if record.seconds else float("inf")
            say(
                f"wrote {outcome.path}: {count_of(record.images, noun)} in {record.seconds:,.0f} s "
                f"({speed:.0f}/s); {last}"
            )
    if failed:
        sys.exit(1)


def _budget(text: str | None) -> dict[str, Any]:
    """Parse `90s` or `20000i` into fields of a training config. Raises UsageError."""
    if text is None:
        return {}
    found = re.fullmatch(r"([1-9]\d*)([si])", text.strip())
    if found is None:
        raise UsageError(f"--budget {text}: expected seconds or images, for example 90s or 20000i")
    return {"seconds": float(found[1])} if found[2] == "s" else {"images": int(found[1])}
