"""What a tokenizer declares of itself, and the checks that no two of its facts contradict."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from tokbench.errors import AdapterError


@dataclass(frozen=True)
class TokenizerSpec:
    """What a tokenizer declares; every line is held against what it does (`tokbench.tokenizers.contract`).

    name: `family.variant`, the same string in folder, command, JSON and table.
    kind: `discrete` (indices), `continuous` (latents), `codec` (bytes) or `images` (made elsewhere, no tokens).
    range: the values that `encode` wants and `decode` gives; images arrive converted from [0, 1].
    multiple: height and width must be multiples of it; other images are padded at the edge and cropped back.
    size: the only height and width it can take, or None; larger images run in tiles of it.
    downsample: pixels a side per token of a 2-D grid, or None.
    num_tokens: tokens of one image (or tile) where that is fixed, or None.
    codebook: entries per stream of indices; empty for other kinds.
    bits_per_token: computed where all streams have codebooks of one size, so it may be left out; 16 times the values
    of a continuous token; None where it is not fixed (codecs).
    variable: each image has as many tokens as it needs, `num_tokens` at most, and says how many in a few bits more.
    prefixes: the first tokens of an image decode to an image, too, however few.
    groups: how many indices make one token (`Tokens.from_indices`); where it is left out, as many as `bits_per_token`
    takes, or one.

    Raises AdapterError where two of these contradict (`tokbench.tokenizers.spec`).
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

    def __post_init__(self) -> None:
        bits, groups = check_spec(self)
        object.__setattr__(self, "bits_per_token", bits)
        object.__setattr__(self, "groups", groups)

    def tokens_at(self, height: int, width: int) -> int | None:
        """Tokens of one height x width image (already padded to the size rules); None where the spec does not say."""
        if self.num_tokens is not None:
            return self.num_tokens
        if self.downsample is not None:
            return (height // self.downsample) * (width // self.downsample)
        return None


KINDS = {"discrete": "index", "continuous": "latent", "codec": "bytes", "images": None}
"""Every kind of tokenizer, and the kind of its token streams."""

VALUE_BITS = 16
"""Of one continuous value: latents are stored and charged as float16 (`Tokens.from_latents`)."""

_CLOSE = 1e-6
"""Relative difference up to which bits are equal: some adapters compute logarithms in float32."""


def check_spec(spec: TokenizerSpec) -> tuple[float | None, int | None]:
    """The bits of a token and the indices that make one, as declared or, where it can be had, computed.

    Raises AdapterError that names the spec, the two facts that contradict, and the remedy.
    """
    if not isinstance(spec.name, str) or not spec.name:
        raise AdapterError(f"a spec is named {spec.name!r}; give family.variant")
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
    for name in ("multiple", "size", "downsample", "num_tokens", "groups"):
        value = getattr(spec, name)
        if not _is_positive(value) and (value is not None or name == "multiple"):
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
                why = "a codec's bytes are not tokens" if spec.kind == "codec" else "images made elsewhere have none"
                raise _refuse(spec, f"says kind '{spec.kind}' and {name}={value!r}", f"{why}, so leave it out")
    for name in ("variable", "prefixes"):
        if getattr(spec, name) and spec.num_tokens is None:
            raise _refuse(spec, f"declares `{name}`, and no `num_tokens`", "give the most tokens that an image has")


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
            f"says num_tokens={count} for every image and, with downsample={grid}, that their number follows from its "
            "size",
            "leave one of them out, or give the only size",
        )
    made = (size // grid) ** 2
    if count not in (made, made * max(1, len(spec.codebook))):
        raise _refuse(
            spec,
            f"says num_tokens={count}, and size={size} with downsample={grid} makes {made}",
            "leave out what is wrong",
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
    if spec.kind != "discrete" or len(sizes) > 1:  # of several streams, a token's bits depend on which it is in
        return bits, spec.groups
    size = sizes.pop()
    each = math.log2(size)
    if bits is None or not each:
        if bits:
            raise _refuse(spec, f"says bits_per_token={bits:g} and a codebook of one code", "an index takes 0 bits")
        groups = spec.groups or 1
        return groups * each, groups
    groups = spec.groups or max(1, round(bits / each))
    if not math.isclose(bits, groups * each, rel_tol=_CLOSE):
        token = f"a token of {groups} indices takes {groups * each:g}" if spec.groups else f"an index takes {each:g}"
        raise _refuse(
            spec,
            f"says bits_per_token={bits:g} and a codebook of {size} codes, of which {token} bits",
            "leave bits_per_token out, and give `groups` where several indices make one token",
        )
    return bits, groups
