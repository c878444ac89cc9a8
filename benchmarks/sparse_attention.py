"""Times dense and top-k channel attention alternately: `python benchmarks/sparse_attention.py`.

The sparse maps are selected from the full map of scores, so the selection comes on top of dense attention. `mix` is
the learned mix of four sparsities of DRSformer, `one map each` the same mix with one product of map and values for each
sparsity, as the authors compute it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.nn.channel_attention import TopKChannelAttention, top_k_softmax
from tokbench.pruning.paired_timing import PairedTiming, time_in_turns
from tokbench.timing import device_name

WIDTHS = ((24, 1), (48, 2), (192, 4))
"""Channels and heads of the compared layers."""


def one_map_each(layer: TopKChannelAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what `layer.attend` returns, from one product of map and values for each sparsity."""
    scores = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).transpose(-2, -1) * layer.temperature
    parts = zip(layer.mix, layer.counts, strict=True)
    return torch.stack([weight * (top_k_softmax(scores, count) @ value) for weight, count in parts]).sum(0)


def described(timing: PairedTiming) -> str:
    low, high = timing.interval()
    speed = f"{timing.ratio:.3f} [{low:.3f}, {high:.3f}]"
    return f"{speed}, control {timing.control:.3f}{'' if timing.measured else ', no difference measured'}"


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=64, help="height and width of the features")
    parser.add_argument("--repetitions", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(f"{device_name(options.device)}, features of {options.side}x{options.side}, speed of dense attention = 1")
    for width, heads in WIDTHS:
        torch.manual_seed(0)
        dense, sparse, half = (
            TopKChannelAttention(width, heads, shares).to(options.device)
            for shares in ([1.0], [1 / 2, 2 / 3, 3 / 4, 4 / 5], [0.5])
        )
        query, key, value = torch.randn(3, 1, heads, width // heads, options.side**2, device=options.device)
        calls: dict[str, Callable[[], Tensor]] = {
            "top half": partial(half.attend, query, key, value),
            "mix": partial(sparse.attend, query, key, value),
            "one map each": partial(one_map_each, sparse, query, key, value),
        }
        for name, call in calls.items():
            timing = time_in_turns(partial(dense.attend, query, key, value), call, options.repetitions, options.device)
            print(f"{width:>4} channels, {heads} heads, {name:<13} {described(timing)}")


if __name__ == "__main__":
    main()
