"""robustok: a decoder that is trained on tokens that are near misses (Qiu et al., arXiv:2503.08354, 2509.12474)."""

from __future__ import annotations

from torch import Tensor

from tokbench.nn.autoencoders import GridAutoencoder
from tokbench.nn.perturb import replaced
from tokbench.nn.quantizers.quantizer import straight_through
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

STRENGTH = 0.025
"""Nearest codes among which a replacement is drawn, as a share of the codebook: the authors train with 100 of 4096."""


class RobusTok(GridAutoencoder):
    """Latent perturbation: in the first `share` of each batch every token is replaced, with a chance that falls from 1
    to 1/2, by one of its nearest codes, whose number falls by half, too; over 20 to 60 % of the training.

    It comes after the losses of the codebook, and its gradient passes straight through. share 0: the ablated twin.
    """

    def __init__(self, shape: Shape, quantizer: VectorQuantizer, share: float) -> None:
        super().__init__(shape, shape, quantizer)
        self.share = share

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        latents = self.latents(batch.images)
        vectors, own = self.squeeze(latents)
        if first := int(self.share * len(latents)):
            assert isinstance(self.bottleneck, VectorQuantizer)
            kept = 1 - 0.5 * min(max((progress - 0.2) / 0.4, 0.0), 1.0)
            nearby = max(1, int(kept * STRENGTH * self.bottleneck.codebook_size))
            some = latents[:first]
            changed = self.bottleneck.lookup(replaced(self.bottleneck, some, kept, nearby))
            vectors = vectors.clone()
            vectors[:first] = straight_through(some, changed).to(vectors.dtype)
        return self.compare(self.pixels(vectors), batch.images, progress) | {"bottleneck": own}


def model(variant: AdapterConfig) -> RobusTok:
    given = variant.config["model"]
    return RobusTok(Shape(**given["shape"]), VectorQuantizer(**given["quantizer"]), given["share"])


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Raises MissingWeights where it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
