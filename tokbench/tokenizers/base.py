"""What an adapter must be: a spec that states the contract, and encode and decode that keep it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokbench.errors import NotApplicable
from tokbench.metric_names import Anchor
from tokbench.tokenizers.perturb import LatentNoise, Perturber
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens


class ImageModel(ABC):
    """Anything that answers an image with a reconstruction of it: a `Tokenizer`, or an `ImageSource`."""

    spec: TokenizerSpec
    module: nn.Module | None = None
    """The networks, or None: counted as parameters, moved to the device, hashed into the result."""
    dtype: torch.dtype = torch.float32
    """In which the networks compute; a result names any other than float32."""
    identity: str = ""
    """sha256 of the code and settings that made it, where another adapter is built on it."""
    config: str = ""
    """sha256 of the configuration that a library made the networks from, where no code of an adapter says what they
    compute."""

    def prepare(self, names: Sequence[str], all_names: Sequence[str]) -> None:
        """Called once before the pass with the images to come and those of the whole dataset.

        For sources that must know them; may raise AdapterError.
        """
        return


class PrecomputedImages(ImageModel):
    """A source whose tokens are out of reach: reconstructions made elsewhere, an autoencoder in one piece."""

    @abstractmethod
    def reconstruct(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """(B, 3, H, W) in `spec.range` to the same shape and range (values outside it are clamped later)."""

    def samples(self, positions: Sequence[int]) -> Tensor:
        """The images at those positions as samples, paired with nothing: float32 (B, 3, H, W) in [0, 1].

        Raises NotApplicable where it has none without an image to reconstruct.
        """
        raise NotApplicable(f"{self.spec.name}: it reconstructs images, and has no samples of its own")


class Tokenizer(ImageModel):
    """An encoder and a decoder. Evaluation decodes from the tokens alone."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tokens:
        """(B, 3, H, W) in `spec.range`, sizes as the spec allows, to the tokens of B images."""

    @abstractmethod
    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        """Tokens to images (B, 3, H, W) in `spec.range`.

        `seeds` holds one number an image; a decoder that samples draws its noise from them and from nothing else.
        """

    def perturber(self, anchor: Anchor) -> Perturber:
        """How its tokens are perturbed, around `anchor`. Raises NotApplicable where they cannot be."""
        if self.spec.kind == "continuous":
            return LatentNoise(self.spec.name, self.encode, anchor)
        codec = self.spec.kind == "codec"
        why = "a codec has no codes to perturb" if codec else "it does not say which codes lie near each other"
        raise NotApplicable(
            f"{self.spec.name}: {why}; what can be perturbed are continuous tokens, those of a LearnedTokenizer, and "
            "those of one with a `perturber` of its own"
        )


class Generator(ImageModel):
    """A prior over a tokenizer's tokens: classes and seeds in, tokens out, which that tokenizer decodes.

    classes: labels are 0 to classes - 1; 1 for a generator without labels. guidance: the scale that it samples with
    unless told otherwise; 1 is plain conditional sampling. `spec` is its tokenizer's, under its own name.
    """

    tokenizer: Tokenizer
    classes: int
    guidance: float = 1.0

    @abstractmethod
    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tokens:
        """Labels int64 (B,) on the device to the tokens of B images, as its tokenizer's `encode` would give them.

        `seeds` holds one number an image, from which alone its noise is drawn.
        """

    def num_function_evaluations(self, guidance: float) -> float | None:
        """Passes of the whole network for one sample; None where that is not known."""
        return None
