"""Profiles a run by part: `python benchmarks/parts.py ADAPTER --data DATA --limit N --metrics ...`.

Prints the wall-clock seconds of each part in the main thread.
"""

from __future__ import annotations

import contextlib
import cProfile
import pstats
import sys
import time

PARTS = {
    "waiting for decoded images": ("loader.py", "_gather"),
    "encode and decode": ("reconstruct.py", "reconstruct"),
    "Inception": ("inception.py", "forward"),
    "EfficientNet": ("efficientnet.py", "forward"),
    "LPIPS, trunk": ("lpips.py", "forward"),
    "LPIPS, distance": ("lpips.py", "distance"),
    "waiting for pixel metrics (another thread)": ("_base.py", "result"),
    "writing the checkpoint": ("run_checkpoint.py", "save"),
    "reading and writing cached reference features": ("feature_cache.py", "_write"),
    "compiling networks": ("backend.py", "compile"),
    "computing metrics and intervals": ("adapter_run.py", "compute"),
    "writing results": ("result.py", "save"),
}


def main() -> None:
    start = time.perf_counter()
    from tokbench.cli import main as command

    profiler = cProfile.Profile()
    with contextlib.suppress(SystemExit):
        profiler.runcall(command, ["eval", *sys.argv[1:]], standalone_mode=False)
    whole = time.perf_counter() - start
    found: dict[str, float] = {}
    for (file, _, function), (_, _, _, cumulative, _) in pstats.Stats(profiler).stats.items():  # type: ignore[attr-defined]
        for part, place in PARTS.items():
            if (file.rpartition("/")[2], function) == place and ("tokbench" in file or "concurrent" in file):
                found[part] = found.get(part, 0.0) + cumulative
    compiling = found.get("compiling networks", 0.0)
    print(f"\n{'part':<46} {'s':>8} {'share':>7}")
    for part, seconds in sorted(found.items(), key=lambda item: -item[1]):
        print(f"{part:<46} {seconds:>8.2f} {seconds / whole:>6.1%}")
    rest = whole - sum(found.values()) + compiling  # compilation is also part of the networks' first passes
    print(f"{'imports, loading weights, other':<46} {rest:>8.2f} {rest / whole:>6.1%}")
    print(f"{'whole process':<46} {whole:>8.2f}")


if __name__ == "__main__":
    main()
