"""The contract of adapters: requirements on every tokenizer and generator, tested on a few images."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from tokbench.data.stream import PairedBatch
from tokbench.errors import TokbenchError, UsageError
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import KeepFirst, TokenTransform, plain_step
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.testing.checks import Check, Inapplicable, Requirement, expect, run_requirements
from tokbench.tokenizers.base import Generator, ImageModel, Tokenizer
from tokbench.tokenizers.captioned import CaptionedTokenizer
from tokbench.tokenizers.registry import load_adapter
from tokbench.tokenizers.tiling import fit

LEVEL = 1.001 / 255
"""The largest difference of a pixel between batch sizes, in [0, 1]. A value may be rounded to the adjacent level."""

SHARE_OF_PIXELS = 1e-3
"""The largest share of pixels that may differ between batch sizes."""

BRIGHTNESS = 0.05
"""The largest mean error of a constant image and of the brightness of photos, in [0, 1]."""


_CAPTION = "a photo"
"""The caption of every image, for models that need captions."""


def photos(size: int = 256) -> Tensor:
    """Return six photos from scikit-image, float32 (6, 3, size, size) in [0, 1], with 8-bit values.

    size: at most 256.
    """
    from skimage import data

    astronaut, coffee, rocket = (torch.from_numpy(make()) for make in (data.astronaut, data.coffee, data.rocket))
    crops = [astronaut[:256, :256], astronaut[256:, :256], coffee[:256, :256], coffee[:256, 256:512]]
    crops += [rocket[:256, :256], rocket[:256, 256:512]]
    first = (256 - size) // 2
    inner = slice(first, first + size)
    return torch.stack(crops).permute(0, 3, 1, 2).float()[:, :, inner, inner].contiguous() / 255


def run(model: ImageModel, images: Tensor, batch_size: int = 16, step: TokenTransform | None = None) -> Batch:
    """Run images (B, 3, H, W) in [0, 1] through a model on the CPU, as `tokbench eval` does."""
    captions = [_CAPTION] * len(images) if isinstance(model, CaptionedTokenizer) else None
    names = [f"image {i}" for i in range(len(images))]
    given = PairedBatch(torch.arange(len(images)), names, images, captions=captions)
    settings = RunSettings("cpu", batch_size, probe=True)
    return reconstruct(model, given, step or plain_step(model), settings, DerivedCache())


def _in_range(model: ImageModel, images: Tensor) -> Tensor:
    """Return images as `encode` receives them: in the spec's range, at a size that the spec allows."""
    low, high = model.spec.range
    tiles = fit(model.spec, images.shape[2], images.shape[3]).cut(images)
    return tiles[: len(images)] * (high - low) + low


def _declared(model: ImageModel, height: int, width: int) -> int | None:
    """Return the number of tokens that the spec declares for an image of this size, or None."""
    plan = fit(model.spec, height, width)
    tokens = None if model.spec.kind == "codec" else model.spec.tokens_at(*plan.tile)
    return None if tokens is None else plan.tiles * tokens


def has_complete_spec(model: ImageModel, images: Tensor) -> None:
    spec = model.spec
    expect(spec.name, "the spec has no name")
    expect(spec.range[0] < spec.range[1], f"the range is {spec.range}")
    expect((spec.kind == "discrete") == bool(spec.codebook), f"kind is '{spec.kind}', codebook is {spec.codebook}")
    if spec.kind in ("discrete", "continuous"):
        expect(spec.bits_per_token is not None, "bits_per_token is missing")
        expect(spec.tokens_at(256, 256) is not None or spec.variable, "neither num_tokens nor downsample is declared")


def keeps_size_and_range(model: ImageModel, images: Tensor) -> None:
    """Check shapes, finite values, tokens and the range, as the evaluation does for all images."""
    batch = run(model, images[:2])
    image, output = batch.rounded("image"), batch.require("image")
    expect(
        image.shape == images[:2].shape,
        f"images of shape {tuple(images[:2].shape)} have the output shape {tuple(image.shape)}",
    )
    expect((output - image).abs().max() <= 0.5001 / 255, "rounding to 8 bits changed a pixel by more than half a level")
    expect(image.min() >= 0 and image.max() <= 1, "pixels are outside [0, 1]")


def declares_its_tokens(model: ImageModel, images: Tensor) -> None:
    _need_tokens(model)
    tokens = run(model, images[:2]).require("tokens")
    expect((tokens.bits > 0).all(), "an image has no bits")
    declared = _declared(model, *images.shape[2:])
    if declared is None:
        return
    if model.spec.variable:
        expect(
            (tokens.length <= declared).all(), f"an image has {int(tokens.length.max())} tokens, {declared} declared"
        )
        return
    expect((tokens.length == declared).all(), f"an image has {int(tokens.length[0])} tokens, {declared} declared")
    expected = declared * (model.spec.bits_per_token or 0)
    bits = float(tokens.bits[0])
    expect(math.isclose(bits, expected, rel_tol=1e-6), f"an image has {bits:g} bits, {expected:g} are declared")


