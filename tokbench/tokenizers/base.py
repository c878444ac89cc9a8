"""The interface that an adapter implements: a spec that declares the contract, and `encode` and `decode`, which must
keep it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.errors import NotApplicable
from tokbench.metric_names import Anchor
from tokbench.tokenizers.perturb import LatentNoise, Perturber
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens, unknown_layout


class ImageModel(ABC):
    """The base class of everything that is evaluated: a `Tokenizer`, a `Generator` or a `PrecomputedImages`."""

    spec: TokenizerSpec
    module: nn.Module | None = None
    """The networks, or None. Their parameters are counted, moved to the device and hashed into the result."""
    dtype: torch.dtype = torch.float32
    """The type in which the networks compute. A result names it unless it is float32."""
    identity: str = ""
    """The sha256 of the adapter's code and settings. It is set if another adapter is built on this one."""
    config: str = ""
    """The sha256 of the configuration from which a library built the networks. It is set if no adapter code defines
    what they compute."""
    recorded: Mapping[str, Any] = MappingProxyType({})
    """Settings that a result records beside the spec, such as the variant of the weights that was read."""

    def bind_dataset(self, names: Sequence[str], all_names: Sequence[str]) -> None:
        """Bind the model to a dataset. The evaluation calls this once, before the first batch.

        names: the images of this evaluation, in order. all_names: all images of the dataset. The default does nothing;
        models that depend on the image names override it. Raises AdapterError if the model does not fit the dataset.
        """
        return

    def bind_rate(self, rate: int) -> None:
        """Bind the model to waveforms of `rate` samples a second. The evaluation calls this once, before the first
        batch of waveforms.

        The default does nothing. Raises NotApplicable if the model does not take waveforms of this rate.
        """
        return


