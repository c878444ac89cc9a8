"""robustok: a tokenizer trained with latent perturbation (Qiu et al., arXiv:2503.08354 and arXiv:2509.12474)."""

from __future__ import annotations

from torch import Tensor

from tokbench.nn.autoencoders import GridAutoencoder
from tokbench.nn.perturb import replace_codes
from tokbench.nn.quantizers.quantizer import straight_through
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

STRENGTH = 0.025
"""Number of nearest codes to draw from, as a share of the codebook; the authors train with 100 of 4,096."""


class RobusTok(GridAutoencoder):
    """An autoencoder with latent perturbation in training.

    In the share `share` of each batch, tokens are replaced by one of their nearest codes. Between 20 % and 60 % of the
    training, the replacement probability decreases from 1 to 1/2, and the number of codes to draw from by half. The
    perturbation follows the codebook losses and has a straight-through gradient. share 0 is the ablation.
    """

    def __init__(self, shape: Shape, quantizer: VectorQuantizer, share: float, linear: bool = False) -> None:
        super().__init__(shape, shape, quantizer, linear)
        self.share = share

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        latents = self.latents(batch.images)
        vectors, own = self.squeeze(latents, progress)
        if count := int(self.share * len(latents)):
            assert isinstance(self.bottleneck, VectorQuantizer)
            probability = 1 - 0.5 * min(max((progress - 0.2) / 0.4, 0.0), 1.0)
            delta = max(1, int(probability * STRENGTH * self.bottleneck.codebook_size))
            selected = latents[:count]
            changed = self.bottleneck.lookup(replace_codes(self.bottleneck, selected, probability, delta))
            vectors = vectors.clone()
            # The gradient goes where that of the clean tokens goes: through the normalisation, if there is one.
            vectors[:count] = straight_through(self.bottleneck.unquantized(selected), changed).to(vectors.dtype)
        return self.compare(self.pixels(vectors), batch.images, progress) | {"bottleneck": own}


def model(variant: AdapterConfig) -> RobusTok:
    """Build the untrained model that a TOML file describes."""
    given = variant.config["model"]
    return RobusTok(
        Shape(**given["shape"]), VectorQuantizer(**given["quantizer"]), given["share"], given.get("linear", False)
    )


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