def keeps_indices_in_codebooks(model: ImageModel, images: Tensor) -> None:
    if not model.spec.codebook:
        raise Inapplicable("it has no codebook")
    for name, stream in run(model, images[:2]).require("tokens").streams.items():
        if stream.kind == "index":
            size = model.spec.codebook.get(name)
            expect(stream.codebook_size == size, f"stream '{name}' has {stream.codebook_size} codes, {size} declared")
            expect(
                stream.data.min() >= 0 and stream.data.max() < size, f"stream '{name}' has indices outside its codebook"
            )


def does_not_depend_on_the_batch(model: ImageModel, images: Tensor) -> None:
    together, alone = run(model, images[:3], 16), run(model, images[:3], 1)
    gap = (together.rounded("image") - alone.rounded("image")).abs()
    expect(gap.max() <= LEVEL, f"a pixel changes by {float(gap.max()) * 255:.1f} levels with the batch size")
    share = float((gap > 0).float().mean())
    expect(share < SHARE_OF_PIXELS, f"{share:.2%} of the pixels change with the batch size")
    if together.tokens is not None and alone.tokens is not None:
        expect(torch.equal(together.tokens.bits, alone.tokens.bits), "the bits change with the batch size")


def repeats_itself(model: ImageModel, images: Tensor) -> None:
    first, second = (run(model, images[:2]).require("image") for _ in range(2))
    expect(
        torch.equal(first, second), f"two runs with the same seeds differ by {float((first - second).abs().max()):g}"
    )


@torch.inference_mode()
def leaves_its_input_alone(model: ImageModel, images: Tensor) -> None:
    tokenizer = _need_tokens(model)
    given = _in_range(model, images[:1])
    before = given.clone()
    tokenizer.encode(given)
    expect(torch.equal(given, before), "encode modified its input")


@torch.inference_mode()
def decodes_from_the_tokens_alone(model: ImageModel, images: Tensor) -> None:
    """Check that encoding another image in between does not change the decoded image of the first tokens."""
    tokenizer = _need_tokens(model)
    first = tokenizer.encode(_in_range(model, images[:1]))
    expected = tokenizer.decode(first, [0])
    tokenizer.encode(_in_range(model, images[1:2]))
    expect(
        torch.equal(tokenizer.decode(first, [0]), expected),
        "the decoded image depends on the last encoded image and not only on the tokens",
    )


def returns_a_constant_image(model: ImageModel, value: float) -> None:
    """Check that a constant image is reproduced. A wrong range would shift or clip its values."""
    grey = torch.full((1, 3, 64, 64), round(value * 255) / 255)
    gap = float((run(model, grey).require("image") - grey).abs().mean())
    expect(gap < BRIGHTNESS, f"a constant image of value {value:g} is reproduced with a mean error of {gap:.3f}")


def keeps_the_brightness(model: ImageModel, images: Tensor) -> None:
    gap = float((run(model, images).require("image") - images).mean())
    expect(abs(gap) < BRIGHTNESS, f"the mean brightness of photos changes by {gap:+.3f}")


def handles_odd_sizes(model: ImageModel, images: Tensor) -> None:
    odd = images[:1, :, :101, :77]
    batch = run(model, odd)
    output = batch.require("image")
    expect(
        output.shape == odd.shape, f"an image of shape {tuple(odd.shape)} has the output shape {tuple(output.shape)}"
    )
    declared = _declared(model, odd.shape[2], odd.shape[3])
    if declared is not None and batch.tokens is not None and not model.spec.variable:
        expect(
            int(batch.tokens.length[0]) == declared,
            f"it has {int(batch.tokens.length[0])} tokens, {declared} are declared",
        )


