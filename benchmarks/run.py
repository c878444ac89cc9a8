"""Benchmarks tokbench against the fastest public pipelines for the same metrics, as interleaved whole processes.

    python benchmarks/run.py --images 2000 --rounds 3

Every contender computes FID (2048-d Inception), PSNR, SSIM and LPIPS (AlexNet) from the same PNG files and network
weights. In each round, every contender runs once in random order; ratios are computed within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIRST, SECOND, BF16 = "tokbench", "tokbench, references cached", "tokbench bf16"


@dataclass(frozen=True)
class Contender:
    """A job of `jobs.py`, whether its cache starts empty, and additional environment variables."""

    title: str
    job: str
    fresh: bool = True
    environment: tuple[tuple[str, str], ...] = ()


CONTENDERS = [
    Contender("torch-fidelity + lpips + scikit-image", "torch-fidelity"),
    Contender("pytorch-fid + lpips + scikit-image", "pytorch-fid"),
    Contender("tokbench without the fast extra", "tokbench", environment=(("TOKBENCH_BACKEND", "torch"),)),
    Contender(FIRST, "tokbench"),
    Contender(SECOND, "tokbench", fresh=False),
    Contender(BF16, "tokbench bf16"),
    Contender("tokbench bf16, references cached", "tokbench bf16", fresh=False),
    Contender("forward passes only", "bare"),
    Contender("forward passes only, references cached", "bare, references cached"),
    Contender("forward passes only, bf16", "bare bf16"),
    Contender("forward passes only, bf16, references cached", "bare bf16, references cached"),
]


@dataclass(frozen=True)
class Measured:
    """Wall-clock seconds, CPU seconds, peak memory of the largest process in MiB, and the computed metrics."""

    wall: float
    cpu: float
    peak: float
    numbers: dict[str, float]


def measure(contender: Contender, arguments: list[str], work: Path) -> Measured:
    """Run one contender as a process and measure it."""
    cache = work / ("cache-fresh" if contender.fresh else "cache")
    if contender.fresh:
        shutil.rmtree(cache, ignore_errors=True)
    environment = os.environ | {"TOKBENCH_CACHE": str(cache)} | dict(contender.environment)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # otherwise every process would compile every import
    start = time.perf_counter()
    with (work / "errors.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "jobs.py"), contender.job, *arguments],
            env=environment, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"{contender.title} failed:\n{(work / 'errors.txt').read_text()[-3000:]}")
    numbers = json.loads(printed.strip().splitlines()[-1])
    return Measured(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, numbers)


def table(found: dict[str, list[Measured]], against: str) -> str:
    """Return a table of medians, and of median ratios to `against` within each round."""
    lines = [
        f"| | wall s | CPU s | peak MiB | CPU time of {against.split(' +')[0]} / its own |",
        "|:--|--:|--:|--:|--:|",
    ]
    for title, rounds in found.items():
        ratios = [other.cpu / own.cpu for own, other in zip(rounds, found[against], strict=True)]
        middle = [statistics.median(getattr(one, key) for one in rounds) for key in ("wall", "cpu", "peak")]
        spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
        lines.append(
            f"| {title} | {middle[0]:.1f} | {middle[1]:.1f} | {middle[2]:,.0f} | "
            f"{statistics.median(ratios):.2f}{spread} |"
        )
    return "\n".join(lines)


def equality(found: dict[str, list[Measured]], against: str) -> str:
    """Return a table of every contender's metrics and their relative difference from those of `against`."""
    expected = found[against][0].numbers
    lines = ["| | " + " | ".join(expected) + " |", "|:--|" + "--:|" * len(expected)]
    for title, rounds in found.items():
        if own := rounds[0].numbers:
            cells = [f"{own[key]:.8g} ({abs(own[key] / value - 1):.1e})" for key, value in expected.items()]
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="number of images")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--data", default="samples", help="dataset that provides the photos")
    parser.add_argument("--only", help="titles of contenders, separated by semicolons")
    parser.add_argument("--work", type=Path, default=HERE / ".work", help="folder for images and caches")
    parser.add_argument("--out", type=Path, help="Markdown file for the tables")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    import material

    reference, first, second = material.images(options.work, options.data, options.images)
    weights, published = material.inception(options.work)
    chosen = [one for one in CONTENDERS if not options.only or one.title in options.only.split(";")]
    arguments = [str(reference), str(first), str(weights)]
    for precision in ("tokbench", "tokbench bf16"):  # one unmeasured run fills the cache of reference features
        if any(one.job == precision and not one.fresh for one in chosen):
            measure(Contender("", precision, fresh=False), [str(reference), str(second), str(weights)], options.work)
    found: dict[str, list[Measured]] = {one.title: [] for one in chosen}
    for number in range(options.rounds):
        order = chosen[:]
        random.Random(number).shuffle(order)
        for contender in order:
            made = measure(contender, arguments, options.work)
            found[contender.title].append(made)
            print(f"round {number + 1}: {contender.title}: {made.wall:.1f} s, {made.cpu:.1f} CPU s", file=sys.stderr)
        against = chosen[0].title
        report = (
            f"{options.images:,} images of 256 px, {number + 1} rounds, {os.cpu_count()} cores; the FID network has "
            f"{'the published weights' if published else 'stand-in weights, so its FID is not comparable'}.\n\n"
            f"{table(found, against)}\n\nMetrics, and their relative difference from those of the first row:\n\n"
            f"{equality(found, against)}\n"
        )
        if options.out:  # written after every round, so that an interruption loses at most one round
            options.out.write_text(report, encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
