"""Outputs of frozen networks for all training images, computed once and cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tokbench.io.atomic import atomic_path
from tokbench.nn.trainable import TrainingData
from tokbench.paths import cache_dir, slug

BLOCK = 2048
"""Number of images whose outputs are cached in one file."""

_BATCH = 64


@torch.inference_mode()
def encode_images(
    name: str,
    identity: Sequence[str],
    encode: Callable[[Tensor], Tensor],
    data: TrainingData,
    device: str,
    mirrored: bool,
    progress: Callable[[int, int], None],
) -> Tensor:
    """Return the outputs of `encode` for all images, (1, N, ...) or (2, N, ...).

    name: of the network, for the folder. identity: hashes of everything that the outputs depend on besides the images
    and the type of device. encode: maps images (B, 3, H, W) in [0, 1] on `device` to outputs (B, ...) in the type that
    is cached. mirrored: whether a second half holds the outputs of the mirrored images. progress: called with the
    number of encoded images and the total. Outputs are cached in files of `BLOCK` images, so that an interrupted call
    resumes after the last complete file.
    """
    key = hashlib.sha256("/".join((*identity, data.sha256, device.partition(":")[0])).encode()).hexdigest()[:24]
    folder = cache_dir() / "tokens" / f"{slug(name)}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    halves, total, done = [], len(data) * (2 if mirrored else 1), 0
    for mirror in (False, True)[: 2 if mirrored else 1]:
        encoded = []
        for number, block in enumerate(data.pixels.split(BLOCK)):
            path = folder / f"{'mirrored' if mirror else 'plain'}-{number:05d}.safetensors"
            outputs = _read_cached(path)
            if outputs is None:
                pixels = block.flip(3) if mirror else block
                parts = [encode(chunk.to(device).float().div_(255)).cpu() for chunk in pixels.split(_BATCH)]
                outputs = torch.cat(parts)
                with atomic_path(path) as part:
                    save_file({"tokens": outputs}, part)
            encoded.append(outputs)
            done += len(block)
            progress(done, total)
        halves.append(torch.cat(encoded))
    return torch.stack(halves)


def _read_cached(path: object) -> Tensor | None:
    """Return the outputs in a cache file; None if the file does not exist or is damaged."""
    try:
        return load_file(str(path))["tokens"]
    except (OSError, SafetensorError, KeyError):
        return None
