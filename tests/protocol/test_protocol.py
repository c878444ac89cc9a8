"""Protocols: their files and hashes, crops, roundings, storage. What other programs do is compared in tests/parity."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokbench.data.preprocess import prepare
from tokbench.errors import UnreadableImage, UsageError
from tokbench.metrics.batch import Batch
from tokbench.metrics.image_format import roundtrip_format
from tokbench.protocol.protocol import (
    TOKBENCH,
    Protocol,
    PublishedSetup,
    describe_protocol,
    load_protocol,
    protocols,
    recorded_protocol,
)
from tokbench.protocol.rounding import levels, quantize

OTHER = {
    "crop": "adm", "filter": "area", "library": "tensor", "antialias": False, "rounding": "truncate", "storage": "png",
    "reference": "original", "psnr__average": "pooled", "psnr__epsilon": 1.0, "psnr__batch_size": 2,
    "psnr__rounding": "none", "ssim__window": "uniform", "ssim__covariance": "sample", "ssim__range": 1.0,
    "ssim__border": "reflect", "ssim__rounding": "none", "lpips__net": "vgg", "lpips__input": "unsigned",
    "lpips__rounding": "none", "features__input": "clean", "features__rounding": "none", "inception_score__splits": 1,
    "inception_score__split_size": 5, "inception_score__shuffle": False, "video__frames": 4, "video__stride": 2,
    "sound__seconds": 0.5, "shapes__tau": 0.1, "shapes__threshold": 0.25, "degrade": "rain:0.5",
}  # fmt: skip
"""Another value for every field that changes numbers."""


def test_the_default_is_what_its_file_says() -> None:
    assert replace(load_protocol("tokbench"), summary="") == TOKBENCH
    assert protocols()[0] == "tokbench"


@pytest.mark.parametrize("name", protocols())
def test_every_protocol_loads_and_says_where_it_was_read(name: str) -> None:
    protocol = load_protocol(name)
    assert protocol.name == name
    assert protocol.summary
    assert name == "tokbench" or all("@" in source and ": " in source for source in protocol.source)
    assert name == "tokbench" or protocol.source


def test_no_two_protocols_are_the_same() -> None:
    hashes = {load_protocol(name).sha256 for name in protocols()}
    assert len(hashes) == len(protocols())


@pytest.mark.parametrize("field", OTHER)
def test_the_hash_covers_every_field_that_changes_a_number(field: str) -> None:
    changes = {"library": "tensor"} if field == "antialias" else {}
    base = TOKBENCH.with_changes("base", **changes)
    assert base.with_changes("changed", **{field: OTHER[field]}).sha256 != base.sha256


def test_the_hashes_of_protocols_of_images_do_not_depend_on_other_modalities() -> None:
    """Results of images were committed before protocols had settings of clips, waveforms and voxels."""
    assert TOKBENCH.sha256.startswith("b767ff1a")


def test_every_field_was_tried() -> None:
    described = {"name", "summary", "source", "published"}
    parts = {"psnr", "ssim", "lpips", "features", "inception_score", "video", "sound", "shapes"}
    top = {field.name for field in fields(Protocol)} - described - parts
    inner = {f"{part}__{field.name}" for part in parts for field in fields(type(getattr(TOKBENCH, part)))}
    assert top | inner == set(OTHER)


def test_a_degradation_changes_the_hash_and_no_degradation_does_not() -> None:
    assert TOKBENCH.sha256.startswith("b767ff1a")  # committed results have it
    assert TOKBENCH.degraded(None) is TOKBENCH
    rain, heavy = TOKBENCH.degraded("rain:0.5"), TOKBENCH.degraded("rain:1")
    assert len({TOKBENCH.sha256, rain.sha256, heavy.sha256}) == 3
    assert TOKBENCH.degraded("rain:0.50") == rain == rain.degraded("rain:0.5")
    assert "degrade" not in describe_protocol(TOKBENCH)
    assert recorded_protocol(describe_protocol(rain)) == replace(rain, summary=load_protocol("tokbench").summary)
    with pytest.raises(UsageError, match=r"degrades images by rain:0\.5 already"):
        rain.degraded("blur:1")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("snow:1", "no degradation 'snow:1'; there are: rain:LEVEL"),
        ("rain", "no degradation"),
        ("rain:0", "the level is the amount of rain, a number from 0.001 to 1"),
        ("jpeg:50.5", "the level is the quality of a JPEG file, an integer from 1 to 95"),
        ("noise:1.2345678", "at most six digits"),
    ],
)
def test_a_wrong_degradation_is_named_with_the_remedy(text: str, fault: str) -> None:
    with pytest.raises(UsageError, match=re.escape(fault)):
        TOKBENCH.degraded(text)


def test_descriptive_fields_are_not_in_the_hash() -> None:
    other = replace(TOKBENCH, name="x", summary="y", source=("z",), published=PublishedSetup(size=512))
    assert other.sha256 == TOKBENCH.sha256


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('crop = "left"', "crop must be one of centre, torchvision, adm, pad, none, but it is 'left'"),
        ('crop = "pad"', "crop = pad requires library = pillow and filter = lanczos"),
        ("crap = 1", "unknown field crap"),
        ("[ssim]\nwidow = 1", "unknown field widow"),
        ("[ssim]\nrange = 'wide'", "ssim.range must be a number, but it is 'wide'"),
        ('storage = "jpeg"', "jpeg.q<0-100>"),
        ('storage = "png"\nrounding = "none"', "rounding cannot be none"),
        ("antialias = false", "bicubic filter of pillow requires antialias = true"),
        ('library = "opencv"', "antialias = false"),
        ('library = "tensor"\nfilter = "lanczos"', "no Lanczos"),
        ("psnr = 3", "psnr must be an object, but it is 3"),
        ("[psnr]\nbatch_size = true", "psnr.batch_size must be an integer, but it is True"),
        (
            "[psnr]\nrounding = 'up'",
            "psnr.rounding must be one of nearest, truncate, truncate-signed, none, but it",
        ),
        ('source = ["x", 3]', "source[1] must be text, but it is 3"),
        ('[psnr]\naverage = "pooled"\nepsilon = 1.0', "no epsilon"),
        ("a = ", "not valid TOML"),
        ("[inception_score]\nsplit_size = 0", "must be positive"),
        ("[psnr]\nepsilon = inf", "epsilon must be finite"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError, match="'mine'") as caught:
        load_protocol(str(tmp_path / "mine.toml"))
    assert complaint in str(caught.value)


def test_whole_and_broken_numbers_hash_alike(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[ssim]\nrange = 255\n")
    assert load_protocol(str(tmp_path / "mine.toml")).sha256 == TOKBENCH.sha256


def test_ones_own_protocol(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('filter = "lanczos"\n[psnr]\naverage = "pooled"\n')
    mine = load_protocol(str(tmp_path / "mine.toml"))
    assert (mine.name, mine.filter, mine.psnr.average) == ("mine", "lanczos", "pooled")
    (tmp_path / "adm.toml").write_text("")
    with pytest.raises(UsageError, match="includes a protocol 'adm'"):
        load_protocol(str(tmp_path / "adm.toml"))
    with pytest.raises(UsageError, match="did you mean 'titok'"):
        load_protocol("titoc")


def test_size_brings_the_short_side_and_crops_the_centre() -> None:
    ramp = np.zeros((64, 128, 3), dtype=np.uint8)
    ramp[:, 32:96] = 255
    pixels, enlarged = prepare(Image.fromarray(ramp), 64, TOKBENCH)
    assert (pixels == 255).all()
    assert not enlarged
    small, enlarged = prepare(Image.new("RGB", (10, 20)), 64, TOKBENCH)
    assert small.shape == (64, 64, 3)
    assert enlarged


@pytest.mark.parametrize("name", protocols())
def test_an_image_of_the_size_is_left_alone(name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    assert np.array_equal(prepare(Image.fromarray(noise), 24, load_protocol(name))[0], noise)


@pytest.mark.parametrize("library", ["pillow", "opencv", "tensor"])
@pytest.mark.parametrize("filter_", ["lanczos", "bicubic", "bilinear", "area"])
@pytest.mark.parametrize("crop", ["centre", "torchvision", "adm"])
def test_every_combination_keeps_a_constant_and_its_size(library: str, filter_: str, crop: str) -> None:
    if (library, filter_) == ("tensor", "lanczos"):
        pytest.skip("tensors have no Lanczos filter")
    if library == "opencv":
        pytest.importorskip("cv2")
    protocol = TOKBENCH.with_changes(
        "x", crop=crop, filter=filter_, library=library, antialias=library != "opencv" or filter_ == "area"
    )
    for size in ((311, 97), (97, 311), (40, 50)):
        pixels, _ = prepare(Image.new("RGB", size, (10, 100, 200)), 64, protocol)
        assert pixels.shape == (64, 64, 3)
        np.testing.assert_allclose(pixels, np.broadcast_to([10, 100, 200], pixels.shape), atol=1e-3)


def test_a_protocol_that_does_not_crop_says_so() -> None:
    with pytest.raises(UnreadableImage, match="pytorch-fid does not resize images, and this one is 20x10, not 8x8"):
        prepare(Image.new("RGB", (20, 10)), 8, load_protocol("pytorch-fid"))


def test_tensors_stay_unrounded() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    pixels, _ = prepare(Image.fromarray(noise), 24, TOKBENCH.with_changes("x", library="tensor"))
    assert pixels.dtype == np.float32
    assert (pixels != pixels.round()).any()


def test_roundings_of_known_values() -> None:
    x = torch.tensor([0.0, 0.9999 / 255, 10.4 / 255, 10.6 / 255, 1.5, -0.2])
    assert levels(quantize(x, "nearest")).tolist() == [0, 1, 10, 11, 255, 0]
    assert levels(quantize(x, "truncate")).tolist() == [0, 0, 10, 10, 255, 0]
    assert quantize(x, "none").tolist() == x.clamp(0, 1).tolist()


def test_an_8_bit_image_survives_all_roundings_but_the_signed_one() -> None:
    """Through [-1, 1] in float32, 95 levels come out one lower: what SEED-Voken does to its originals."""
    grid = torch.arange(256) / 255
    for rounding in ("nearest", "truncate", "none"):
        assert torch.equal(quantize(grid, rounding), grid)
    lost = levels(grid) - levels(quantize(grid, "truncate-signed"))
    assert lost.unique().tolist() == [0, 1]
    assert lost.sum() == 95


def test_levels_are_exact_on_the_grid_and_close_beside_it() -> None:
    assert torch.equal(levels(torch.arange(256) / 255), torch.arange(256).double())
    x = torch.rand(1000)
    assert (levels(x) - x.double() * 255).abs().max() < 1e-4


def test_jpeg_storage_changes_the_image_and_png_does_not(photos: torch.Tensor) -> None:
    batch = Batch(torch.arange(2), photos[:2], photos[:2].flip(3))
    for storage in ("memory", "png"):
        assert roundtrip_format(batch, TOKBENCH.with_changes("x", storage=storage)) is batch
    gaps = []
    for quality in (95, 50):
        written = roundtrip_format(batch, TOKBENCH.with_changes("x", storage=f"jpeg.q{quality}"))
        assert torch.equal(written.rounded("image", "nearest"), written.image)
        assert written.reference is batch.reference
        gaps.append(float((written.image - batch.image).abs().mean()))
    assert 0 < gaps[0] < gaps[1]


def test_a_batch_rounds_once_and_shares_what_agrees(photos: torch.Tensor) -> None:
    batch = Batch(torch.arange(1), photos[:1], photos[:1] + 0.2 / 255)
    assert batch.rounded("image") is batch.rounded("image")
    assert batch.rounded("reference", "none") is batch.rounded("reference", "nearest")
    assert batch.rounded("image", "none") is not batch.rounded("image", "nearest")
