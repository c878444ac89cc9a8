"""Errors of single pixels, distances from the decoder itself, and jumps at tile borders."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokbench.errors import MissingField, NotApplicable
from tokbench.metrics.batch import Batch
from tokbench.metrics.decoder_fidelity import DecoderPixelErrors, DecoderPSNR, PixelErrors, SeamExcess, seam_excess
from tokbench.metrics.psnr import PSNR
from tokbench.tokenizers.tiled_decode import Seams


def levels(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).float() / 255


def grey(value: int = 100, side: int = 50) -> np.ndarray:
    return np.full((3, side, side), value)


def test_errors_of_single_pixels() -> None:
    image = grey()
    image[0, 0, 0] += 40  # 1 of 7,500 values, within the largest 0.1 %
    image[1, 0, :10] += 2  # 10 further values, so 11 of 7,500, and 10 of 2,500 pixels in all
    image[2, 5] += 1  # not more than one level
    batch = Batch(torch.arange(2), levels(grey(), grey()), levels(image, grey()))
    metric = PixelErrors()
    metric.update(batch)
    columns = {name: values.tolist() for name, (_, values) in metric.per_image().items()}
    assert columns["max_error"] == [40, 0]
    assert columns["p999_error"] == [2, 0]  # 7 values may exceed it
    assert columns["changed_share"] == pytest.approx([10 / 2500, 0])
    assert metric.compute()["max_error"] == 20


def test_the_999th_of_a_thousand_values() -> None:
    errors = np.zeros(3 * 100 * 100)
    errors[:30] = 9  # exactly 0.1 % of the values may exceed the 99.9 % error
    image = grey(side=100) + errors.reshape(3, 100, 100).astype(int)
    assert value_of(image, "p999_error") == 0
    image.reshape(-1)[31] += 9
    assert value_of(image, "p999_error") == 9


def value_of(image: np.ndarray, number: str) -> float:
    metric = PixelErrors()
    metric.update(Batch(torch.arange(1), levels(grey(side=image.shape[1])), levels(image)))
    return metric.compute()[number]


def test_numbers_to_the_decoder_itself_are_those_with_its_images_as_references() -> None:
    rng = np.random.default_rng(0)
    original, whole, variant = (levels(*rng.integers(0, 256, (4, 3, 32, 32))) for _ in range(3))
    batch = Batch(torch.arange(4), original, variant, baseline=whole)
    ours, plain = DecoderPSNR(), PSNR()
    ours.update(batch)
    plain.update(Batch(torch.arange(4), whole, variant))
    assert ours.compute() == {f"decode_{name}": value for name, value in plain.compute().items()}
    assert ours.intervals(0) == {f"decode_{name}": interval for name, interval in plain.intervals(0).items()}
    np.testing.assert_array_equal(ours.per_image()["decode_psnr"][1], plain.per_image()["psnr"][1])
    same = DecoderPixelErrors()
    same.update(Batch(torch.arange(4), original, whole, baseline=whole))
    assert same.compute() == {"decode_max_error": 0, "decode_p999_error": 0, "decode_changed_share": 0}


def test_metrics_to_the_decoder_itself_need_a_variant() -> None:
    batch = Batch(torch.arange(1), levels(grey()), levels(grey()))
    with pytest.raises(MissingField, match="give --task decode"):
        DecoderPSNR().update(batch)
    with pytest.raises(NotApplicable, match="no tiles"):
        SeamExcess().update(Batch(torch.arange(1), batch.reference, batch.image, baseline=batch.image, seams=Seams()))


@pytest.mark.parametrize("axis, seams", [(2, Seams(rows=(16,))), (3, Seams(columns=(16,)))])
def test_a_step_at_a_border_is_the_excess(axis: int, seams: Seams) -> None:
    image = torch.full((1, 3, 40, 40), 100.0)
    image.narrow(axis, 16, 24).add_(7)
    assert seam_excess(image, seams).tolist() == [7]
    assert seam_excess(image, Seams((24,), (24,))).tolist() == [0]


def test_a_gradient_has_no_excess_and_steps_beside_a_border_count_against_it() -> None:
    ramp = torch.arange(40.0).mul(3).expand(1, 3, 40, 40)
    assert seam_excess(ramp, Seams((8, 16), (24,))).tolist() == [0]
    stairs = torch.zeros(1, 3, 40, 40)
    stairs[:, :, :, 19:] = 8  # three pixels after the border at 16
    assert seam_excess(stairs, Seams(columns=(16,))).tolist() == [-4]


def test_lines_at_the_edge_of_an_image_do_not_count() -> None:
    image = torch.rand(2, 3, 40, 40)
    assert np.isnan(seam_excess(image, Seams((2,), (38,)))).all()


def test_the_excess_of_the_decoder_itself_is_measured_at_the_same_lines() -> None:
    torn = grey(side=40)
    torn[:, :, 16:] += 12
    metric = SeamExcess()
    batch = Batch(torch.arange(1), levels(grey(side=40)), levels(torn), baseline=levels(grey(side=40)))
    batch.seams = Seams(columns=(16,))
    metric.update(batch)
    assert metric.compute() == {"seam_excess": 12, "seam_excess_whole": 0}
