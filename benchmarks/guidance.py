"""Choose the scale of guidance of generators by the rule of docs/generators.md, and print what each scale gives.

python benchmarks/guidance.py GENERATOR...
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence

from tokbench.dataset import open_dataset
from tokbench.evaluate import evaluate
from tokbench.leaderboard import table
from tokbench.plugins import load_adapters
from tokbench.protocol import TOKBENCH
from tokbench.slots import Slots
from tokbench.tasks import Generate
from tokbench.weights import cache_dir

SCALES = (1.0, 1.5, 2.0, 3.0)
SAMPLES, REFERENCES, SEED, NUMBER = 1000, 10_000, 1, "fd_efficientnet"


def drawn(names: Sequence[str]) -> list[int]:
    """Positions in the order of a hash of the names, since a file may be sorted by class."""
    return sorted(range(len(names)), key=lambda at: hashlib.sha256(names[at].encode()).digest())


def main() -> int:
    names = sys.argv[1:]
    if not names:
        print(__doc__)
        return 2
    adapters, failed = load_adapters(names)
    found: dict[str, dict[float, float]] = {adapter.name: {} for adapter in adapters}
    for scale in SCALES:
        dataset = open_dataset("tiny-imagenet-train", TOKBENCH, None, REFERENCES)
        dataset.source.reorder(drawn(dataset.source.names))
        slots = Slots(dataset.name, TOKBENCH, SAMPLES, dataset)
        for made in evaluate(adapters, slots, [NUMBER], task=Generate(scale), seed=SEED, cache=cache_dir()):
            if made.error or NUMBER not in made.metrics:
                failed[made.adapter] = made.error or made.skipped.get(NUMBER, "not measured")
            else:
                found[made.adapter][scale] = made.metrics[NUMBER]["value"]
                if made.journal is not None:
                    made.journal.discard()
    head = ["generator", *(f"{NUMBER} at {scale:g}" for scale in SCALES), "chosen"]
    rows = [
        [name, *(f"{values[scale]:.3f}" for scale in SCALES), f"{min(values, key=values.__getitem__):g}"]
        for name, values in found.items()
        if len(values) == len(SCALES)
    ]
    print(table(head, rows), end="")
    for name, reason in failed.items():
        print(f"failed {name}: {reason}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
