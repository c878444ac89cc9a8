"""Select the guidance scale of generators by the rule of docs/generators.md, and print the metric at each scale.

python benchmarks/guidance.py GENERATOR...      # uses a GPU if available
"""

from __future__ import annotations

import sys

from tokbench.api.device import choose_device
from tokbench.data.dataset import open_dataset
from tokbench.data.sources.base import hash_order
from tokbench.errors import TokbenchError
from tokbench.evaluation.config import Context, EvalConfig
from tokbench.evaluation.evaluate import evaluate
from tokbench.evaluation.sample_plan import SamplePlan
from tokbench.evaluation.tasks import Generate
from tokbench.extractors.pool import ExtractorPool
from tokbench.paths import cache_dir
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results.markdown import table
from tokbench.tokenizers.registry import load_adapters

SCALES = (1.0, 1.5, 2.0, 3.0)
SAMPLES, REFERENCES, SEED, NUMBER = 1000, 10_000, 1, "fd_efficientnet"


def main() -> int:
    names = sys.argv[1:]
    if not names:
        print(__doc__)
        return 2
    device = choose_device(None)
    try:
        adapters, failed = load_adapters(names, device)
    except TokbenchError as error:
        print(error, file=sys.stderr)
        return 2
    networks = ExtractorPool(device)
    found: dict[str, dict[float, float]] = {adapter.name: {} for adapter in adapters}
    for scale in SCALES:
        dataset = open_dataset("tiny-imagenet-train", TOKBENCH, None, REFERENCES)
        dataset.source.reorder(hash_order(dataset.source.names))
        plan = SamplePlan(dataset.name, TOKBENCH, SAMPLES, dataset)
        config = EvalConfig((NUMBER,), Generate(scale), seed=SEED, device=device)
        for made in evaluate(adapters, plan, config, Context(cache_dir(), networks=networks)):
            if made.error or NUMBER not in made.metrics:
                failed[made.adapter] = made.error or made.skipped.get(NUMBER, "not measured")
            else:
                found[made.adapter][scale] = made.metrics[NUMBER]["value"]
                if made.checkpoint is not None:
                    made.checkpoint.discard()
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
