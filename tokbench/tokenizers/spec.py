"""TokenizerSpec: what a tokenizer declares about itself, and checks that its fields do not contradict each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tokbench.errors import AdapterError
from tokbench.metric_names.spec import EVERY_MODALITY, Modality


@dataclass(frozen=True)
class TokenizerSpec:
    """What a tokenizer declares. Every field is checked against what the tokenizer does
    (`tokbench.tokenizers.contract`).

    - name: `family.variant`, the same string in folder, command, JSON and table.
    - kind: `discrete` (indices), `continuous` (latents), `codec` (bytes) or `images` (precomputed images, no tokens).
    - range: the range of the values that `encode` takes and `decode` returns; images are converted to it from [0, 1].
    - multiple: height and width must be multiples of it; other images are padded at the edge and cropped afterwards.
    - size: the only height and width that the tokenizer accepts, in pixels, or None; larger images are cut into tiles.
    - downsample: pixels per side of each token in a 2-D grid, or None.
    - num_tokens: tokens per image (or tile) if that number is fixed, or None.
    - codebook: number of codes per stream of indices; empty for other kinds.
    - bits_per_token: may be left out if all streams have codebooks of one size, since it is then computed; 16 times
      the number of values in a continuous token; None if it is not fixed (codecs).
    - variable: the number of tokens differs between images, with `num_tokens` as the maximum, and is transmitted in a
      few extra bits.
    - prefixes: any number of first tokens of an image decode to an image, too.
    - groups: how many indices form one token (`Tokens.from_indices`); by default the number that `bits_per_token`
      implies, or one.
    - modalities: the kinds of data that `encode` takes, as (B, 3, H, W) images, (B, T, 3, H, W) clips, (B, C, N)
      waveforms or (B, 4, D, D, D) voxels of occupancy and colour. Clips are passed frame by frame to tokenizers of
      images alone. For waveforms and voxels, `multiple` and `downsample` count samples and voxels per axis.
    - temporal: frames per token in time; the number of frames must be a multiple of it.
    - first_frame: the first frame of a clip has tokens of its own, and only the others are counted by `temporal`.
    - causal: whether no output depends on later input, for waveforms and clips; None if unknown.

    Raises AdapterError if two fields contradict each other.
    """

    name: str
    kind: Literal["discrete", "continuous", "codec", "images"]
    range: tuple[float, float] = (0.0, 1.0)
    multiple: int = 1
    size: int | None = None
    downsample: int | None = None
    num_tokens: int | None = None
    codebook: dict[str, int] = field(default_factory=dict)
    bits_per_token: float | None = None
    variable: bool = False
    prefixes: bool = False
    groups: int | None = None
    modalities: tuple[Modality, ...] = ("image",)
    temporal: int = 1
    first_frame: bool = False
    causal: bool | None = None

    def __post_init__(self) -> None:
        bits, groups = check_spec(self)
        object.__setattr__(self, "bits_per_token", bits)
        object.__setattr__(self, "groups", groups)

    def tokens_at(self, height: int, width: int) -> int | None:
        """Return the number of tokens of one height x width image that meets the size rules, or None if the spec
        does not define it."""
        if self.num_tokens is not None:
            return self.num_tokens
        if self.downsample is not None:
            return (height // self.downsample) * (width // self.downsample)
        return None

    def tokens_of(self, shape: Sequence[int]) -> int | None:
        """Return the number of tokens of one item of this shape that meets the size rules, or None if the spec does
        not define it.

        shape: that of an image (3, H, W), a clip (T, 3, H, W), a waveform (C, N) or voxels (4, D, D, D).
        """
        if self.num_tokens is not None or self.downsample is None:
            return self.num_tokens
        if len(shape) == 4 and shape[1] == 3:
            first = int(self.first_frame)
            steps = first + (shape[0] - first) // self.temporal
            return steps * math.prod(side // self.downsample for side in shape[2:])
        return math.prod(side // self.downsample for side in shape[1:])


KINDS = {"discrete": "index", "continuous": "latent", "codec": "bytes", "images": None}
"""Every kind of tokenizer and the kind of its token streams."""

VALUE_BITS = 16
"""Bits per continuous value: latents are stored as float16 (`Tokens.from_latents`)."""

_CLOSE = 1e-6
"""The relative tolerance when bits are compared. Some adapters compute logarithms in float32."""


def check_spec(spec: TokenizerSpec) -> tuple[float | None, int | None]:
    """Return the bits per token and the indices per token, as declared or computed; None if neither is possible.

    Raises AdapterError that names the spec, the two fields that contradict each other, and the remedy.
    """
    if not isinstance(spec.name, str) or not spec.name:
        raise AdapterError(f"a spec has the name {spec.name!r}; give family.variant")
    if spec.kind not in KINDS:
        raise AdapterError(f"{spec.name}: its spec says kind {spec.kind!r}; give one of {', '.join(map(repr, KINDS))}")
    _check_numbers(spec)
    _check_codebook(spec)
    _check_tokens(spec)
    _check_sizes(spec)
    return _bits(spec)


def _refuse(spec: TokenizerSpec, says: str, remedy: str) -> AdapterError:
    return AdapterError(f"{spec.name}: its spec {says}; {remedy}")


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_numbers(spec: TokenizerSpec) -> None:
    ends = spec.range if isinstance(spec.range, tuple | list) else ()
    if len(ends) != 2 or not all(map(_is_finite, ends)) or ends[0] >= ends[1]:
        raise _refuse(spec, f"says range {spec.range!r}", "give two numbers, the lower one first")
    if not spec.modalities or not set(spec.modalities) <= set(EVERY_MODALITY):
        raise _refuse(spec, f"says modalities={spec.modalities!r}", f"give some of {', '.join(EVERY_MODALITY)}")
    for name in ("multiple", "size", "downsample", "num_tokens", "groups", "temporal"):
        value = getattr(spec, name)
        if not _is_positive(value) and (value is not None or name in ("multiple", "temporal")):
            raise _refuse(spec, f"says {name}={value!r}", "give a positive integer")
    bits = spec.bits_per_token
    if bits is not None and (not _is_finite(bits) or bits < 0):
        raise _refuse(spec, f"says bits_per_token={bits!r}", "give a positive number, or leave it out")


def _check_codebook(spec: TokenizerSpec) -> None:
    if not isinstance(spec.codebook, dict) or not all(
        isinstance(name, str) and _is_positive(size) for name, size in spec.codebook.items()
    ):
        raise _refuse(spec, f"says codebook {spec.codebook!r}", "give the number of codes by stream, {'codes': K}")
    if spec.kind == "discrete" and not spec.codebook:
        raise _refuse(spec, "says kind 'discrete' and declares no codebook", "give codebook={'codes': K}")
    if spec.kind != "discrete" and spec.codebook:
        raise _refuse(
            spec, f"says kind '{spec.kind}' and declares codebook {spec.codebook}", "leave it out, or say 'discrete'"
        )


def _check_tokens(spec: TokenizerSpec) -> None:
    if spec.kind in ("codec", "images"):
        for name in ("num_tokens", "downsample", "bits_per_token", "groups", "variable", "prefixes"):
            if value := getattr(spec, name):
                why = "a codec's bytes are not tokens" if spec.kind == "codec" else "precomputed images have no tokens"
                raise _refuse(spec, f"says kind '{spec.kind}' and {name}={value!r}", f"{why}, so leave it out")
    for name in ("variable", "prefixes"):
        if getattr(spec, name) and spec.num_tokens is None:
            raise _refuse(
                spec, f"declares `{name}` but no `num_tokens`", "give the largest number of tokens that an image has"
            )


def _check_sizes(spec: TokenizerSpec) -> None:
    size, grid, count = spec.size, spec.downsample, spec.num_tokens
    for name, value in (("multiple", spec.multiple), ("downsample", grid)):
        if size is not None and value is not None and size % value:
            raise _refuse(spec, f"says size={size} and {name}={value}", f"give a size that is a multiple of {value}")
    if grid is None or count is None:
        return
    if size is None:
        raise _refuse(
            spec,
            f"says num_tokens={count} for every image, but downsample={grid} makes the number depend on the image size",
            "leave one of them out, or give the only size",
        )
    expected = (size // grid) ** 2
    if count not in (expected, expected * max(1, len(spec.codebook))):
        raise _refuse(
            spec,
            f"says num_tokens={count}, but size={size} with downsample={grid} gives {expected}",
            "leave out the wrong one",
        )


def _bits(spec: TokenizerSpec) -> tuple[float | None, int | None]:
    bits = spec.bits_per_token
    if spec.kind == "continuous":
        if bits is not None and (not bits or bits % VALUE_BITS):
            raise _refuse(
                spec,
                f"says kind 'continuous' and bits_per_token={bits:g}",
                f"values are stored as float16, so give {VALUE_BITS} times the values of a token",
            )
        return bits, spec.groups
    sizes = set(spec.codebook.values())
    if spec.kind != "discrete" or len(sizes) > 1:  # with several codebook sizes, bits depend on the stream
        return bits, spec.groups
    size = sizes.pop()
    each = math.log2(size)
    if bits is None or not each:
        if bits:
            raise _refuse(spec, f"says bits_per_token={bits:g} and a codebook of one code", "its indices take 0 bits")
        groups = spec.groups or 1
        return groups * each, groups
    groups = spec.groups or max(1, round(bits / each))
    if not math.isclose(bits, groups * each, rel_tol=_CLOSE):
        token = f"a token of {groups} indices takes {groups * each:g}" if spec.groups else f"an index takes {each:g}"
        raise _refuse(
            spec,
            f"says bits_per_token={bits:g} and a codebook of {size} codes, with which {token} bits",
            "leave bits_per_token out, and give `groups` if several indices form one token",
        )
    return bits, groups
