"""PSNR, SSIM, MS-SSIM, rates and codebooks: by algebra, and against scikit-image and pytorch-msssim."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tokbench.errors import NotApplicable
from tokbench.metrics.batch import Batch
from tokbench.metrics.codebook import Codebook
from tokbench.metrics.color import ColorShift
from tokbench.metrics.psnr import PSNR
from tokbench.metrics.rate import Rate
from tokbench.metrics.ssim import SSIM, MultiScaleSSIM
from tokbench.tokenizers.tokens import Tokens


def value(metric, reference: torch.Tensor, image: torch.Tensor) -> dict[str, float]:
    metric.update(Batch(torch.arange(len(image)), reference, image))
    return metric.compute()


def arrays(images: torch.Tensor) -> np.ndarray:
    return (images * 255).round().byte().permute(0, 2, 3, 1).numpy()


def test_psnr_of_a_known_error() -> None:
    """Off by one level everywhere: MSE 1, so 20 log10(255) dB."""
    grey = torch.full((2, 3, 16, 16), 100 / 255)
    assert value(PSNR(), grey, grey + 1 / 255)["psnr"] == pytest.approx(20 * math.log10(255), abs=1e-12)


def test_psnr_is_a_mean_of_decibels_not_of_errors() -> None:
    reference = torch.zeros(2, 3, 8, 8)
    image = torch.stack([torch.full((3, 8, 8), 1 / 255), torch.full((3, 8, 8), 10 / 255)])
    expected = 20 * math.log10(255) - 10 * math.log10(100) / 2
    assert value(PSNR(), reference, image)["psnr"] == pytest.approx(expected, abs=1e-12)


def test_an_exact_image_is_counted_and_left_out() -> None:
    reference = torch.zeros(3, 3, 8, 8)
    image = reference.clone()
    image[0] += 1 / 255
    metric = PSNR()
    assert value(metric, reference, image) == {"psnr": pytest.approx(20 * math.log10(255)), "exact": 2.0}
    assert metric.intervals(0)["psnr"].n == 1
    exact = value(PSNR(), reference, reference)
    assert math.isnan(exact["psnr"])
    assert exact["exact"] == 3


def test_psnr_equals_scikit_image(photos: torch.Tensor, damaged: torch.Tensor) -> None:
    expected = [peak_signal_noise_ratio(a, b) for a, b in zip(arrays(photos), arrays(damaged), strict=True)]
    assert value(PSNR(), photos, damaged)["psnr"] == pytest.approx(np.mean(expected), abs=1e-9)


def test_ssim_equals_scikit_image(photos: torch.Tensor, damaged: torch.Tensor) -> None:
    for size in (256, 101):
        a, b = photos[..., :size], damaged[..., :size]
        expected = [
            structural_similarity(
                x, y, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
            for x, y in zip(arrays(a), arrays(b), strict=True)
        ]
        assert value(SSIM(), a, b)["ssim"] == pytest.approx(np.mean(expected), abs=1e-12)


def test_ssim_of_an_image_with_itself_is_one(photos: torch.Tensor) -> None:
    assert value(SSIM(), photos, photos)["ssim"] == pytest.approx(1, abs=1e-12)
    assert value(MultiScaleSSIM(), photos, photos)["ms_ssim"] == pytest.approx(1, abs=1e-12)


def test_ssim_of_constant_images_is_the_luminance_term() -> None:
    a, b = torch.full((1, 3, 32, 32), 100 / 255), torch.full((1, 3, 32, 32), 150 / 255)
    c1 = (0.01 * 255) ** 2
    assert value(SSIM(), a, b)["ssim"] == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1), abs=1e-9)


@pytest.mark.slow
def test_color_shift_is_the_difference_of_mean_colors(photos: torch.Tensor) -> None:
    darker = (photos * 255).round()
    darker[:, 0] = (darker[:, 0] - 3).abs()
    expected = (darker.mean((2, 3)) - (photos * 255).round().mean((2, 3))).abs().mean()
    assert value(ColorShift(), photos, darker / 255)["color_shift"] == pytest.approx(float(expected), abs=1e-4)
    assert value(ColorShift(), photos, photos.flip(3))["color_shift"] == pytest.approx(0, abs=1e-9)


def test_ms_ssim_equals_pytorch_msssim(photos: torch.Tensor, damaged: torch.Tensor) -> None:
    reference = pytest.importorskip("pytorch_msssim")
    expected = reference.ms_ssim(photos.double() * 255, damaged.double() * 255, data_range=255)
    assert value(MultiScaleSSIM(), photos, damaged)["ms_ssim"] == pytest.approx(float(expected), abs=1e-5)


def test_small_images_are_refused_with_the_bound() -> None:
    small = torch.zeros(1, 3, 160, 200)
    with pytest.raises(NotApplicable, match="at least 161 px"):
        value(MultiScaleSSIM(), small, small)
    with pytest.raises(NotApplicable, match="at least 11 px"):
        value(SSIM(), small[..., :10], small[..., :10])


def test_rate_by_hand() -> None:
    metric = Rate()
    tokens = Tokens.from_indices(torch.zeros(2, 4, 4, dtype=torch.long), 1024)
    metric.update(Batch(torch.arange(2), image=torch.zeros(2, 3, 32, 32), tokens=tokens))
    assert metric.compute() == {
        "bits_per_image": 160.0, "bpp": 160 / 1024, "tokens_per_image": 16.0, "compression_ratio": 24 / (160 / 1024),
    }  # fmt: skip


def test_rate_of_files_is_their_bytes() -> None:
    metric = Rate()
    tokens = Tokens.from_bytes([b"x" * 10, b"y" * 30])
    metric.update(Batch(torch.arange(2), image=torch.zeros(2, 3, 8, 8), tokens=tokens))
    numbers = metric.compute()
    assert numbers["bits_per_image"] == 160
    assert "tokens_per_image" not in numbers
    interval = metric.intervals(0)["compression_ratio"]
    assert interval.low <= numbers["compression_ratio"] <= interval.high


def test_codebook_by_hand() -> None:
    """Half of the tokens are code 0, a quarter each are 1 and 2, of eight codes: entropy 1.5 bits."""
    metric = Codebook()
    metric.update(Batch(torch.arange(1), tokens=Tokens.from_indices(torch.tensor([[0, 0, 1, 2]]), 8)))
    numbers = metric.compute()
    assert numbers == {
        "codebook_usage": 3 / 8, "perplexity": pytest.approx(2**1.5), "codebook_entropy": pytest.approx(1.5),
    }  # fmt: skip


def test_codebook_names_several_streams() -> None:
    metric = Codebook()
    tokens = Tokens.from_indices({"sem": torch.zeros(1, 4).long(), "pix": torch.arange(4)[None]}, {"sem": 4, "pix": 4})
    metric.update(Batch(torch.arange(1), tokens=tokens))
    numbers = metric.compute()
    assert (numbers["codebook_usage.sem"], numbers["codebook_usage.pix"]) == (0.25, 1.0)
    assert (numbers["perplexity.sem"], numbers["perplexity.pix"]) == (pytest.approx(1), pytest.approx(4))


def test_codebook_refuses_continuous_tokens() -> None:
    with pytest.raises(NotApplicable, match="no codebook"):
        Codebook().update(Batch(torch.arange(1), tokens=Tokens.from_latents(torch.zeros(1, 4, 2, 2), 4)))


def test_codebooks_of_groups_are_counted_apart() -> None:
    """The first group uses its 4 entries as often, the second one entry: usage (1 + 1/4) / 2, entropy (2 + 0) / 2."""
    first = torch.arange(4).repeat(2)
    codes = torch.stack([first, torch.zeros(8, dtype=torch.int64)], 1).reshape(2, 4, 2)
    metric = Codebook()
    metric.update(Batch(torch.arange(2), tokens=Tokens.from_indices(codes, 4, groups=2)))
    numbers = metric.compute()
    assert numbers["codebook_usage"] == pytest.approx(0.625)
    assert numbers["codebook_entropy"] == pytest.approx(1)
    assert numbers["perplexity"] == pytest.approx(2)


def test_codes_beyond_an_images_length_do_not_count() -> None:
    codes = torch.tensor([[1, 2, 0, 0], [1, 2, 2, 1]])
    metric = Codebook()
    metric.update(Batch(torch.arange(2), tokens=Tokens.from_indices(codes, 4, length=torch.tensor([2, 4]))))
    assert metric.compute()["codebook_usage"] == 0.5
    assert metric.compute()["codebook_entropy"] == pytest.approx(1)


def test_tiles_of_unequal_length_join_with_the_tokens_that_count_in_front() -> None:
    codes = torch.tensor([[1, 2, 0], [3, 0, 0], [1, 1, 1], [2, 0, 0]])
    tokens = Tokens.from_indices(codes, 4, length=torch.tensor([2, 1, 3, 1])).merge_tiles(2)
    assert tokens.tensor[:, :4].tolist() == [[1, 2, 3, 0], [1, 1, 1, 2]]
    assert tokens.length.tolist() == [3, 4]


@pytest.mark.parametrize("make", [SSIM, MultiScaleSSIM])
def test_opencv_changes_nothing_but_the_time(
    make, photos: torch.Tensor, damaged: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is not installed SciPy filters; both are float64."""
    pytest.importorskip("cv2")
    values = []
    for present in (True, False):
        if not present:
            monkeypatch.setattr("tokbench.metrics.ssim._opencv", lambda: None)
        metric = make()
        metric.update(Batch(torch.arange(len(photos)), photos, damaged))
        values.append(next(iter(metric.per_image().values()))[1])
    np.testing.assert_allclose(values[0], values[1], rtol=1e-12)
