"""The hash of a network's parameters."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def hash_module(module: nn.Module) -> str:
    """Return the SHA-256 of the names, shapes, types and values of all parameters and persistent buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
