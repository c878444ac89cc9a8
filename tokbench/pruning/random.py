"""random: tokens dropped by lot, the control that every choice must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from tokbench.pruning.pruner import Pruner, PruningState, best, pick
from tokbench.pruning.vit import Attended


class Random(Pruner):
    """The lot depends on an image's seed, the block and a token's place alone, never on the batch."""

    title, source = "random", "control"

    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        # Places are counted anew among those that are left, and so drawn anew in each block.
        first = len(run.counts) << 32
        places = torch.arange(first, first + tokens.shape[1] - run.prefix, device=tokens.device)
        return pick(tokens, best(lots(run.seeds_of(tokens), places), count), run.prefix)


def lots(seeds: Tensor, places: Tensor) -> Tensor:
    """int64 (B,) and (n,) to lots (B, n), equally likely integers: SplitMix64's mixing of seed and place (Steele, Lea
    and Flood 2014), in integers that wrap around."""
    mixed = seeds[:, None] * -7046029254386353131 + (places + 1)[None] * -4658895280553007687
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    return mixed ^ _shifted(mixed, 31)


def _shifted(values: Tensor, by: int) -> Tensor:
    """A logical shift to the right: torch's keeps the sign."""
    return (values >> by) & ((1 << (64 - by)) - 1)
