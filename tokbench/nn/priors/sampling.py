"""Sampling of tokens from logits: seeded noise, classifier-free guidance, temperature, top-k and top-p."""

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
    """Raise AdapterError, naming the option, for invalid sampling options."""
    checks = {
        f"temperature {temperature:g}: must be 0 or more": temperature >= 0,
        f"top_k {top_k}: must be 1 or more; leave it out for all codes": top_k is None or top_k >= 1,
        f"top_p {top_p:g}: must be in (0, 1]": 0 < top_p <= 1,
        f"schedule '{schedule}': must be one of {', '.join(SCHEDULES)}": schedule in SCHEDULES,
    }
    if wrong := [message for message, valid in checks.items() if not valid]:
        raise AdapterError("; ".join(wrong))


def uniforms(seeds: Sequence[int], *shape: int) -> Tensor:
    """Return uniform float64 numbers in [0, 1), (B, *shape), one seed per image, drawn on the CPU for all devices."""
    each = [torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(each)


def scale_at(share: float, guidance: float, schedule: Schedule) -> float:
    """Return the guidance scale at a share (0 to 1) of the sampling.

    "constant" always gives `guidance`; "linear" increases linearly from 1 (no guidance) to `guidance`, "half-linear"
    reaches it after the first half (Token-Shuffle, arXiv:2504.17789).
    """
    if schedule == "constant":
        return guidance
    return 1 + (guidance - 1) * min(1.0, share * (2 if schedule == "half-linear" else 1))


def cfg_labels(labels: Tensor, nothing: int, guidance: float) -> Tensor:
    """Return the labels (B,) if `guidance` is 1, else (2 B,): the labels followed by B times `nothing`.

    nothing: the label that stands for no class.
    """
    return labels if guidance == 1 else torch.cat([labels, torch.full_like(labels, nothing)])


def apply_cfg(both: Tensor, scale: float) -> Tensor:
    """Combine logits of the conditional and then the unconditional model (2 B, ...) to guided logits (B, ...).

    Classifier-free guidance (Ho and Salimans, arXiv:2207.12598): unconditional + scale (conditional - unconditional).
    """
    conditional, unconditional = both.chunk(2)
    return unconditional + scale * (conditional - unconditional)


def choose(
    logits: Tensor, noise: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """Sample indices int64 (...) from logits (..., K) by inverse transform sampling.

    noise: uniform numbers (...) in [0, 1). temperature: 0 selects the most likely index. top_k: number of most likely
    indices that remain. top_p: an index remains if the total probability of all more likely ones is below it; the most
    likely index always remains.
    """
    if temperature == 0:
        return logits.argmax(-1)
    ordered, order = (logits.double() / temperature).sort(-1, descending=True)
    probabilities = ordered.softmax(-1)
    if top_k is not None:
        probabilities[..., top_k:] = 0
    if top_p < 1:
        probabilities = probabilities.where(probabilities.cumsum(-1) - probabilities < top_p, 0.0)
        probabilities[..., 0].clamp_(min=1e-12)
    sums = probabilities.cumsum(-1)
    position = torch.searchsorted(sums, (noise.to(sums) * sums[..., -1])[..., None], right=True)
    last = (probabilities > 0).sum(-1, keepdim=True) - 1  # rounding must not select an index beyond it
    return order.gather(-1, position.minimum(last))[..., 0]
