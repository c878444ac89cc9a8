"""Token transforms: how a model's images are made from a batch of references, and which tokens the decoder gets. A task
is a list of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from tokbench.errors import AdapterError, NotApplicable
from tokbench.metric_names import Anchor, cell_name
from tokbench.metrics.batch import DerivedCache
from tokbench.timing import timed
from tokbench.tokenizers import contract
from tokbench.tokenizers.base import Generator, ImageModel, PrecomputedImages, Tokenizer
from tokbench.tokenizers.captioned import BoundTokenizer
from tokbench.tokenizers.perturb import Perturber
from tokbench.tokenizers.tokens import Tokens


@dataclass(frozen=True)
class StepOutput:
    """The output of a token transform for some images.

    decoded: images (B, 3, H, W) in `spec.range`. tokens: their tokens, or None for precomputed images. encoding,
    decoding: the seconds that encode and decode took.
    """

    decoded: Tensor
    tokens: Tokens | None = None
    encoding: float = 0.0
    decoding: float = 0.0


@dataclass(frozen=True)
class TokenTransform:
    """The identity transform: the decoder gets all tokens as they were encoded.

    task: the task of the result. in_range: whether decoded images must lie near the spec's range. checked: whether the
    output should look like an image, so that damage is counted (`tokbench.metrics.output_checks`). whole: whether the
    decoder gets all tokens of each image.
    """

    in_range: ClassVar[bool] = True
    checked: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    task: str = "reconstruct"

    @property
    def cell(self) -> str:
        """A name that is unique among the transforms of one task."""
        return ""

    @property
    def refusal(self) -> str | None:
        """Why this model cannot do this one of the transforms of a task; None if it can."""
        return None

    @property
    def recorded(self) -> dict[str, Any]:
        """What a result records about the transform, in addition to the adapter."""
        return {}

    def tokens(self, model: Tokenizer, images: Tensor, seeds: Sequence[int], memo: DerivedCache) -> Tokens:
        """Return the tokens for the decoder from images (B, 3, H, W) in `spec.range`. seeds: one per image. memo:
        shared values of these images."""
        return model.encode(images)

    def run(
        self,
        model: ImageModel,
        images: Tensor,
        names: Sequence[str],
        seeds: Sequence[int],
        memo: DerivedCache,
        device: str,
    ) -> StepOutput:
        """Encode images (B, 3, H, W) in `spec.range` on the device, transform their tokens, and decode.

        Raises AdapterError where the tokens do not agree with the spec.
        """
        assert isinstance(model, Tokenizer)
        encoded, encoding = timed(partial(self.tokens, model, images, seeds, memo), device)
        contract.check_tokens(encoded, images, model, names, self.whole)
        decoded, decoding = timed(partial(model.decode, encoded, seeds), device)
        return StepOutput(decoded, encoded, encoding, decoding)

    def probe(self, model: ImageModel, images: Tensor, names: Sequence[str], seeds: Sequence[int]) -> None:
        """Run the checks that are too costly for every batch on a few images. Raises AdapterError."""
        assert isinstance(model, Tokenizer)
        contract.probe(model, images, names, seeds)


AS_ENCODED = TokenTransform()
"""The transform of the task `reconstruct` for tokenizers."""


@dataclass(frozen=True)
class UsePrecomputed(TokenTransform):
    """The reconstructions of a `PrecomputedImages`, whose tokens are unknown."""

    def run(
        self,
        model: ImageModel,
        images: Tensor,
        names: Sequence[str],
        seeds: Sequence[int],
        memo: DerivedCache,
        device: str,
    ) -> StepOutput:
        assert isinstance(model, PrecomputedImages)
        return StepOutput(model.reconstruct(images, names))

    def probe(self, model: ImageModel, images: Tensor, names: Sequence[str], seeds: Sequence[int]) -> None:
        return


def plain_step(model: ImageModel) -> TokenTransform:
    """Return the transform with which a model reconstructs images.

    Raises NotApplicable for a generator, AdapterError where spec and class disagree.
    """
    if isinstance(model, Generator):
        raise NotApplicable(f"{model.spec.name}: a generator reconstructs no images; give --task generate")
    contract.check_kind(model)
    return UsePrecomputed() if isinstance(model, PrecomputedImages) else AS_ENCODED


@dataclass(frozen=True, kw_only=True)
class KeepFirst(TokenTransform):
    """Keeps the first `count` tokens of each image (or tile)."""

    checked = False
    whole = False

    count: int

    def tokens(self, model: Tokenizer, images: Tensor, seeds: Sequence[int], memo: DerivedCache) -> Tokens:
        return model.encode(images).truncate(self.count, model.spec.variable)

    def probe(self, model: ImageModel, images: Tensor, names: Sequence[str], seeds: Sequence[int]) -> None:
        super().probe(model, images, names, seeds)
        assert isinstance(model, Tokenizer)
        tokens = self.tokens(model, images, seeds, DerivedCache())
        try:
            decoded = model.decode(tokens, seeds)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # third-party code may raise any exception
            raise AdapterError(
                f"{model.spec.name}: its spec declares `prefixes`, but {self.count} tokens of {names[0]} do not decode "
                f"({type(error).__name__}: {str(error)[:200]})"
            ) from error
        contract.check_images(decoded, images, model, names)


@dataclass(frozen=True, kw_only=True)
class PerturbTokens(TokenTransform):
    """Perturbs the tokens. delta: None where there is no codebook. most: the largest delta of the task. anchor: that of
    the perturber.

    The range of decoded images is not checked: noise can move the output of a linear decoder far outside it, and images
    are clamped.
    """

    in_range = False
    checked = False

    perturber: Perturber
    alpha: float
    delta: int | None
    most: int
    anchor: Anchor = "latent"

    @property
    def cell(self) -> str:
        return cell_name(self.alpha, self.delta)

    def tokens(self, model: Tokenizer, images: Tensor, seeds: Sequence[int], memo: DerivedCache) -> Tokens:
        key = id(self.perturber), *seeds
        if key not in memo.perturbations:  # shared by all cells, since encoding and ranking cost most
            bound = isinstance(model, BoundTokenizer)  # only a perturber made from it encodes with the captions
            perturber = model.perturber(self.anchor) if bound else self.perturber
            memo.perturbations[key] = perturber.prepare(images, seeds, self.most)
        return memo.perturbations[key](self.alpha, self.delta or 1)
