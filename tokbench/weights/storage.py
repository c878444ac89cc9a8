"""Decides how trained weights are stored: as int8 if that does not make the model measurably worse, else as float16."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.errors import AdapterError
from tokbench.weights.compact import compress, expand, is_int8

MAX_PSNR_LOSS = 0.02
"""int8 must lose less than this, in dB."""

MAX_LOG_ERROR = MAX_PSNR_LOSS * math.log(10) / 10
"""Increase of the logarithm of the mean squared error that corresponds to MAX_PSNR_LOSS, 0.0046."""


@dataclass(frozen=True)
class StorageCheck:
    """A measurement of a model, repeated with its int8 weights.

    evaluate: measures the model with its current weights; smaller numbers are better. It is called in evaluation mode,
    without gradients and with a fixed random seed. limit: maps the number of the trained weights to the smallest
    increase that is too large. unit: what is measured, for the training record. examples: number of images.
    """

    evaluate: Callable[[], float]
    limit: Callable[[float], float]
    unit: str
    examples: int


def psnr_check(reconstruct: Callable[[Any], Tensor], batches: Sequence[tuple[Any, Tensor]]) -> StorageCheck:
    """Return a check of the mean PSNR of reconstructions, which may decrease by less than MAX_PSNR_LOSS dB.

    reconstruct: returns reconstructions from a model's input. batches: inputs and their images (B, 3, H, W) in [-1, 1].
    """

    def evaluate() -> float:
        found = []
        for given, images in batches:
            error = (reconstruct(given).float().clamp(-1, 1) - images.float()).div(2).square().flatten(1).mean(1)
            found.append(10 * error.clamp(min=1e-10).log10())
        return float(torch.cat(found).double().mean())

    return StorageCheck(evaluate, lambda before: MAX_PSNR_LOSS, "dB PSNR", sum(len(images) for _, images in batches))


def loss_check(loss: Callable[[Any], Mapping[str, Tensor]], batches: Sequence[Any], examples: int) -> StorageCheck:
    """Return a check of the mean training loss, for models without reconstructions; see `largest_loss_increase`.

    loss: returns the terms of the loss for one of the `batches`, which together have `examples` images.
    """

    def evaluate() -> float:
        return sum(float(term) for batch in batches for term in loss(batch).values()) / len(batches)

    return StorageCheck(evaluate, largest_loss_increase, "training loss", examples)


def largest_loss_increase(before: float) -> float:
    """Return the increase of a training loss that corresponds to MAX_PSNR_LOSS.

    A squared error that increases by 0.02 dB increases by the factor 1 + MAX_LOG_ERROR. Under a Gaussian whose variance
    is that error, the negative log-likelihood then increases by MAX_LOG_ERROR / 2 nats per value, which is the limit
    for cross-entropies. The smaller of the two is used, so that the kind of loss need not be known: the relative one
    for losses below 0.5, the absolute one above.
    """
    return MAX_LOG_ERROR * min(abs(before), 0.5)


def stored_weights(
    model: nn.Module, left_out: tuple[str, ...] = (), *checks: StorageCheck
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors to be stored for a model, and a description of the storage for its training record.

    The description has the entry `dtype`, int8 or float16; if the choice was measured, also `int8_loss` (how much worse
    int8 is), `limit`, `unit` and `images` of the check that came closest to its limit. left_out: prefixes of names that
    are not stored. checks: all must pass; without one, nothing becomes int8. The model can be on any device, and its
    weights and mode do not change. Raises AdapterError if a check does not return a finite number for the trained
    weights.
    """
    state = {
        name: value.detach().to("cpu", copy=True)
        for name, value in model.state_dict().items()
        if not name.startswith(left_out)
    }
    compact = compress(state, _float16_names(model))
    if not checks or not is_int8(compact):
        return compress(state, state.keys()), {"dtype": "float16"}
    befores = [_evaluated(model, check) for check in checks]
    for before, check in zip(befores, checks, strict=True):
        if not math.isfinite(before):
            raise AdapterError(f"the check of the stored weights found {before} {check.unit} for the trained weights")
    with _replaced(model, expand(compact), state):
        increases = [_evaluated(model, check) - before for before, check in zip(befores, checks, strict=True)]
    limits = [check.limit(before) for before, check in zip(befores, checks, strict=True)]
    pairs = list(zip(increases, limits, strict=True))
    chosen = all(increase < limit for increase, limit in pairs)  # False also for NaN
    worst = max(range(len(checks)), key=lambda number: _closeness(*pairs[number]))
    increase, limit = pairs[worst]
    facts = {
        "dtype": "int8" if chosen else "float16",
        "int8_loss": float(f"{increase:.3g}") if math.isfinite(increase) else None,
        "limit": float(f"{limit:.3g}"),
        "unit": checks[worst].unit,
        "images": checks[worst].examples,
    }
    return compact if chosen else compress(state, state.keys()), facts


def _closeness(increase: float, limit: float) -> float:
    """Return how much of its limit an increase reaches; infinite if it is not finite."""
    return increase / limit if math.isfinite(increase) and limit > 0 else math.inf


def _float16_names(model: nn.Module) -> Collection[str]:
    """Return the names of buffers and of all parameters of bottlenecks: codebooks are compared with latents, so that
    small errors of them change tokens, and they are small."""
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    return buffers | {name for name in model.state_dict() if "bottleneck" in name.split(".")}


@torch.no_grad()
def _evaluated(model: nn.Module, check: StorageCheck) -> float:
    modes = {module: module.training for module in model.modules()}
    devices = {tensor.device.index or 0 for tensor in model.state_dict().values() if tensor.device.type == "cuda"}
    model.eval()
    try:
        with torch.random.fork_rng(sorted(devices)):
            torch.manual_seed(0)
            return check.evaluate()
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _replaced(model: nn.Module, state: Mapping[str, Tensor], original: Mapping[str, Tensor]) -> Iterator[None]:
    """Give the tensors of a model the values in `state`, in place, and afterwards those in `original`."""
    _copy(model, state)
    try:
        yield
    finally:
        _copy(model, original)


@torch.no_grad()
def _copy(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        if name in state:
            tensor.copy_(state[name])