class PrecomputedImages(ImageModel):
    """A model whose tokens cannot be read: reconstructions computed by another program, or an autoencoder stored as one
    network."""

    @abstractmethod
    def reconstruct(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Return the reconstructions of `images` (B, 3, H, W), in the same shape and in the range `spec.range`.

        Values outside the range are clamped afterwards. names: the name of each image.
        """

    def samples(self, positions: Sequence[int]) -> Tensor:
        """Return the samples at these positions as float32 (B, 3, H, W) in [0, 1]. Samples have no reference images.

        Raises NotApplicable if the model has no images without a reference.
        """
        raise NotApplicable(f"{self.spec.name}: it reconstructs images and has no samples without reference images")


class Tokenizer(ImageModel):
    """An encoder and a decoder. The evaluation decodes images from the tokens alone."""

    @abstractmethod
    def encode(self, images: Tensor) -> Tokens:
        """Return the tokens of `images`, float32 (B, 3, H, W) in `spec.range`, with a height and width that the spec
        allows."""

    @abstractmethod
    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        """Return the images (B, 3, H, W), in `spec.range`, that the tokens represent.

        seeds: one integer per image. A decoder that samples must draw its noise from these seeds only.
        """

    def vectors(self, tokens: Tokens) -> Tensor:
        """Return the tokens as vectors, floats (B, *position, D), one for each position. The metric `probe` reads them.

        This method returns latents, with the channels moved to the last axis if they come first. A class with codes
        overrides it and looks them up. Raises NotApplicable for codes and for codecs, and for a grid whose channels can
        be first or last (`with_layout`).
        """
        if self.spec.kind != "continuous":
            what = "a codec has no vectors" if self.spec.kind == "codec" else "it does not define vectors of its codes"
            raise NotApplicable(f"{self.spec.name}: {what}; a class that overrides `vectors` has them")
        latents = tokens.tensor.float()
        count = max(1, int(tokens.length.max()))
        channels, rest = divmod(latents[0].numel(), count)
        if rest or latents.dim() < 2:
            raise NotApplicable(f"{self.spec.name}: latents {tuple(latents.shape[1:])} are not {count} vectors")
        if latents.dim() == 4 and latents.shape[1] == latents.shape[3] == channels:
            channels_last = self.with_layout(tokens).single_stream().channels_last
            if channels_last is None:
                raise NotApplicable(f"{self.spec.name}: {unknown_layout(latents.shape[1:])}")
            return latents if channels_last else latents.movedim(1, -1)
        if latents.shape[-1] == channels:
            return latents
        if latents.shape[1] == channels:
            return latents.movedim(1, -1)
        return latents.reshape(len(latents), count, channels)

    def with_layout(self, tokens: Tokens) -> Tokens:
        """Return tokens whose latents (B, n, m, n) state whether their channels come last.

        A small image of 2 by 3 tokens is encoded to find it. Tokens are returned as they are if their shape shows the
        layout, if they state it, or if the tokenizer takes images of one size only or has no grid.
        """
        name, stream = next(iter(tokens.streams.items()))
        data, step = stream.data, self.spec.downsample
        if len(tokens.streams) > 1 or stream.kind != "latent" or stream.channels_last is not None:
            return tokens
        if not isinstance(data, Tensor) or data.dim() != 4 or data.shape[1] != data.shape[3]:
            return tokens
        if step is None or self.spec.size is not None:
            return tokens
        unit = math.lcm(step, self.spec.multiple)
        grid = 2 * unit // step, 3 * unit // step
        blank = torch.zeros(1, 3, 2 * unit, 3 * unit, device=data.device) + sum(self.spec.range) / 2
        with torch.inference_mode():
            shape = tuple(self.encode(blank).tensor.shape)
        channels_last = shape[1:3] == grid
        if channels_last == (shape[2:] == grid):
            return tokens
        return replace(tokens, streams={name: replace(stream, channels_last=channels_last)})

    def swap(self, tokens: Tokens, others: Tokens) -> Tokens:
        """Return `tokens` with the holistic tokens, those of the whole image, of `others`, image by image.

        Both are tokens of B images. Raises NotApplicable if the tokenizer has no holistic tokens beside local ones.
        """
        raise NotApplicable(f"{self.spec.name}: it has no holistic tokens that could be those of another image")

    def perturber(self, anchor: Anchor) -> Perturber:
        """Return the object that perturbs these tokens around `anchor`. Raises NotApplicable if they cannot be
        perturbed."""
        if self.spec.kind == "continuous":
            return LatentNoise(self.spec.name, self.encode, anchor)
        codec = self.spec.kind == "codec"
        why = "a codec has no codes to perturb" if codec else "it does not define a distance between its codes"
        raise NotApplicable(
            f"{self.spec.name}: {why}; continuous tokens, the tokens of a LearnedTokenizer, and the tokens of a class "
            "that overrides `perturber` can be perturbed"
        )


class Generator(ImageModel):
    """A prior over the tokens of a tokenizer. It maps class labels and seeds to tokens, which that tokenizer decodes.

    classes: the number of classes; labels are 0 to classes - 1, and 1 means a generator without labels. guidance: the
    default scale of classifier-free guidance; 1 is plain conditional sampling. factors: the parts of a label
    (`content`, `style`) and their numbers of values, where a label is a combination of independent parts; the last part
    varies fastest. `spec` is the spec of the tokenizer, with the name of the generator.
    """

    tokenizer: Tokenizer
    classes: int
    guidance: float = 1.0
    factors: Mapping[str, int] = MappingProxyType({})

    @abstractmethod
    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tokens:
        """Return the tokens of B samples, in the form that the tokenizer's `encode` returns.

        labels: int64 (B,) on the device. seeds: one integer per image; the noise of an image must be drawn from its
        seed only. guidance: the scale of classifier-free guidance.
        """

    def num_function_evaluations(self, guidance: float) -> float | None:
        """Return the number of passes through the whole network per sample, or None if it is unknown."""
        return None
