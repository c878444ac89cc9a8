"""Variants of a decoder: their names, tiles, half precision, modes of diffusers, and other decoders."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tokbench.errors import NotApplicable, UsageError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.decoder_variant import DecoderVariant, build_decoder, in_precision, library_seams
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tiled_decode import Seams, TiledDecoder
from tokbench.tokenizers.tokens import Tokens

SPEC = TokenizerSpec("blocks", "continuous", multiple=8, downsample=8, bits_per_token=48)


class Blocks(Tokenizer):
    """Means of 8 x 8 blocks, decoded by a linear map of their channels and, with `mixing`, of the mean over all
    places."""

    def __init__(self, mixing: float = 0.0, spec: TokenizerSpec = SPEC) -> None:
        self.spec, self.mixing = spec, mixing
        self.module = nn.ModuleDict({"map": nn.Conv2d(3, 3, 1)})
        with torch.no_grad():
            self.module["map"].weight.copy_(torch.eye(3).view(3, 3, 1, 1) * 0.7 + 0.1)
            self.module["map"].bias.fill_(0.013)

    def encode(self, images: Tensor) -> Tokens:
        return Tokens.from_latents(nn.functional.avg_pool2d(images, 8), (images.shape[2] // 8) * (images.shape[3] // 8))

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        latents = tokens.tensor.float()
        mixed = latents + self.mixing * (latents.mean((2, 3), keepdim=True) - latents)
        return nn.functional.interpolate(self.module["map"](mixed), scale_factor=8)


def images(count: int = 2, height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "text, name",
    [
        ("tiles=256", "tiles256"),
        ("tiles=256,overlap=0", "tiles256"),
        ("tiles=256,overlap=64,bf16", "tiles256-overlap64-bf16"),
        ("fp16,tiling", "fp16-tiling"),
        ("slicing", "slicing"),
        ("adapter:kl.f8c4", "by-kl.f8c4"),
        ("adapter:my=diffusers:/a,variant=fp16", "by-my=diffusers:/a,variant=fp16"),
    ],
)
def test_the_name_of_a_variant_gives_the_variant_again(text: str, name: str) -> None:
    variant = DecoderVariant.parse(text)
    assert str(variant) == name
    assert DecoderVariant.parse(name) == variant


@pytest.mark.parametrize(
    "text, fault",
    [
        ("int8", "'int8' is unknown"),
        ("", "'' is unknown"),
        ("adapter:", "'adapter:' is unknown"),
        ("bf16,fp16", "'fp16' is unknown or repeated"),
        ("tiles=0", "overlap needs tiles"),
        ("overlap=8", "overlap needs tiles"),
        ("tiles=64,overlap=64", "overlap needs tiles"),
        ("tiles=64,tiling", "not both"),
    ],
)
def test_an_unknown_variant_is_refused(text: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        DecoderVariant.parse(text)


@pytest.mark.parametrize("tile, overlap", [(32, 0), (32, 16), (64, 24), (24, 16)])
def test_tiles_of_a_decoder_without_context_give_the_whole_image(tile: int, overlap: int) -> None:
    model, shown = Blocks(), images()
    tokens = model.encode(shown)
    tiled = build_decoder(model, DecoderVariant(tile=tile, overlap=overlap))
    torch.testing.assert_close(tiled.decode(tokens, [0, 1], (64, 96)), model.decode(tokens, [0, 1]))


def test_a_decoder_that_reads_the_whole_image_gives_other_tiles() -> None:
    model, shown = Blocks(mixing=0.5), images(1)
    tokens = model.encode(shown)
    decoded = build_decoder(model, DecoderVariant(tile=32)).decode(tokens, [0], (64, 96))
    corner = model.decode(tokens.crop((8, 12), slice(4), slice(4)), [0])
    torch.testing.assert_close(decoded[:, :, :32, :32], corner)
    assert not torch.allclose(decoded, model.decode(tokens, [0]), atol=1e-3)


def test_an_overlap_is_blended_linearly() -> None:
    values = iter([0.0, 1.0])

    def decode(tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        height, width = tokens.tensor.shape[2:]
        return torch.full((1, 3, 8 * height, 8 * width), next(values))

    tokens = Blocks().encode(images(1, 32, 48))
    line = TiledDecoder(SPEC, decode, 32, 16).decode(tokens, [0], (32, 48))[0, 0, 0]
    expected = torch.cat([torch.zeros(16), (torch.arange(16) + 0.5) / 16, torch.ones(16)])
    torch.testing.assert_close(line, expected)


@pytest.mark.parametrize(
    "tile, overlap, lines", [(256, 0, (256,)), (256, 64, (192, 256, 384, 448)), (512, 64, ()), (200, 0, (200, 400))]
)
def test_seams_are_where_tiles_begin_and_end(tile: int, overlap: int, lines: tuple[int, ...]) -> None:
    seams = TiledDecoder(SPEC, Blocks().decode, tile, overlap).seams((512, 512))
    assert seams == Seams(lines, lines)
    assert bool(seams) is bool(lines)


@pytest.mark.parametrize(
    "spec, tile, overlap, reason",
    [
        (SPEC, 36, 0, "tiles of 36 px is not a multiple of 8 px"),
        (
            TokenizerSpec("b", "continuous", multiple=12, downsample=8, bits_per_token=48),
            36,
            0,
            "tiles of 36 px is not a multiple of 24 px",
        ),
        (SPEC, 64, 12, "an overlap of 12 px is not a multiple of 8 px"),
        (TokenizerSpec("row", "discrete", num_tokens=16, codebook={"codes": 8}), 64, 0, "not a grid"),
        (TokenizerSpec("fixed", "continuous", size=64, downsample=8, bits_per_token=48), 32, 0, "only images of 64 px"),
    ],
)
def test_some_decoders_have_no_tiles(spec: TokenizerSpec, tile: int, overlap: int, reason: str) -> None:
    with pytest.raises(NotApplicable, match=reason):
        TiledDecoder(spec, Blocks().decode, tile, overlap)


def test_tokens_that_are_no_grid_are_refused() -> None:
    tokens = Tokens.from_latents(torch.zeros(1, 16, 4), 16)
    with pytest.raises(NotApplicable, match="blocks: its stream 'latents' of shape"):
        tokens.crop((4, 4), slice(2), slice(2), "blocks")


def test_indices_are_cut_as_a_grid() -> None:
    codes = torch.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    part = Tokens.from_indices(codes, 999, groups=3).crop((4, 6), slice(1, 3), slice(2, 5))
    assert torch.equal(part.tensor, codes[:, 1:3, 2:5])
    assert part.length.tolist() == [6, 6]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_that_of_converted_weights_and_inputs(dtype: torch.dtype) -> None:
    model, shown = Blocks(), images()
    tokens = model.encode(shown)
    whole = model.decode(tokens, [0, 1])
    converted = in_precision(model, dtype)
    layer = nn.Conv2d(3, 3, 1).to(dtype)
    layer.load_state_dict(model.module["map"].to(dtype).state_dict())
    expected = nn.functional.interpolate(layer(tokens.tensor.float().to(dtype)), scale_factor=8)
    assert torch.equal(converted.decode(tokens, [0, 1]), expected)
    assert not torch.equal(whole, expected.float())


def test_half_precision_leaves_the_tokenizer_unchanged() -> None:
    model = Blocks()
    before = model.decode(model.encode(images()), [0, 1])
    decoder = build_decoder(model, DecoderVariant(precision="bf16"))
    assert decoder.decode(model.encode(images()), [0, 1], (64, 96)).dtype == torch.float32
    assert torch.equal(model.decode(model.encode(images()), [0, 1]), before)


def test_a_network_inside_a_function_is_not_converted_in_place() -> None:
    model, network = Blocks(), nn.Conv2d(3, 3, 1)
    model.apply = lambda latents: network(latents)
    with pytest.raises(NotApplicable, match="blocks: a function of it holds a network, so that no copy in bfloat16"):
        in_precision(model, torch.bfloat16)
    assert network.weight.dtype == torch.float32
    assert not network._forward_pre_hooks


def test_half_precision_needs_networks_that_can_be_converted() -> None:
    model = Blocks()
    model.module = None
    with pytest.raises(NotApplicable, match="no network that could compute in bfloat16"):
        in_precision(model, torch.bfloat16)
    model.module = torch.jit.trace(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4))
    with pytest.raises(NotApplicable, match="TorchScript"):
        in_precision(model, torch.bfloat16)


def test_another_decoder_of_the_latent_space_decodes_in_its_own_range() -> None:
    model = Blocks()
    other = Blocks(spec=TokenizerSpec("b", "continuous", (-1.0, 1.0), multiple=8, downsample=8, bits_per_token=48))
    tokens = model.encode(images())
    decoded = build_decoder(model, DecoderVariant(adapter="b"), other).decode(tokens, [0, 1], (64, 96))
    torch.testing.assert_close(decoded, (other.decode(tokens, [0, 1]) + 1) / 2)


def test_a_decoder_of_other_tokens_is_refused() -> None:
    other = Blocks(spec=TokenizerSpec("b", "continuous", multiple=16, downsample=16, bits_per_token=48))
    with pytest.raises(NotApplicable, match="b cannot decode the tokens of blocks: its spec says downsample=16, not 8"):
        build_decoder(Blocks(), DecoderVariant(adapter="b"), other)


def test_modes_of_diffusers_need_diffusers() -> None:
    with pytest.raises(NotApplicable, match="not an autoencoder of diffusers with the mode tiling"):
        build_decoder(Blocks(), DecoderVariant(mode="tiling"))


def test_diffusers_tiling_is_that_of_the_library() -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs tokbench[hf]")
    from tokbench.tokenizers.builtin.diffusers_models import adapter_of

    torch.manual_seed(0)
    net = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, latent_channels=4, sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval().requires_grad_(False)  # fmt: skip
    model = adapter_of("kl", net, "AutoencoderKL")
    tokens = model.encode(images(2, 48, 48) * 2 - 1)
    tiled = build_decoder(model, DecoderVariant(mode="tiling"))
    decoded = tiled.decode(tokens, [0, 1], (48, 48))
    assert not net.use_tiling
    whole = model.decode(tokens, [0, 1])
    net.enable_tiling()
    assert torch.equal(decoded, net.decode(tokens.tensor.float()).sample)
    net.disable_tiling()
    assert not torch.equal(decoded, whole)
    # Tiles of 32 px every 24 px: 0 to 32 and 24 to 48.
    assert tiled.seams((48, 48)) == Seams((24, 32), (24, 32))
    assert tiled.seams((32, 32)) == Seams()
    sliced = build_decoder(model, DecoderVariant(mode="slicing")).decode(tokens, [0, 1], (48, 48))
    torch.testing.assert_close(sliced, whole)
    assert not net.use_slicing


def test_the_lines_of_tiles_of_unknown_size_are_unknown() -> None:
    assert library_seams(nn.Identity(), (64, 64)) == Seams()
