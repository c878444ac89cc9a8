"""style_tokenizer: tokens of an image's style among the words of a caption (Li et al., arXiv:2409.02543)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from tokbench.data.synthetic.styled import CLASSES, CONTENTS, SIDE, STYLES, Styled, content_caption, draw, make_styled
from tokbench.data.vocabulary import encode_captions
from tokbench.errors import AdapterError
from tokbench.tokenizers.base import Generator, Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens
from tokbench.training.zoo import base, load_trained

from .model import StyleModel, from_patches, to_patches


class Patches(Tokenizer):
    """An image of 32 x 32 px as its patches, without a network; the generator samples them."""

    def __init__(self, name: str, patch: int) -> None:
        self.patch, self.count = patch, (SIDE // patch) ** 2
        self.spec = TokenizerSpec(
            name,
            kind="continuous",
            range=(-1.0, 1.0),
            size=SIDE,
            num_tokens=self.count,
            bits_per_token=16.0 * 3 * patch**2,
        )

    def encode(self, images: Tensor) -> Tokens:
        return Tokens.from_latents(to_patches(images, self.patch), tokens=self.count)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return from_patches(tokens.tensor.float(), self.patch)


class StyleGenerator(Generator):
    """Samples of 12 contents in 8 styles. The content is given as a caption, the style by an image of that style.

    The style image is drawn by `tokbench.data.synthetic.styled` and has another content than the sample; its content,
    tints and places follow from the seed of the sample. steps: number of Euler steps. guidance: the scale of the text.
    style_guidance: the scale of the style.
    """

    classes = CLASSES
    factors = MappingProxyType({"content": len(CONTENTS), "style": len(STYLES)})

    def __init__(self, name: str, model: StyleModel, steps: int, guidance: float, style_guidance: float) -> None:
        self.model, self.module, self.tokenizer = model, model, Patches(name, model.patch)
        self.steps, self.guidance, self.style_guidance = steps, guidance, style_guidance
        self.spec = replace(self.tokenizer.spec, name=name)

    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tokens:
        contents = (labels // len(STYLES)).tolist()
        captions = encode_captions([content_caption(content) for content in contents]).to(labels.device)
        pairs = zip(labels.tolist(), seeds, strict=True)
        styles = torch.from_numpy(np.stack([draw(style_image(label, seed)) for label, seed in pairs]))
        styles = styles.to(labels.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        rows = self.model.sample(captions, styles, seeds, self.steps, (guidance, self.style_guidance))
        return Tokens.from_latents(rows, tokens=self.tokenizer.count)

    tokenizer: Patches

    def num_function_evaluations(self, guidance: float) -> float:
        weights = 1 - guidance, guidance - self.style_guidance, self.style_guidance
        return float(self.steps * sum(weight != 0 for weight in weights))


def style_image(label: int, seed: int) -> Styled:
    """Return an image (`Styled`) of the style of `label` with another content, chosen by the seed."""
    content, style = divmod(label, len(STYLES))
    other = (content + 1 + seed % (len(CONTENTS) - 1)) % len(CONTENTS)
    return make_styled("reference", seed, other * len(STYLES) + style)


def model(variant: AdapterConfig) -> StyleModel:
    """Build the untrained model. Raises AdapterError if the TOML describes none."""
    return StyleModel(**variant.config["model"])


def load(variant: AdapterConfig, device: str) -> StyleGenerator:
    """Load the trained generator, or that of the TOML's `base`, with this TOML's scales of guidance.

    Raises MissingWeights if it is not trained, AdapterError if the scale of the style is not positive.
    """
    config = variant.config
    if not config["style_guidance"] > 0:
        raise AdapterError(f"{variant.name}: style_guidance is {config['style_guidance']}; it must be above 0")
    trained = base(variant, StyleModel) if "base" in config else load_trained(variant, model(variant))
    return StyleGenerator(variant.name, trained, config["steps"], config["guidance"], config["style_guidance"])
