"""Tokenizers that get a caption of each image, for encode and decode, in addition to image and tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.tokenizers.base import ImageModel, Tokenizer
from tokbench.tokenizers.tokens import Tokens


class CaptionedTokenizer(Tokenizer):
    """A tokenizer that needs a caption of each image, such as TexTok (arXiv:2412.05796).

    The evaluation passes the same captions to `encode` and `decode`. They are side information that is transmitted
    apart from the tokens and whose bits are not counted.
    """

    @abstractmethod
    def encode(self, images: Tensor, captions: Sequence[str] | None = None) -> Tokens:
        """Return the tokens of `images` as `Tokenizer.encode` does. captions: one per image.

        Raises AdapterError if captions are missing or if their number is not that of the images
        (`require_captions`).
        """

    @abstractmethod
    def decode(self, tokens: Tokens, seeds: Sequence[int], captions: Sequence[str] | None = None) -> Tensor:
        """Return the images that tokens and captions represent, as `Tokenizer.decode` does. captions: one per image.

        Raises AdapterError as `encode` does.
        """

    def require_captions(self, captions: Sequence[str] | None, count: int) -> Sequence[str]:
        """Return the captions of `count` images. Raises AdapterError if they are missing or of another number."""
        name = self.spec.name
        if captions is None:
            raise AdapterError(
                f"{name}: it needs a caption of each image; use a dataset with captions, such as scenes or "
                "tiny-imagenet, or pass `captions`"
            )
        if isinstance(captions, str) or len(captions) != count:
            given = "one string" if isinstance(captions, str) else f"{len(captions)} captions"
            raise AdapterError(f"{name}: got {given} for {count} images; pass a list with one caption per image")
        return captions

    def with_captions(self, captions: Sequence[str] | None) -> BoundTokenizer:
        """Return a tokenizer of the images that have these captions. Raises AdapterError if they are missing."""
        count = 0 if captions is None else len(captions)
        return BoundTokenizer(self, self.require_captions(captions, count))


class BoundTokenizer(Tokenizer):
    """A captioned tokenizer together with the captions of a batch, whose images it encodes and decodes."""

    def __init__(self, model: CaptionedTokenizer, captions: Sequence[str]) -> None:
        self.model, self.captions = model, list(captions)
        self.spec, self.module, self.dtype, self.identity = model.spec, model.module, model.dtype, model.identity

    def encode(self, images: Tensor) -> Tokens:
        return self.model.encode(images, self.captions)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return self.model.decode(tokens, seeds, self.captions)

    def vectors(self, tokens: Tokens) -> Tensor:
        return self.model.vectors(tokens)

    def select(self, positions: Sequence[int]) -> BoundTokenizer:
        """Return the tokenizer of the images at these positions, in that order."""
        return BoundTokenizer(self.model, [self.captions[position] for position in positions])


def bind_captions(model: ImageModel, captions: Sequence[str] | None) -> ImageModel:
    """Return the model for the images with these captions: the same model, or a captioned one bound to them.

    Raises AdapterError if the model needs captions and there are none.
    """
    return model.with_captions(captions) if isinstance(model, CaptionedTokenizer) else model


def without_captions(model: ImageModel) -> ImageModel:
    """Return the model that `bind_captions` got. Unlike the bound one, it lives longer than a batch."""
    return model.model if isinstance(model, BoundTokenizer) else model


class TextAligned:
    """A part of a tokenizer that maps tokens and captions to one space, in which the metric `retrieval` compares them.

    A tokenizer inherits it in addition to `Tokenizer`.
    """

    @abstractmethod
    def token_embeddings(self, tokens: Tokens) -> Tensor:
        """Return one vector per image, float32 (B, E), from the tokens alone. Their lengths do not matter."""

    @abstractmethod
    def caption_embeddings(self, captions: Sequence[str]) -> Tensor:
        """Return one vector per caption, float32 (B, E)."""


class Captioner:
    """A part of a tokenizer that writes captions from tokens, which the metric `caption_accuracy` compares.

    A tokenizer inherits it in addition to `Tokenizer`.
    """

    @abstractmethod
    def write_captions(self, tokens: Tokens) -> list[str]:
        """Return one caption per image, from the tokens alone."""
