"""Errors where a tokenizer breaks its contract, and the counting of tokens, tiles and seeds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tokbench.data.stream import PairedBatch
from tokbench.errors import AdapterError
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.seeds import image_seeds
from tokbench.evaluation.steps import plain_step
from tokbench.metrics.batch import DerivedCache
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tiling import fit
from tokbench.tokenizers.tokens import Tokens, TokenStream


class Blocks(Tokenizer):
    """Four 2x2 means of a fixed 32x32 image, range [-1, 1], with faults to order."""

    spec = TokenizerSpec(
        "blocks", "discrete", (-1.0, 1.0), size=32, num_tokens=4, codebook={"codes": 256}, bits_per_token=8
    )

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.seen: list[torch.Tensor] = []
        self.seeds: list[int] = []

    def encode(self, images: torch.Tensor) -> Tokens:
        self.seen.append(images.clone())
        if self.fault == "exception":
            raise RuntimeError("out of order")
        grey = ((images.mean(1, keepdim=True) + 1) / 2).clamp(0, 1)
        codes = (torch.nn.functional.avg_pool2d(grey, 16)[:, 0] * 255).round().long()
        if self.fault == "index":
            codes += 200
        if self.fault == "count":
            codes = codes[:1]
        if self.fault == "mutates":
            images.mul_(0.5)
        if self.fault == "more tokens":
            codes = torch.cat([codes, codes], 1)
        if self.fault == "fewer tokens":
            codes = codes[:, 1:]
        if self.fault == "latents":
            return Tokens.from_latents(codes.float(), 4)
        if self.fault == "another stream":
            return Tokens.from_indices({"codes": codes, "more": codes}, 256)
        if self.fault == "groups":
            return Tokens.from_indices(codes.flatten(1).repeat_interleave(2, 1).unflatten(1, (4, 2)), 256, groups=2)
        if self.fault == "cheaper":
            made = Tokens.from_indices(codes, 256)
            return replace(made, bits=made.bits - torch.tensor([0.0, 8.0], dtype=torch.float64))
        if self.fault == "own length":
            made = Tokens.from_indices(codes, 256)
            return replace(made, length=torch.tensor([4, 3]))
        if self.fault == "float":
            return Tokens.from_indices(codes.float(), 256)
        if self.fault == "type":
            return codes
        if self.fault == "unchecked index":
            return replace(Tokens.from_indices(codes, 512), streams={"codes": TokenStream("index", codes + 100, 256)})
        return Tokens.from_indices(codes, 512 if self.fault == "codebook" else 256)

    def decode(self, tokens: Tokens, seeds) -> torch.Tensor:
        self.seeds += seeds
        if self.fault == "ignores tokens":
            return self.seen[-1]
        if self.fault == "constant":
            return torch.zeros_like(self.seen[-1])
        grey = tokens.tensor.float()[:, None] / 255 * 2 - 1
        images = torch.nn.functional.interpolate(grey, scale_factor=16).repeat(1, 3, 1, 1)
        if self.fault == "nan":
            images[1, 0, 0, 0] = float("nan")
        if self.fault == "shape":
            images = images[:, :, :-1]
        if self.fault == "outside":
            images = images * 1.3
        if self.fault == "range":
            images = (images + 1) * 127.5
        if self.fault == "integers":
            images = ((images + 1) * 127.5).to(torch.uint8)
        if self.fault == "device":
            images = images.to("meta")
        return images


def run(model: Tokenizer, images: torch.Tensor, batch_size: int = 16, index=None, **options):
    index = torch.arange(len(images)) if index is None else torch.tensor(index)
    given = PairedBatch(index, [f"i{i}" for i in index], images)
    return reconstruct(model, given, plain_step(model), RunSettings("cpu", batch_size, 7, **options), DerivedCache())


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("index", "outside its codebook of 256"),
        ("count", "tokens of 1 images for 2"),
        ("more tokens", "i0: encode returned 8 tokens for the image, but its spec declares 4"),
        (
            "fewer tokens",
            "i0: encode returned 2 tokens for the image, but its spec declares 4; declare a number that varies",
        ),
        (
            "own length",
            "i1: encode returned 3 tokens for the image, but its spec declares 4; declare a number that varies",
        ),
        ("latents", "spec declares stream 'codes' with 256 codes"),
        ("another stream", "encode returned the stream 'more', which its spec's codebook does not list"),
        ("groups", "says that a token has 1 indices, but in stream 'codes' of i0 it has 2; give groups=2"),
        ("cheaper", "i1: its tokens declare 24 bits, but they hold 32"),
        ("float", "must hold integer indices"),
        ("type", "returned Tensor, not Tokens"),
        ("codebook", "declares stream 'codes' with 256 codes"),
        ("nan", "i1: decode returned NaN or infinite"),
        ("unchecked index", "i0: stream 'codes' holds indices 329 to 329, outside its codebook of 256"),
        ("range", "i0: decode returned values from 229 to 229, but its spec declares the range -1 to 1"),
        ("integers", "torch.uint8, not floats from -1 to 1, starting at i0"),
        ("device", "on meta, but its tokens are on cpu"),
        ("shape", r"decode returned \(2, 3, 31, 32\)"),
    ],
)
def test_a_broken_contract_is_named(fault: str, complaint: str) -> None:
    with pytest.raises(AdapterError, match=complaint):
        run(Blocks(fault), torch.full((2, 3, 32, 32), 0.9))


class Grid(Tokenizer):
    """Latents or indices of 4x4 px each, with another spec at will."""

    def __init__(self, tokens: Tokens, **spec: object) -> None:
        self.spec = TokenizerSpec("grid", **spec)
        self.tokens = tokens

    def encode(self, images: torch.Tensor) -> Tokens:
        return self.tokens

    def decode(self, tokens: Tokens, seeds) -> torch.Tensor:
        return torch.zeros(len(tokens), 3, 16, 8)


@pytest.mark.parametrize(
    ("tokens", "spec", "complaint"),
    [
        (
            Tokens.from_latents(torch.zeros(2, 4, 4, 2), 8),
            {"kind": "continuous", "downsample": 4, "bits_per_token": 32},
            "i0: 8 tokens hold 512 bits, but its spec declares bits_per_token=32, which gives 256",
        ),
        (
            Tokens.from_latents(torch.zeros(2, 4, 4, 4), 16), {"kind": "continuous", "downsample": 4},
            "i0: encode returned 16 tokens for the image, but its spec declares 8",
        ),
        (
            Tokens.from_indices(torch.zeros(2, 2, 4).long(), 16),
            {"kind": "discrete", "downsample": 4, "codebook": {"codes": 16}},
            "i0: the tokens have a grid of 2x4, but its spec's downsample=4 gives 4x2 for 16x8 px",
        ),
        (
            Tokens.from_samples(torch.zeros(2, 8).byte()), {"kind": "continuous"},
            "its spec says kind 'continuous', but stream 'samples' of i0 is of kind 'bytes'",
        ),
        (
            replace(Tokens.from_bytes([b"abc", b"d"]), bits=torch.tensor([8.0, 8.0]).double()), {"kind": "codec"},
            "i0: its tokens declare 8 bits, but they hold 24",
        ),
        (
            replace(Tokens.from_bytes([b"abc", b"d"]), length=torch.tensor([1, 1])), {"kind": "codec"},
            "i0: encode returned 1 tokens for the image, but its spec declares 0",
        ),
        (Tokens.from_bytes([b"abc", b"d"]), {"kind": "images"}, "but it is not a PrecomputedImages"),
    ],
)  # fmt: skip
def test_tokens_are_held_against_the_spec(tokens: Tokens, spec: dict[str, object], complaint: str) -> None:
    with pytest.raises(AdapterError, match=complaint):
        run(Grid(tokens, **spec), torch.full((2, 3, 16, 8), 0.5))


def test_tokens_of_several_kinds_that_fit_their_spec() -> None:
    """A number that varies, streams of unlike codebooks, and a codec: all as declared."""
    codes = {"codes": torch.zeros(2, 8).long(), "kept": torch.ones(2, 8).long()}
    unlike = Tokens.from_indices(codes, {"codes": 16, "kept": 2})
    length = torch.tensor([3, 8])
    fitting: list[tuple[Tokens, dict[str, object]]] = [
        (Tokens.from_bytes([b"abc", b"d"]), {"kind": "codec"}),
        (unlike, {"kind": "discrete", "codebook": {"codes": 16, "kept": 2}, "num_tokens": 16}),
        (
            replace(unlike, length=length, bits=length.double() * 4 + 8),
            {"kind": "discrete", "codebook": {"codes": 16, "kept": 2}, "num_tokens": 8, "variable": True},
        ),
        (
            Tokens.from_indices(codes["codes"], 16, length=length),
            {"kind": "discrete", "codebook": {"codes": 16}, "num_tokens": 8, "variable": True},
        ),
    ]
    for tokens, spec in fitting:
        assert run(Grid(tokens, **spec), torch.full((2, 3, 16, 8), 0.5)).tokens is tokens


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("mutates", "encode modified its input"),
        ("ignores tokens", "ignores its tokens: when the tokens of i0"),
        ("constant", "ignores its tokens: when the tokens of i0"),
    ],
)
def test_what_only_a_second_look_shows(fault: str, complaint: str) -> None:
    ramp = torch.stack([torch.full((3, 32, 32), v / 255) for v in (0, 51, 255)])
    assert run(Blocks(fault), ramp).image is not None
    with pytest.raises(AdapterError, match=complaint):
        run(Blocks(fault), ramp, probe=True)


def test_a_second_look_at_what_is_right_finds_nothing() -> None:
    ramp = torch.stack([torch.full((3, 32, 32), v / 255) for v in (0, 51, 255)])
    assert torch.equal(run(Blocks(), ramp, probe=True).image, run(Blocks(), ramp).image)
    for images in (ramp[:1], ramp[:1].repeat(3, 1, 1, 1)):  # one image, or three equal ones, prove nothing
        run(Blocks("constant"), images, probe=True)


def test_values_outside_the_range_are_clamped() -> None:
    assert run(Blocks("outside"), torch.full((1, 3, 32, 32), 0.9)).image.min() == 1


def test_images_arrive_in_the_declared_range_and_come_back() -> None:
    model = Blocks()
    ramp = torch.stack([torch.full((3, 32, 32), v / 255) for v in (0, 51, 255)])
    assert torch.equal(run(model, ramp).rounded("image"), ramp)
    assert (float(model.seen[0].min()), float(model.seen[0].max())) == (-1.0, 1.0)


def test_larger_images_run_in_tiles() -> None:
    """A 64x96 image of constant 32x32 squares: six tiles, each decoded exactly, tokens and bits added up."""
    squares = torch.arange(6).reshape(1, 1, 2, 3).repeat(1, 3, 1, 1).float() * 40 / 255
    image = torch.nn.functional.interpolate(squares, scale_factor=32)
    batch = run(Blocks(), image.repeat(2, 1, 1, 1), batch_size=5)
    assert torch.equal(batch.rounded("image"), image.repeat(2, 1, 1, 1))
    assert batch.tokens.length.tolist() == [24, 24]
    assert batch.tokens.bits.tolist() == [192.0, 192.0]
    assert batch.tokens.tensor.shape == (2, 24)
    assert fit(Blocks.spec, 64, 96).describe() == "cut into 6 tiles of 32x32"


def test_smaller_images_are_padded_at_the_edge() -> None:
    image = torch.full((1, 3, 20, 30), 128 / 255)
    model = Blocks()
    assert torch.equal(run(model, image).image, image)
    assert model.seen[0].shape == (1, 3, 32, 32)
    assert fit(Blocks.spec, 20, 30).describe() == "padded from 30x20 to 32x32"


def test_cut_and_join_are_inverse() -> None:
    images = torch.rand(2, 3, 50, 70)
    for spec in (Blocks.spec, TokenizerSpec("m", "continuous", multiple=16), TokenizerSpec("free", "codec")):
        plan = fit(spec, 50, 70)
        tiles = plan.cut(images)
        assert len(tiles) == 2 * plan.tiles
        assert torch.equal(plan.join(tiles), images)


def test_seeds_belong_to_images_not_to_batches() -> None:
    images = torch.zeros(4, 3, 32, 32)
    together, alone = Blocks(), Blocks()
    run(together, images)
    for i in range(4):
        run(alone, images[i : i + 1], index=[i])
    assert together.seeds == alone.seeds
    assert len(set(together.seeds)) == 4
    assert image_seeds(7, [2], 2)[0] == together.seeds[2]
    assert image_seeds(8, [2], 1) != image_seeds(7, [2], 1)


def test_latents_are_stored_and_charged_as_float16() -> None:
    tokens = Tokens.from_latents(torch.tensor([[1.00001, 2.0]]), 1)
    assert tokens.tensor.dtype == torch.float16
    assert tokens.bits.tolist() == [32.0]
    for bad in (float("nan"), float("inf"), 70000.0):
        with pytest.raises(AdapterError, match="not finite in float16"):
            Tokens.from_latents(torch.tensor([[bad]]), 1)


def test_tokens_join_and_merge() -> None:
    parts = [Tokens.from_indices(torch.tensor([[i, i + 1]]), 16) for i in range(4)]
    whole = Tokens.cat(parts)
    assert len(whole) == 4
    merged = whole.merge_tiles(2)
    assert merged.tensor.tolist() == [[0, 1, 1, 2], [2, 3, 3, 4]]
    assert merged.length.tolist() == [4, 4]
    assert merged.bits.tolist() == [16.0, 16.0]
    files = Tokens.cat([Tokens.from_bytes([b"a"]), Tokens.from_bytes([b"bc", b"d", b"e"])]).merge_tiles(2)
    assert files.files == (b"abc", b"de")
    assert files.bits.tolist() == [24.0, 16.0]


def test_streams_must_be_named_where_there_are_several() -> None:
    tokens = Tokens.from_indices({"a": torch.zeros(1, 2).long(), "b": torch.zeros(1, 1).long()}, {"a": 2, "b": 4})
    assert tokens.bits.tolist() == [4.0]
    with pytest.raises(AdapterError, match=r"streams \(a, b\)"):
        _ = tokens.tensor
