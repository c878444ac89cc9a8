"""meditok: product codebooks for medical images, aligned in two stages (Ma et al., MedITok, arXiv:2505.19225)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tokbench.data.sources.synthetic import SyntheticSource
from tokbench.data.vocabulary import encode_captions
from tokbench.errors import AdapterError
from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.conv import WIDTHS
from tokbench.nn.losses import contrast
from tokbench.nn.quantizers.product import ProductVQ
from tokbench.nn.teacher import DIM, SemanticTeacher
from tokbench.nn.text import RandomTextEncoder, pool_words
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

PHANTOMS = 24_000
"""Largest number of training images that are drawn, those of the dataset phantoms-train."""
SIDE, TEXT_WIDTH = 8, 64
VISUAL, TEXT = 0.01, 0.1
"""Weights of the contrast with image features and with captions, a tenth of the paper's, as is that of the perceptual
loss."""
SECOND_STAGE = 0.5
"""Share of the training after which the second stage begins."""
STAGES = {"staged": (("visual",), ("text",)), "joint": (("visual", "text"),) * 2, "visual": (("visual",),) * 2}
"""Which contrasts each kind of alignment has in the first and in the second stage."""


class MedITok(ConvAutoencoder):
    """A convolutional autoencoder with product codebooks, whose pooled vectors are aligned by contrast.

    The visual contrast is with the pooled features of a frozen network of the same image, that of the text with its
    caption, by a fixed random text encoder. alignment: a key of STAGES. phantoms: whether head phantoms replace the
    training images, as many but at most PHANTOMS. widths, stem, linear: see `ConvAutoencoder`.
    """

    kept_out = ("to_visual.", "to_text.", "text.", "temperatures")

    def __init__(
        self,
        bottleneck: ProductVQ,
        alignment: str,
        phantoms: bool,
        widths: Sequence[int] = WIDTHS,
        stem: int = 2,
        linear: bool = False,
    ) -> None:
        super().__init__(bottleneck, widths, stem, linear)
        self.alignment, self.phantoms = alignment, phantoms

    def ready(self, device: str) -> None:
        super().ready(device)
        self.to_visual = nn.Linear(self.bottleneck.dim, DIM).to(device)
        self.to_text = nn.Linear(self.bottleneck.dim, TEXT_WIDTH).to(device)
        self.text = RandomTextEncoder(TEXT_WIDTH).to(device)
        self.temperatures = nn.Parameter(torch.full((2,), 2.0, device=device))

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        """Draw the phantoms, if it is trained on them, and add the frozen network's features.

        Raises AdapterError if the images have no captions.
        """
        if self.phantoms:
            source = SyntheticSource("phantoms", "train", min(PHANTOMS, len(data)))
            described = [source.describe(position) for position in range(len(source.names))]
            drawn = [torch.from_numpy(source.recipe.draw(phantom)).permute(2, 0, 1) for phantom in described]
            captions = encode_captions([source.recipe.caption_of(phantom) for phantom in described])
            data = TrainingData(torch.stack(drawn).to(data.pixels.device), captions=captions)
        if data.captions is None:
            raise AdapterError("it is trained with captions; use a dataset with captions, such as tiny-imagenet-train")
        return SemanticTeacher(SIDE).features_of(replace(data, labels=None), device, progress)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        assert batch.features is not None and batch.captions is not None, "prepare_data adds both"
        vectors, own = self.squeeze(self.latents(batch.images), progress)
        terms = self.compare(self.pixels(vectors), batch.images, progress) | {"bottleneck": own}
        pooled, scales = vectors.mean((1, 2)), self.temperatures.exp()
        present = STAGES[self.alignment][progress >= SECOND_STAGE]
        if "visual" in present:
            itself = torch.eye(len(pooled), dtype=torch.bool, device=pooled.device)
            terms["visual"] = VISUAL * contrast(self.to_visual(pooled), batch.features.mean(1), itself, scales[0])
        if "text" in present:
            same = (batch.captions[:, None] == batch.captions[None]).all(2)
            terms["text"] = TEXT * contrast(
                self.to_text(pooled), pool_words(self.text(batch.captions)), same, scales[1]
            )
        return terms


def model(variant: AdapterConfig) -> MedITok:
    """Build the untrained model that a TOML file describes. Raises AdapterError for an unknown kind of alignment."""
    given = dict(variant.config["model"])
    if given["alignment"] not in STAGES:
        kinds = ", ".join(STAGES)
        raise AdapterError(f"{variant.name}: its alignment is {given['alignment']!r}; give one of {kinds}")
    return MedITok(ProductVQ(**given.pop("quantizer")), **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
