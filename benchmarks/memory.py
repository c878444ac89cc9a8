"""Compares peak memory for few and many images: `python benchmarks/memory.py --few 2000 --many 20000`."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent


def images(work: Path, count: int, side: int) -> Path:
    """Make a folder of `count` JPEG files of noise over gradients."""
    folder = work / f"noise-{count}-{side}"
    if (folder / f"{count - 1:06d}.jpg").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, side)[None, :, None]
    for i in range(count):
        pixels = ramp * rng.random((1, 1, 3)) + 55 * rng.random((side, side, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:06d}.jpg", quality=90)
    return folder


def peak(data: Path, metrics: str, work: Path) -> float:
    """Return the peak MiB of one `tokbench eval jpeg.q50` with an empty cache."""
    shutil.rmtree(work / "cache-memory", ignore_errors=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tokbench", "eval", "jpeg.q50", "--data", str(data), "--metrics", metrics,
         "--out", str(work / "results-memory")],
        env=os.environ | {"TOKBENCH_CACHE": str(work / "cache-memory")}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("the run failed")
    return used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=2000)
    parser.add_argument("--many", type=int, default=20000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--metrics", default="psnr,ssim,lpips,fd_efficientnet")
    parser.add_argument("--work", type=Path, default=HERE / ".work")
    arguments = parser.parse_args()
    counts = (arguments.few, arguments.many)
    found = [peak(images(arguments.work, count, arguments.side), arguments.metrics, arguments.work) for count in counts]
    print(f"{arguments.metrics} at {arguments.side} px:")
    for count, mib in zip(counts, found, strict=True):
        print(f"{count:>8,} images: {mib:,.0f} MiB")
    print(f"ratio: {found[1] / found[0]:.3f}")


if __name__ == "__main__":
    main()