def decodes_prefixes(model: ImageModel, images: Tensor) -> None:
    most = model.spec.num_tokens
    if not model.spec.prefixes or most is None:
        raise Inapplicable("its spec does not declare `prefixes`")
    whole = run(model, images[:1])
    for count in sorted({1, max(1, most // 2), most}):
        output = run(model, images[:1], step=KeepFirst("contract", count=count))
        length = output.require("tokens").length
        tiles = fit(model.spec, *images.shape[2:]).tiles
        expect((length <= count * tiles).all(), f"a prefix of {count} tokens has {int(length.max())} tokens")
        if count == most:
            same = torch.equal(output.require("image"), whole.require("image"))
            expect(same, "the prefix of all tokens and the tokens themselves decode to different images")


@torch.inference_mode()
def draws_each_sample_from_its_seed(model: Generator, images: Tensor) -> None:
    labels, seeds = torch.arange(3) % model.classes, [5, 6, 7]
    whole = model.sample(labels, seeds, model.guidance)
    one = model.sample(labels[1:2], seeds[1:2], model.guidance)
    other = model.sample(labels, [8, 9, 10], model.guidance)
    decoded = model.tokenizer.decode(whole, seeds)
    same = float(whole.tensor[1:2].float().isclose(one.tensor.float(), atol=1e-2).float().mean())
    expect(
        same > 0.9, f"{1 - same:.0%} of a sample's tokens change with the batch"
    )  # rounding may change a few of them
    expect(not torch.equal(whole.tensor, other.tensor), "different seeds give the same tokens")
    declared = model.spec.tokens_at(*decoded.shape[2:])
    lengths = set(whole.length.tolist())
    expect(lengths == {declared}, f"samples have {lengths} tokens, {declared} are declared")
    low, high = model.spec.range
    mean = float(decoded.mean())
    expect(low - 0.5 < mean < high + 0.5, f"samples have the mean {mean:g}, the range is {low:g} to {high:g}")
    expect(float(decoded.std()) > 0.05, "samples are constant")


def _need_tokens(model: ImageModel) -> Tokenizer:
    """Return a tokenizer of single images. Raises Inapplicable if the model has no tokens."""
    if not isinstance(model, Tokenizer):
        raise Inapplicable("it has no tokens")
    return model.with_captions([_CAPTION]) if isinstance(model, CaptionedTokenizer) else model


def _constants(model: ImageModel, images: Tensor) -> None:
    for value in (0.0, 0.5, 1.0):
        returns_a_constant_image(model, value)


_RANGE = (
    "set `range` in the spec to the value range of the input of encode and the output of decode, such as (-1.0, 1.0)"
)

TOKENIZER_REQUIREMENTS = (
    Requirement("the spec is complete", "complete the TokenizerSpec (docs: Adapters)", has_complete_spec),
    Requirement(
        "images keep their size and range",
        "return float images (B, 3, H, W) in the spec's range from decode, and the declared tokens from encode",
        keeps_size_and_range,
    ),
    Requirement(
        "tokens and bits are as declared",
        "correct num_tokens, downsample, codebook or bits_per_token in the spec, or the tokens",
        declares_its_tokens,
    ),
    Requirement(
        "indices are inside their codebook", "correct the codebook size in the spec, or the indices",
        keeps_indices_in_codebooks,
    ),
    Requirement(
        "results do not depend on the batch size", "put the network into eval mode; do not compute across the batch",
        does_not_depend_on_the_batch,
    ),
    Requirement(
        "the same seeds give the same images", "draw noise only from torch.Generators seeded with `seeds`",
        repeats_itself,
    ),
    Requirement("encode does not modify its input", "copy the input before modifying it", leaves_its_input_alone),
    Requirement(
        "decode uses only the tokens", "do not store values between encode and decode", decodes_from_the_tokens_alone
    ),
    Requirement("constant images are reproduced", f"{_RANGE}; a network trained on few photos may fail", _constants),
    Requirement("photos keep their brightness", _RANGE, keeps_the_brightness),
    Requirement(
        "images of odd sizes keep their size", "declare `multiple` or `size` in the spec", handles_odd_sizes
    ),
    Requirement("prefixes decode", "accept fewer tokens in decode, or set prefixes=False", decodes_prefixes),
)  # fmt: skip

GENERATOR_REQUIREMENTS = (
    Requirement(
        "each sample depends only on its own seed", "draw the noise of each sample only from its own seed",
        draws_each_sample_from_its_seed,
    ),
)  # fmt: skip


def check_adapter(
    adapter: str | Path | ImageModel, images: Tensor | None = None, root: Path | None = None
) -> list[Check]:
    """Test an adapter against its contract, on the CPU.

    adapter: its name, the path of its folder or TOML file, or the model itself. images: float32 (N, 3, H, W) in [0, 1]
    with N >= 3 and at least 101 x 101 px; six photos if not given. Weights are not downloaded.
    Returns one Check per requirement, or only the first if the adapter cannot be loaded. Raises UsageError if there is
    no adapter of this name or path.
    """
    loading = "the adapter loads"
    try:
        model = adapter if isinstance(adapter, ImageModel) else load_adapter(str(adapter), root=root).model
    except UsageError:
        raise
    except TokbenchError as error:
        return [Check(loading, "fail", str(error), "correct adapter.py or the TOML file, or provide the weights")]
    if model.module is not None:
        model.module.eval()
    requirements = GENERATOR_REQUIREMENTS if isinstance(model, Generator) else TOKENIZER_REQUIREMENTS
    given = photos() if images is None else images
    return [Check(loading, "pass"), *run_requirements(requirements, model, given)]
