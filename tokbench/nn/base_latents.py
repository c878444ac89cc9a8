"""Latents of a frozen autoencoder for all training images, for models that are built on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from tokbench import nn
from tokbench.io.hashing import code_of
from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.encoded import encode_images
from tokbench.nn.trainable import TrainingData
from tokbench.weights.hashing import hash_module


def with_base_latents(
    name: str,
    base: ConvAutoencoder,
    data: TrainingData,
    device: str,
    mirrored: bool,
    progress: Callable[[int, int], None],
) -> TrainingData:
    """Return the training set whose tokens are the latents of `base` before its bottleneck, float16 (1 or 2, N, P, D).

    name: of the base, for the cache. mirrored, progress: see `encode_images`.
    """
    base.eval().to(device)

    def encode(images: Tensor) -> Tensor:
        return base.latents(images * 2 - 1).flatten(1, 2).half()

    identity = ("latents", hash_module(base), code_of(Path(nn.__file__).parent))
    encoded = encode_images(f"{name}-latents", identity, encode, data, device, mirrored, progress)
    return replace(data, tokens=encoded)
