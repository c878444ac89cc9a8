"""Degraded images: what each kind does, and that they depend on the pixels and on the level only."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tokbench.data.degrade import degrade
from tokbench.protocol.degradation import Degradation


def apply(pixels: np.ndarray, text: str) -> np.ndarray:
    return degrade(pixels, Degradation.parse(text))


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    from skimage import data

    return np.ascontiguousarray(data.astronaut()[:96, :128])


@pytest.mark.parametrize("text", ["rain:0.5", "noise:20", "blur:1.5", "jpeg:20"])
def test_a_degraded_image_is_repeatable_and_an_image_file_could_hold_it(photo: np.ndarray, text: str) -> None:
    before = photo.copy()
    first = apply(photo, text)
    assert first.dtype == np.uint8 and first.shape == photo.shape
    assert np.array_equal(photo, before)
    assert np.array_equal(first, apply(photo.astype(np.float32), text)) or text.startswith(("rain", "noise"))
    assert np.array_equal(first, apply(photo, text))
    assert not np.array_equal(first, photo)


@pytest.mark.parametrize(
    ("weak", "strong"), [("rain:0.1", "rain:1"), ("noise:5", "noise:40"), ("blur:0.5", "blur:3"), ("jpeg:90", "jpeg:5")]
)
def test_a_higher_level_does_more_damage(photo: np.ndarray, weak: str, strong: str) -> None:
    errors = [np.square(apply(photo, text).astype(float) - photo).mean() for text in (weak, strong)]
    assert 0 < 2 * errors[0] < errors[1]


def test_another_image_gets_other_rain_and_other_noise(photo: np.ndarray) -> None:
    other = photo.copy()
    other[0, 0, 0] ^= 1
    for text in ("rain:0.5", "noise:20"):
        assert (apply(photo, text)[10:] != apply(other, text)[10:]).mean() > 0.05


def test_rain_only_adds_light_and_covers_the_same_share_at_every_size() -> None:
    shares = []
    for side in (64, 256):
        black = np.zeros((side, side, 3), np.uint8)
        wet = apply(black, "rain:0.5")
        assert (wet[..., 0] == wet[..., 1]).all() and (wet[..., 0] == wet[..., 2]).all()
        shares.append(wet.mean())
    assert shares[0] == pytest.approx(shares[1], rel=0.35)
    grey = np.full((64, 64, 3), 100, np.uint8)
    assert apply(grey, "rain:1").min() == 100


def test_noise_has_the_deviation_of_its_level_and_blur_is_gaussian(photo: np.ndarray) -> None:
    grey = np.full((128, 128, 3), 128, np.uint8)
    noisy = apply(grey, "noise:20").astype(float) - 128
    assert noisy.std() == pytest.approx(20, rel=0.03) and abs(noisy.mean()) < 0.5
    expected = np.stack([gaussian_filter(photo[..., c].astype(float), 1.5, mode="mirror") for c in range(3)], 2)
    assert np.abs(apply(photo, "blur:1.5") - expected).max() <= 0.5 + 1e-9
