"""vat3d: a variational tokenizer of shapes with residual codes at growing scales and a triplane decoder (VAT, "3D
Representation in 512-Byte", arXiv:2412.02202)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.metric_names import Modality
from tokbench.nn.autoencoders import bottleneck_channels
from tokbench.nn.quantizers.bottleneck import Deterministic
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.quantizers.residual import SequenceVQ
from tokbench.nn.tokenizer import BottleneckAutoencoder, LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import MaskDecoder, QueryEncoder, Shape, random_parameter, sincos_positions
from tokbench.nn.voxels import TriplaneHead, VoxelPatches
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

POINTS = 2048
"""Number of voxels per shape whose occupancy is compared in a training step."""


class VAT3D(BottleneckAutoencoder):
    """An autoencoder of voxels (B, 4, D, D, D): latents are read by queries, and decoded to three planes.

    encoder: the transformer over patches of `encoder.patch` voxels and queries; D is its size. decoder: the transformer
    over latents and the positions of three planes, each of which is a square of `decoder.patch` voxels. posterior: the
    distribution of the latents, from which the quantizer's input is drawn in training; its mean is used in evaluation.
    quantizer: it has one latent per position of its finest scale. channels: values per cell of a plane.
    """

    perceptual = 0.0  # its network takes images
    modalities: tuple[Modality, ...] = ("shape",)
    bottleneck: SequenceVQ

    def __init__(
        self, encoder: Shape, decoder: Shape, posterior: KL | Deterministic, quantizer: SequenceVQ, channels: int
    ) -> None:
        super().__init__()
        assert encoder.size == decoder.size, "the encoder and the decoder must have one grid"
        self.size, self.step, self.tokens = encoder.size, encoder.patch, quantizer.positions
        latents = quantizer.lengths[-1]
        patches = VoxelPatches(encoder.size, encoder.patch, encoder.width)
        self.encoder = QueryEncoder(encoder, latents, bottleneck_channels(posterior), patches=patches)
        self.posterior, self.bottleneck = posterior, quantizer
        planes = sincos_positions(decoder.side, decoder.width) + random_parameter(3, 1, decoder.width)
        positions = nn.Parameter(planes.detach().flatten(0, 1))  # of cell and plane in one parameter
        self.decoder = MaskDecoder(decoder, latents, quantizer.dim, positions)
        self.head = TriplaneHead(decoder.width, decoder.side, decoder.patch, channels)

    def encoded(self, images: Tensor) -> Tensor:
        return self.posterior(self.encoder(images))[0]

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Decode (B, N, D) to voxels (B, 4, D, D, D) in [-1, 1]; the colours of empty voxels are -1."""
        values = self.head(self.decoder(vectors)).float()
        occupancy, colours = values[:, :1], values[:, 1:]
        return torch.cat([(occupancy / 2).tanh(), torch.where(occupancy > 0, (colours / 2).tanh(), -1.0)], 1)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        """Return the cross-entropy of the occupancy, half of it in voxels near the surface, the squared error of the
        colours of occupied ones, and the losses of posterior and quantizer."""
        latents, divergence = self.posterior(self.encoder(batch.images))
        vectors, own = self.squeeze(latents, progress)
        points = near_and_far(batch.images[:, :1] > 0, POINTS)
        values = self.head.at(self.decoder(vectors), points).float()
        wanted = batch.images.flatten(2).gather(2, points[:, None].expand(-1, 4, -1)).transpose(1, 2)
        occupied = (wanted[..., :1] > 0).float()
        errors = ((values[..., 1:] / 2).tanh() - wanted[..., 1:]).square() * occupied
        return {
            "occupancy": F.binary_cross_entropy_with_logits(values[..., :1], occupied),
            "colour": errors.sum() / (3 * occupied.sum()).clamp(min=1),
            "divergence": divergence,
            "bottleneck": own,
        }


def near_and_far(occupied: Tensor, count: int) -> Tensor:
    """Draw `count` voxels for each of the grids (B, 1, D, D, D), with replacement: half of them, on average, from the
    occupied voxels and their 26 neighbours, and half from all. Return their flat indices, int64 (B, count)."""
    near = F.max_pool3d(occupied.float(), 3, stride=1, padding=1).flatten(1)
    shares = near / near.sum(1, keepdim=True).clamp(min=1) + 1 / near.shape[1]
    return torch.multinomial(shares, count, replacement=True)


def model(variant: AdapterConfig) -> VAT3D:
    """Build the untrained model that a TOML file describes; without `divergence` it has no noise."""
    given = variant.config["model"]
    quantizer = SequenceVQ(**given["quantizer"])
    weight = given.get("divergence")
    posterior = Deterministic(quantizer.dim) if weight is None else KL(quantizer.dim, weight)
    return VAT3D(Shape(**given["encoder"]), Shape(**given["decoder"]), posterior, quantizer, given["channels"])


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)), prefixes=True)
