"""scikit-image's PSNR and SSIM, as each repository calls them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from tokbench.protocol.protocol import load_protocol

LIBRARY = "scikit-image"
PAPER = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


def psnr(references: np.ndarray, images: np.ndarray) -> list[float]:
    return [peak_signal_noise_ratio(a, b) for a, b in zip(references, images, strict=True)]


def ssim(references: np.ndarray, images: np.ndarray, data_range: float, **options: object) -> float:
    pairs = zip(references, images, strict=True)
    return np.mean([structural_similarity(a, b, data_range=data_range, channel_axis=-1, **options) for a, b in pairs])


def unit(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / np.float32(255)


@pytest.fixture
def numbers(ours, references: Tensor, images: Tensor):
    """tokbench's PSNR and SSIM under a protocol."""

    def both(name: str) -> tuple[float, float]:
        protocol = load_protocol(name)
        found = ours([(protocol, "psnr"), (protocol, "ssim")], references, images)
        return found[name, "psnr"], found[name, "ssim"]

    return both


def test_tokbench(record, numbers, references, images, pixels) -> None:
    decibels, similarity = numbers("tokbench")
    theirs = pixels(references), pixels(images)
    record("tokbench", "PSNR", LIBRARY, decibels, np.mean(psnr(*theirs)), 1e-4)
    record("tokbench", "SSIM, Gaussian window", LIBRARY, similarity, ssim(*theirs, 255, **PAPER), 1e-5)


def test_llamagen(record, numbers, references, images, pixels) -> None:
    """The original stays float, which on an 8-bit crop is the same; images in [0, 1] with a range of 2."""
    decibels, similarity = numbers("llamagen")
    theirs = references.permute(0, 2, 3, 1).numpy(), unit(pixels(images, "llamagen"))
    record("llamagen", "PSNR", LIBRARY, decibels, np.mean(psnr(*theirs)), 1e-4)
    record("llamagen", "SSIM, data_range=2", LIBRARY, similarity, ssim(*theirs, 2.0), 1e-5)
    assert ssim(*theirs, 2.0) > ssim(*theirs, 1.0) + 0.01, "the range makes a difference"


def test_seed_voken(record, numbers, ours, references, images, pixels) -> None:
    decibels, similarity = numbers("seed-voken")
    theirs = unit(pixels(references, "seed-voken original")), unit(pixels(images, "seed-voken"))
    record("seed-voken", "PSNR, mean of batches of 4", LIBRARY, decibels, np.mean(psnr(*theirs)), 1e-4)
    record("seed-voken", "SSIM, 7x7 uniform window", LIBRARY, similarity, ssim(*theirs, 1.0), 1e-5)

    # A short last batch weighs as much as the others.
    protocol = load_protocol("seed-voken")
    short = ours([(protocol, "psnr")], references[:10], images[:10])["seed-voken", "psnr"]
    each = psnr(*theirs)[:10]
    of_batches = np.mean([np.mean(each[start : start + 4]) for start in range(0, 10, 4)])
    assert abs(of_batches - np.mean(each)) > 1e-3
    record("seed-voken", "PSNR, last batch short", LIBRARY, short, of_batches, 1e-4)


def test_cosmos(record, numbers, ours, references, images, pixels) -> None:
    """Levels 0 to 255 in float32; PSNR in its own words, since scikit-image has no epsilon."""
    decibels, similarity = numbers("cosmos")
    theirs = [pixels(side, "cosmos").astype(np.float32) for side in (references, images)]

    def epsilon_psnr(a: np.ndarray, b: np.ndarray) -> float:
        return float(20 * np.log10(255 / (np.sqrt(np.square(a - b).mean()) + np.finfo(np.float32).eps)))

    values = [epsilon_psnr(a, b) for a, b in zip(*theirs, strict=True)]
    record("cosmos", "PSNR with an epsilon", "TokenBench's formula, numpy", decibels, np.mean(values), 1e-4)
    record("cosmos", "SSIM, 7x7 uniform window", LIBRARY, similarity, ssim(*theirs, 255), 1e-5)

    exact = torch.cat([references[:1], images[1:]])
    found = ours([(load_protocol("cosmos"), "psnr")], references, exact)["cosmos", "psnr"]
    values[0] = epsilon_psnr(theirs[0][0], theirs[0][0])
    assert 186 < values[0] < 187
    record("cosmos", "PSNR, one image exact", "TokenBench's formula, numpy", found, np.mean(values), 1e-4)


def test_rae(record, ours, references, images, pixels) -> None:
    """Its PSNR is the plain one, except for a lower bound of the MSE."""
    found = ours([(load_protocol("rae"), "psnr")], references, images)["rae", "psnr"]
    record("rae", "PSNR", LIBRARY, found, np.mean(psnr(pixels(references), pixels(images, "rae"))), 1e-4)
