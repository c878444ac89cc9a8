"""`tokbench train`: the adapters that are trained here, from images to weights."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click

from tokbench.api.device import choose_device
from tokbench.cli.options import (
    device_option,
    limit_option,
    progress_bar,
    root_option,
    say,
    say_left_out,
    split_option,
    stoppable,
)
from tokbench.errors import UsageError


@click.command()
@click.argument("adapters", metavar="ADAPTER...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every adapter that can be trained, in order.")
@click.option("--data", default="tiny-imagenet-train", show_default=True, help="What to train on.")
@split_option
@click.option("--budget", help="Seconds or images of each training: 90s, 20000i [default: the profile's images].")
@click.option(
    "--profile", type=click.Choice(["cpu", "gpu"]), help="Batch, rate and images [default: what the device is]."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of weights, order and noise.")
@limit_option
@device_option
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="How many at a time.")
@root_option
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where weights and records are written [default: beside each adapter's TOML].",
)
def train(
    adapters: tuple[str, ...],
    everything: bool,
    data: str,
    split: str | None,
    budget: str | None,
    profile: str | None,
    seed: int,
    limit: int | None,
    device: str | None,
    jobs: int,
    root: Path | None,
    out: Path | None,
) -> None:
    """Train adapters that come with this repository, or your own that say how.

    Each is written as ADAPTER's <variant>.safetensors (float16) and <variant>.training.json. After an interruption the
    same command goes on from the last minute. Small networks leave a device idle: with --jobs several are trained at a
    time, each after those that it is built on. Exit status: 1 where an adapter could not be trained; the others are.
    """
    changes = _budget(budget) | {"seed": seed}
    from tokbench.data.dataset import open_dataset
    from tokbench.protocol.protocol import load_protocol
    from tokbench.training.workers import Common, trainings
    from tokbench.training.zoo import chosen, load_training_data

    wanted = chosen(adapters, everything, root)
    where = choose_device(device)
    profile = profile or ("gpu" if where.startswith("cuda") else "cpu")
    dataset = open_dataset(data, load_protocol("tokbench"), None, limit, root, split=split)
    say_left_out(dataset.left_out)
    failed = False
    with stoppable(lambda: "the same command goes on from the last minute"), progress_bar() as bar:
        material = load_training_data(dataset, lambda done, total: bar("images read", done, total))
        described = f"{dataset.name}, {len(material):,} images, sha256 {material.sha256[:16]}"
        common = Common(described, profile, changes, where, out)
        for ended in trainings(wanted, material, common, jobs, bar, root):
            if ended.record is None:
                say(f"failed {ended.name}: {ended.error}")
                failed = True
                continue
            made = ended.record
            last = ", ".join(f"{term} {curve[-1]:g}" for term, curve in made.curve.items())
            speed = made.images / made.seconds if made.seconds else float("inf")
            say(f"wrote {ended.path}: {made.images:,} images in {made.seconds:,.0f} s ({speed:.0f}/s); {last}")
    if failed:
        sys.exit(1)


def _budget(text: str | None) -> dict[str, Any]:
    """`90s` or `20000i` as fields of a recipe. Raises UsageError."""
    if text is None:
        return {}
    found = re.fullmatch(r"([1-9]\d*)([si])", text.strip())
    if found is None:
        raise UsageError(f"--budget {text}: give seconds or images, as in 90s or 20000i")
    return {"seconds": float(found[1])} if found[2] == "s" else {"images": int(found[1])}
