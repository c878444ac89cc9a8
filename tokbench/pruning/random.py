"""Random token dropping: the control that every selection method should outperform."""

from __future__ import annotations

import torch
from torch import Tensor

from tokbench.pruning.pruner import Pruner, PruningState, best, pick
from tokbench.pruning.vit import Attended


class Random(Pruner):
    """The selection depends only on the image's seed, the block and the token's position, not on the batch."""

    title, source = "random", "control"

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        # Positions are renumbered among the remaining tokens, and sampled independently in each block.
        first = len(run.counts) << 32
        places = torch.arange(first, first + tokens.shape[1] - run.prefix, device=tokens.device)
        return pick(tokens, best(random_scores(run.seeds_of(tokens), places), count), run.prefix)


def random_scores(seeds: Tensor, places: Tensor) -> Tensor:
    """Return uniform random integers (B, n) from int64 seeds (B,) and places (n,).

    The mixing function is that of SplitMix64 (Steele, Lea and Flood 2014), with wrap-around arithmetic.
    """
    mixed = seeds[:, None] * -7046029254386353131 + (places + 1)[None] * -4658895280553007687
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    return mixed ^ _shifted(mixed, 31)


def _shifted(values: Tensor, by: int) -> Tensor:
    """Shift right without sign extension; torch's operator extends the sign."""
    return (values >> by) & ((1 << (64 - by)) - 1)
