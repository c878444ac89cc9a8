"""longtextar: TextBinarizer, binary codes for images of long text (Wang et al., Beyond Words, arXiv:2503.20198)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tokbench.errors import AdapterError
from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.conv import WIDTHS
from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.quantizers.lfq import LFQ
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingData
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

from .pages import with_pages

QUANTIZERS: dict[str, type[Quantizer]] = {"sign": LFQ, "vq": VectorQuantizer, "fsq": FSQ}


class TextBinarizer(ConvAutoencoder):
    """A convolutional autoencoder that is trained on a mixture of photos and pages of rendered text.

    text: share of the training images that are replaced by pages of text. widths, stem, linear: see `ConvAutoencoder`.
    """

    def __init__(
        self, bottleneck: Quantizer, text: float, widths: Sequence[int] = WIDTHS, stem: int = 2, linear: bool = False
    ) -> None:
        super().__init__(bottleneck, widths, stem, linear)
        self.text = text

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        return replace(data, pixels=with_pages(data.pixels, self.text), labels=None)


def model(variant: AdapterConfig) -> TextBinarizer:
    """Build the untrained model that a TOML file describes.

    Raises AdapterError for an unknown kind of quantizer, or a share of text outside 0 to 1.
    """
    given = dict(variant.config["model"])
    quantizer = dict(given.pop("quantizer"))
    kind = quantizer.pop("kind")
    if kind not in QUANTIZERS:
        raise AdapterError(f"{variant.name}: its quantizer's kind is {kind!r}; give one of {', '.join(QUANTIZERS)}")
    if not 0 <= given["text"] <= 1:
        raise AdapterError(f"{variant.name}: text is {given['text']}; give a share of the images from 0 to 1")
    return TextBinarizer(QUANTIZERS[kind](**quantizer), **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
