"""Steps: how a model's images are made from a batch of references, and what the decoder gets of the tokens. A task is
a list of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from tokbench.errors import AdapterError, NotApplicable
from tokbench.metric_names import cell_name
from tokbench.metrics.batch import DerivedCache
from tokbench.timing import timed
from tokbench.tokenizers import contract
from tokbench.tokenizers.base import Generator, ImageModel, PrecomputedImages, Tokenizer
from tokbench.tokenizers.perturb import Perturber
from tokbench.tokenizers.tokens import Tokens


@dataclass(frozen=True)
class StepOutput:
    """What a step made of some images: decoded images (B, 3, H, W) in `spec.range`, their tokens and the seconds that
    encode and decode took; no tokens where the images were made elsewhere."""

    decoded: Tensor
    tokens: Tokens | None = None
    encoding: float = 0.0
    decoding: float = 0.0


@dataclass(frozen=True)
class TokenTransform:
    """All tokens, as they were encoded. task: that of the result. in_range: whether decoded images must lie near the
    spec's range. checked: whether what comes out should look like an image, so that damage of it is counted
    (`tokbench.metrics.output_checks`). whole: whether the decoder gets all tokens of each image."""

    in_range: ClassVar[bool] = True
    checked: ClassVar[bool] = True
    whole: ClassVar[bool] = True

    task: str = "reconstruct"

    @property
    def cell(self) -> str:
        """Tells apart the steps of one task."""
        return ""

    @property
    def told(self) -> dict[str, Any]:
        """What a result says of it beside the adapter."""
        return {}

    def tokens(self, model: Tokenizer, images: Tensor, seeds: Sequence[int], memo: DerivedCache) -> Tokens:
        """What the decoder gets of images (B, 3, H, W) in `spec.range`. `seeds`: one an image; `memo`: theirs."""
        return model.encode(images)

    def run(
        self, model: Any, images: Tensor, names: Sequence[str], seeds: Sequence[int], memo: DerivedCache, device: str
    ) -> StepOutput:
        """Encode images (B, 3, H, W) in `spec.range` on the device, change their tokens, and decode.

        Raises AdapterError where the tokens are not what the spec declares.
        """
        encoded, encoding = timed(partial(self.tokens, model, images, seeds, memo), device)
        contract.check_tokens(encoded, images, model, names, self.whole)
        decoded, decoding = timed(partial(model.decode, encoded, seeds), device)
        return StepOutput(decoded, encoded, encoding, decoding)

    def try_out(self, model: Any, images: Tensor, names: Sequence[str], seeds: Sequence[int]) -> None:
        """What is too costly to check of every batch, on a few images. Raises AdapterError."""
        contract.probe(model, images, names, seeds)


AS_ENCODED = TokenTransform()
"""The step of the task `reconstruct` for tokenizers."""


@dataclass(frozen=True)
class UsePrecomputed(TokenTransform):
    """The reconstructions of an `ImageSource`, whose tokens are out of reach."""

    def run(
        self, model: Any, images: Tensor, names: Sequence[str], seeds: Sequence[int], memo: DerivedCache, device: str
    ) -> StepOutput:
        return StepOutput(model.reconstruct(images, names))

    def try_out(self, model: Any, images: Tensor, names: Sequence[str], seeds: Sequence[int]) -> None:
        return


def plain_step(model: ImageModel) -> TokenTransform:
    """How a model reconstructs. Raises NotApplicable for a generator, AdapterError where spec and class disagree."""
    if isinstance(model, Generator):
        raise NotApplicable(f"{model.spec.name}: a generator reconstructs nothing; give --task generate")
    contract.check_kind(model)
    return UsePrecomputed() if isinstance(model, PrecomputedImages) else AS_ENCODED


@dataclass(frozen=True, kw_only=True)
class KeepFirst(TokenTransform):
    """The first `count` tokens of each image (or tile)."""

    checked = False
    whole = False

    count: int

    def tokens(self, model: Tokenizer, images: Tensor, seeds: Sequence[int], memo: DerivedCache) -> Tokens:
        return model.encode(images).truncate(self.count, model.spec.variable)

    def try_out(self, model: Any, images: Tensor, names: Sequence[str], seeds: Sequence[int]) -> None:
        super().try_out(model, images, names, seeds)
        some = self.tokens(model, images, seeds, DerivedCache())
        try:
            decoded = model.decode(some, seeds)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # other people's code: anything may come
            raise AdapterError(
                f"{model.spec.name}: its spec declares `prefixes`, and {self.count} tokens of {names[0]} do not decode "
                f"({type(error).__name__}: {str(error)[:200]})"
            ) from error
        contract.check_images(decoded, images, model, names)


@dataclass(frozen=True, kw_only=True)
class PerturbTokens(TokenTransform):
    """Perturbed tokens. delta: None where there is nothing to choose from. most: the largest delta of the task.

    Noise leads a linear decoder anywhere, which is no fault of it; images are clamped, as all are.
    """

    in_range = False
    checked = False

    perturber: Perturber
    alpha: float
    delta: int | None
    most: int

    @property
    def cell(self) -> str:
        return cell_name(self.alpha, self.delta)

    def tokens(self, model: Tokenizer, images: Tensor, seeds: Sequence[int], memo: DerivedCache) -> Tokens:
        key = id(self.perturber), *seeds
        if key not in memo.looks:  # all cells share it: encoding and ranking cost more than the change itself
            memo.looks[key] = self.perturber.prepare(images, seeds, self.most)
        made: Tokens = memo.looks[key](self.alpha, self.delta or 1)
        return made
