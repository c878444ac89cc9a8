"""JPEG 2000 and JPEG XL beside the codecs of Pillow: what their settings mean, and what is missing on a machine."""

from __future__ import annotations

import sys

import pytest
import torch

from tokbench.errors import AdapterError, UsageError
from tokbench.tokenizers.builtin.codecs import load
from tokbench.tokenizers.registry import load_adapter


def measure(name: str, photos: torch.Tensor) -> tuple[float, float]:
    """The PSNR of each photo in dB, averaged, and the mean bits."""
    codec = load(name)
    tokens = codec.encode(photos)
    error = (codec.decode(tokens, [0] * len(photos)) - photos).square().mean((1, 2, 3))
    return float((-10 * error.log10()).mean()), float(tokens.bits.mean())


def test_jpeg2000_meets_its_target_psnr(photos: torch.Tensor) -> None:
    low, high = (measure(f"jpeg2000.db{target}", photos[:2]) for target in (28, 38))
    assert low[0] == pytest.approx(28, abs=0.6) and high[0] == pytest.approx(38, abs=0.6)
    assert low[1] < high[1]


def test_quality_100_of_jpeg_xl_is_lossless(photos: torch.Tensor) -> None:
    codec = load("jxl.q100")
    assert torch.equal(codec.decode(codec.encode(photos[:1]), [0]), photos[:1])
    coarse, fine = (measure(f"jxl.q{quality}", photos[:1]) for quality in (30, 80))
    assert coarse[0] < fine[0] and coarse[1] < fine[1]


def test_results_name_the_encoder() -> None:
    assert load_adapter("jpeg2000.db40").model.recorded["library"].startswith("OpenJPEG ")
    assert load_adapter("jxl.q40").model.recorded["library"].startswith("pillow-jxl-plugin ")
    assert load_adapter("jpeg.q40").model.recorded == {}


@pytest.mark.parametrize("name", ["jpeg2000.q50", "jpeg2000.db9", "jpeg2000.db61", "jpeg2000.db036", "jpeg2000.db"])
def test_a_target_that_is_none_is_named(name: str) -> None:
    with pytest.raises(UsageError, match=r"JPEG 2000 has a target PSNR in dB, db10 to db60, as in jpeg2000\.db36"):
        load(name)


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    with pytest.raises(
        AdapterError, match=r"jxl\.q50: JPEG XL needs the package pillow-jxl-plugin .*tokbench\[codecs\]"
    ):
        load("jxl.q50")
