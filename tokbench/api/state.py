"""Saving and restoring the state of the process and of the user's models around an evaluation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import nn

_T = TypeVar("_T")

AsBefore = Callable[[], AbstractContextManager[None]]
"""Returns a context manager that restores the caller's default dtype and device."""


def modules_in(model: object) -> list[nn.Module]:
    """Return the outermost modules of a model.

    Searched are the model itself, the objects that own its `encode` and `decode` (or the model, if it is a bound
    method), and the attributes of all of these.
    """
    functions = (model, getattr(model, "encode", None), getattr(model, "decode", None))
    owners = [model, *(getattr(function, "__self__", None) for function in functions)]
    held = [*owners, *(part for owner in owners for part in getattr(owner, "__dict__", {}).values())]
    found = [part for part in held if isinstance(part, nn.Module)]
    inner = {id(module) for part in found for module in part.modules() if module is not part}
    return list({id(part): part for part in found if id(part) not in inner}.values())


@contextmanager
def preserved(models: Iterable[object], device: str) -> Iterator[AsBefore]:
    """Use the torch settings of the command line inside the context, and restore the caller's state afterwards.

    models: models whose networks may be moved to `device`.

    Restored, also after an exception: train or eval mode of every submodule, parameters and buffers (the same objects,
    on the same devices), `requires_grad`, gradients, the default dtype and device, grad mode, autocast, the precision
    of float32 matrix products, and the random number generators of Python, numpy and torch.
    """
    networks = [_Network(module) for model in models for module in modules_in(model)]
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    # A run on a CPU must not initialize CUDA in this process.
    uses_cuda = torch.cuda.is_initialized() or device.startswith("cuda")
    cuda = torch.cuda.get_rng_state_all() if uses_cuda else None
    dtype, place, precision = (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_float32_matmul_precision(),
    )

    @contextmanager
    def as_before() -> Iterator[None]:
        torch.set_default_dtype(dtype)
        try:
            with place:
                yield
        finally:
            torch.set_default_dtype(torch.float32)

    @contextmanager
    def unchanged() -> Iterator[None]:
        yield

    plain = dtype == torch.float32 and place.type == "cpu"
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for kind in ("cpu", "cuda") if uses_cuda else ("cpu",):
            stack.enter_context(torch.autocast(kind, enabled=False))
        if place.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        try:
            torch.set_default_dtype(torch.float32)
            torch.set_float32_matmul_precision("highest")
            yield unchanged if plain else as_before
        finally:
            for network in networks:
                network.restore()
            torch.set_default_dtype(dtype)
            torch.set_float32_matmul_precision(precision)
            random.setstate(python)
            np.random.set_state(legacy)
            torch.set_rng_state(cpu)
            if cuda is not None:
                torch.cuda.set_rng_state_all(cuda)


class _Network:
    """Snapshot of the state of a network that evaluation or moving can change."""

    def __init__(self, network: nn.Module) -> None:
        self._modules = [
            (module, module.training, dict(module._parameters), dict(module._buffers)) for module in network.modules()
        ]
        self._parameters = [
            (tensor, tensor.data, tensor.requires_grad, tensor.grad, None if tensor.grad is None else tensor.grad.data)
            for tensor in network.parameters()
        ]

    def restore(self) -> None:
        """Restore the snapshot."""
        for module, training, parameters, buffers in self._modules:
            module.training = training
            # A TorchScript module creates new Python objects at each access and stores the tensors itself.
            if not isinstance(module, torch.jit.ScriptModule):
                _put_back(module._parameters, parameters)
                _put_back(module._buffers, buffers)
        for tensor, data, requires_grad, gradient, values in self._parameters:
            if tensor.device != data.device:
                tensor.data = data
            tensor.requires_grad_(requires_grad)
            if gradient is not None and values is not None and gradient.device != values.device:
                gradient.data = values
            if tensor.grad is not gradient:
                tensor.grad = gradient


def _put_back(now: dict[str, _T], before: dict[str, _T]) -> None:
    for name, tensor in before.items():
        if now.get(name) is not tensor:
            now[name] = tensor
