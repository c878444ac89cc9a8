"""How tokens are drawn from logits: noise from seeds, guidance and its schedules, temperature, top-k, top-p."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from tokbench.errors import AdapterError

Schedule = Literal["constant", "linear", "half-linear"]
SCHEDULES: tuple[Schedule, ...] = ("constant", "linear", "half-linear")


def check_options(
    temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0, schedule: str = "constant"
) -> None:
    """Raises AdapterError, naming the option, for what cannot be sampled with."""
    told = {
        f"temperature {temperature:g}: it is 0 or more": temperature >= 0,
        f"top_k {top_k}: it is 1 or more; leave it out for all codes": top_k is None or top_k >= 1,
        f"top_p {top_p:g}: it lies in (0, 1]": 0 < top_p <= 1,
        f"schedule '{schedule}': there are {', '.join(SCHEDULES)}": schedule in SCHEDULES,
    }
    if wrong := [what for what, holds in told.items() if not holds]:
        raise AdapterError("; ".join(wrong))


def uniforms(seeds: Sequence[int], *shape: int) -> Tensor:
    """Numbers in [0, 1), float64 (B, *shape), each image's from its own seed, on the CPU so that devices agree."""
    each = [torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(each)


def scale_at(share: float, guidance: float, schedule: Schedule) -> float:
    """The scale of guidance at a share (0 to 1) of the way: the whole scale, or a line to it from 1 (none), over all of
    the way or over its first half (Token-Shuffle, arXiv:2504.17789)."""
    if schedule == "constant":
        return guidance
    return 1 + (guidance - 1) * min(1.0, share * (2 if schedule == "half-linear" else 1))


def cfg_labels(labels: Tensor, nothing: int, guidance: float) -> Tensor:
    """Labels (B,), and behind them (2B,) where there is guidance as often the one that stands for no class."""
    return labels if guidance == 1 else torch.cat([labels, torch.full_like(labels, nothing)])


def apply_cfg(both: Tensor, scale: float) -> Tensor:
    """Logits with the class and, behind them, without it (2B, ...), as B logits that are led away from the latter:
    without + scale (with - without), Ho and Salimans (arXiv:2207.12598)."""
    with_class, without = both.chunk(2)
    return without + scale * (with_class - without)


def choose(
    logits: Tensor, noise: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """One index int64 (...) each of logits (..., K), by the inverse of the distribution at `noise` (...) in [0, 1).

    temperature: 0 for the most likely. top_k: only so many of the most likely. top_p: only the most likely whose
    chances, summed up to the one before, are below it; the most likely always stays.
    """
    if temperature == 0:
        return logits.argmax(-1)
    ordered, order = (logits.double() / temperature).sort(-1, descending=True)
    chances = ordered.softmax(-1)
    if top_k is not None:
        chances[..., top_k:] = 0
    if top_p < 1:
        chances = chances.where(chances.cumsum(-1) - chances < top_p, 0.0)
        chances[..., 0].clamp_(min=1e-12)
    sums = chances.cumsum(-1)
    place = torch.searchsorted(sums, (noise.to(sums) * sums[..., -1])[..., None], right=True)
    last = (chances > 0).sum(-1, keepdim=True) - 1  # a rounding must not lead behind it
    return order.gather(-1, place.minimum(last))[..., 0]
