"""Decode the same tokens by the decoder itself and by variants of it: the outputs of the task `decode`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from tokbench.data.stream import PairedBatch
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import StepOutput, TokenTransform
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.timing import timed
from tokbench.tokenizers import contract
from tokbench.tokenizers.base import ImageModel, Tokenizer
from tokbench.tokenizers.captioned import BoundTokenizer, unbound
from tokbench.tokenizers.decoder_variant import VariantDecoder
from tokbench.tokenizers.tiled_decode import Seams
from tokbench.tokenizers.tokens import Tokens


@dataclass(frozen=True)
class ReferenceDecode(TokenTransform):
    """The decoder itself, on whole images in float32. The tokens are encoded once for all variants."""

    def seams(self, size: tuple[int, int]) -> Seams:
        """Return where tiles begin and end in an image of that (height, width)."""
        return Seams()

    def decode(self, model: Tokenizer, tokens: Tokens, seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
        """Return the images (B, 3, H, W) of tokens in `spec.range`. size: (height, width)."""
        return model.decode(tokens, seeds)

    def run(
        self,
        model: ImageModel,
        images: Tensor,
        names: Sequence[str],
        seeds: Sequence[int],
        memo: DerivedCache,
        device: str,
    ) -> StepOutput:
        assert isinstance(model, Tokenizer)
        key = id(unbound(model)), *seeds
        if key not in memo.encodings:
            tokens, encoding = timed(partial(model.encode, images), device)
            contract.check_tokens(tokens, images, model, names)
            memo.encodings[key] = model.with_layout(tokens), encoding
        tokens, encoding = memo.encodings[key]
        height, width = images.shape[2:]
        decoded, decoding = timed(partial(self.decode, model, tokens, seeds, (height, width)), device)
        return StepOutput(decoded, tokens, encoding, decoding)


@dataclass(frozen=True, kw_only=True)
class DecodeVariant(ReferenceDecode):
    """A variant of the decoder.

    decoder: None where the model has no such variant, for the reason `why`. other: what a result records about the
    adapter that decodes instead, if there is one.
    """

    checked: ClassVar[bool] = False

    decoder: VariantDecoder | None
    other: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""

    @property
    def refusal(self) -> str | None:
        return self.why if self.decoder is None else None

    @property
    def recorded(self) -> dict[str, Any]:
        return {"decoder": dict(self.other)} if self.other else {}

    def seams(self, size: tuple[int, int]) -> Seams:
        assert self.decoder is not None
        return self.decoder.seams(size)

    def decode(self, model: Tokenizer, tokens: Tokens, seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
        assert self.decoder is not None
        captions = model.captions if isinstance(model, BoundTokenizer) else None
        return self.decoder.decode(tokens, seeds, size, captions)

    def probe(self, model: ImageModel, images: Tensor, names: Sequence[str], seeds: Sequence[int]) -> None:
        """Do nothing: the decoder itself is checked, and the images of a variant are checked in every batch."""


def decode_batch(
    model: ImageModel, images: PairedBatch, step: ReferenceDecode, settings: RunSettings, memo: DerivedCache
) -> Batch:
    """Return one batch decoded by a step, with the images of the decoder itself as its `baseline`.

    The decoder itself runs first, once for all steps, so that time and peak memory of the batch are those of decoding
    alone. Raises AdapterError where the tokenizer breaks its contract.
    """
    if id(model) not in memo.baselines:
        advance = settings.advance  # the decoder itself is the first half of the first step
        first = replace(settings, measure_memory=False, probe=False, advance=lambda share: advance(share / 2))
        image = reconstruct(model, images, ReferenceDecode(), first, memo).require("image")
        memo.baselines[id(model)] = image, DerivedCache()
        settings = replace(settings, advance=lambda share: advance((1 + share) / 2))
    baseline, baseline_memo = memo.baselines[id(model)]
    batch = reconstruct(model, images, step, settings, memo)
    height, width = baseline.shape[2:]
    return replace(batch, baseline=baseline, baseline_memo=baseline_memo, seams=step.seams((height, width)))


def move_to_device_of(model: Tokenizer, other: Tokenizer) -> None:
    """Move the networks of `other` to the device of those of `model`."""
    parameter = next(model.module.parameters(), None) if model.module is not None else None
    if other.module is not None and parameter is not None:
        other.module.eval().to(parameter.device)
