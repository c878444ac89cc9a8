"""tokbench against the fastest public way to the same numbers: whole processes, interleaved, medians and ratios.

    python benchmarks/run.py --images 2000 --rounds 3

Every contender gets the same PNG files and the same network weights and computes FID (2048-d Inception), PSNR, SSIM and
LPIPS (AlexNet). In every round each runs once, in another order; a ratio is taken within a round.
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
    """A job of `jobs.py`; which reconstructions it gets; whether its cache starts empty; more of its environment."""

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
    Contender("the bare forward passes", "bare"),
    Contender("the same, references cached", "bare, references cached"),
    Contender("the bare forward passes, bf16", "bare bf16"),
    Contender("the same in bf16, references cached", "bare bf16, references cached"),
]


@dataclass(frozen=True)
class Measured:
    """Seconds on the wall and of all processors, peak memory of the largest process in MiB, and the numbers found."""

    wall: float
    cpu: float
    peak: float
    numbers: dict[str, float]


def measure(contender: Contender, arguments: list[str], work: Path) -> Measured:
    cache = work / ("cache-fresh" if contender.fresh else "cache")
    if contender.fresh:
        shutil.rmtree(cache, ignore_errors=True)
    environment = os.environ | {"TOKBENCH_CACHE": str(cache)} | dict(contender.environment)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # nobody would want to compile every import in every process
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
    """Medians, and medians of the ratios to `against` within each round."""
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
    """Every contender's numbers, and how far they are from those of `against`, relatively."""
    expected = found[against][0].numbers
    lines = ["| | " + " | ".join(expected) + " |", "|:--|" + "--:|" * len(expected)]
    for title, rounds in found.items():
        if own := rounds[0].numbers:
            cells = [f"{own[key]:.8g} ({abs(own[key] / value - 1):.1e})" for key, value in expected.items()]
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", default="samples", help="the dataset that the photos come from")
    parser.add_argument("--only", help="titles of contenders, separated by semicolons")
    parser.add_argument("--work", type=Path, default=HERE / ".work")
    parser.add_argument("--out", type=Path, help="where the tables are written, as Markdown")
    asked = parser.parse_args()
    sys.path.insert(0, str(HERE))
    import material

    reference, first, second = material.images(asked.work, asked.data, asked.images)
    weights, published = material.inception(asked.work)
    chosen = [one for one in CONTENDERS if not asked.only or one.title in asked.only.split(";")]
    arguments = [str(reference), str(first), str(weights)]
    for precision in ("tokbench", "tokbench bf16"):  # once, unmeasured: the features of the references go to the cache
        if any(one.job == precision and not one.fresh for one in chosen):
            measure(Contender("", precision, fresh=False), [str(reference), str(second), str(weights)], asked.work)
    found: dict[str, list[Measured]] = {one.title: [] for one in chosen}
    for number in range(asked.rounds):
        order = chosen[:]
        random.Random(number).shuffle(order)
        for contender in order:
            made = measure(contender, arguments, asked.work)
            found[contender.title].append(made)
            print(f"round {number + 1}: {contender.title}: {made.wall:.1f} s, {made.cpu:.1f} CPU s", file=sys.stderr)
        against = chosen[0].title
        told = (
            f"{asked.images:,} images of 256 px, {number + 1} rounds, {os.cpu_count()} cores; the FID network has "
            f"{'the published weights' if published else 'stand-in weights, so its FID means nothing by itself'}.\n\n"
            f"{table(found, against)}\n\nThe numbers, and their relative difference from the first line's:\n\n"
            f"{equality(found, against)}\n"
        )
        if asked.out:  # after every round, so that what was measured is kept if a later one is interrupted
            asked.out.write_text(told, encoding="utf-8")
    print(told)


if __name__ == "__main__":
    main()
