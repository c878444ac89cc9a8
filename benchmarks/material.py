"""Inputs of the benchmark: images, reconstructions of them, and the weights of the FID network."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from tokbench.data.dataset import open_dataset
from tokbench.errors import MissingWeights
from tokbench.extractors.inception import BLOCKS
from tokbench.metric_names import INCEPTION
from tokbench.protocol.protocol import TOKBENCH
from tokbench.weights.registry import KNOWN_WEIGHTS, resolve

SIZE = 256


def images(work: Path, data: str, count: int) -> tuple[Path, Path, Path]:
    """Make folders of `count` PNG files: crops of photos, and their reconstructions by JPEG and WebP at quality 50."""
    reference, first, second = (work / f"{data}-{count}" / part for part in ("reference", "first", "second"))
    if (second / f"{count - 1:05d}.png").exists():
        return reference, first, second
    source = open_dataset(data, TOKBENCH).source
    rng = np.random.default_rng(0)
    for folder in (reference, first, second):
        folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        photo = source.open(i % len(source.names)).convert("RGB")
        if i >= len(source.names):  # a repeated photo: another crop, mirrored with probability 0.5
            side = int(min(photo.size) * rng.uniform(0.6, 0.95))
            left, top = (int(rng.integers(0, length - side + 1)) for length in photo.size)
            photo = photo.crop((left, top, left + side, top + side))
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else photo
        photo = photo.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        photo.save(reference / f"{i:05d}.png")
        for folder, form in ((first, "JPEG"), (second, "WEBP")):
            buffer = io.BytesIO()
            photo.save(buffer, format=form, quality=50)
            Image.open(buffer).convert("RGB").save(folder / f"{i:05d}.png")
    return reference, first, second


def inception(work: Path) -> tuple[Path, bool]:
    """Return the file of the FID network's weights, and whether they are the published ones.

    Without the published file, a stand-in with the same shapes, and therefore the same speed, is made. It contains the
    published layers that are available. Its values are meaningful only for comparing programs.
    """
    published = KNOWN_WEIGHTS[INCEPTION][0]
    try:
        found = resolve(INCEPTION, (published,), False)
        return found.path, True
    except MissingWeights:
        pass
    path = work / "stand-in-inception.pth"
    if path.exists():
        return path, False
    generator, state = torch.Generator().manual_seed(7), {}
    for block, make in BLOCKS.items():
        for key, value in make().state_dict().items():
            if key.endswith("num_batches_tracked"):
                continue
            noise = torch.randn(value.shape, generator=generator)
            if key.endswith("weight") and value.dim() > 1:
                noise *= (2 / value[0].numel()) ** 0.5  # preserves the variance of activations
            elif key.endswith(("running_var", "bn.weight")):
                noise = 0.8 + 0.4 * torch.rand(value.shape, generator=generator)
            else:
                noise *= 0.1
            state[f"{block}.{key}"] = noise
    try:
        cut = resolve(INCEPTION, KNOWN_WEIGHTS[INCEPTION][1:], False)
        state |= load_file(cut.path)
    except MissingWeights:
        pass
    work.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path, False
