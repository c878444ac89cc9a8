"""rectok: high-dimensional latents that stay decodable under the noise of a flow (Shi et al., RecTok)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tokbench.nn.autoencoders import GridAutoencoder
from tokbench.nn.losses import cosine
from tokbench.nn.patch_masking import scatter_patches, select_patches, visible_patches
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.teacher import DIM, SemanticTeacher
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.nn.vit import Places, Shape, Transformer, random_parameter
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import load_trained

FINE_TUNED_FROM = 2 / 3
"""Share of the training after which only the decoder is trained, on clean latents of all patches."""

RATIOS = (-0.1, 0.4)
"""Range from which the masked share of a batch is drawn uniformly; negative shares count as 0."""

REFERENCE_VALUES = 4096
"""Number of latent values of an image at which noise levels are drawn uniformly; see `RecTok.noise_levels`."""


class RecTok(GridAutoencoder):
    """A transformer VAE whose latents are trained under the noise of a flow that will generate them.

    Both the pixel decoder and a small semantic decoder, which predicts a teacher's features of the clean image, read
    the same latents z_t = (1 - t) z + t noise of an image of which a random share of the patches is masked.

    semantic: weight of 1 - cosine similarity to the teacher's features. noise: whether latents are noised. masked:
    whether patches are masked. 0 and False are the ablations.
    """

    kept_out = ("semantics.",)

    def __init__(
        self, encoder: Shape, decoder: Shape, bottleneck: KL, semantic: float, noise: bool, masked: bool, linear: bool
    ) -> None:
        super().__init__(encoder, decoder, bottleneck, linear)
        self.semantic, self.noise, self.masked = semantic, noise, masked
        self.shape, self.mask_token = encoder, random_parameter(decoder.width)

    def ready(self, device: str) -> None:
        super().ready(device)
        if self.semantic:
            self.semantics = SemanticDecoder(self.bottleneck.dim, self.shape).to(device)

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        return SemanticTeacher(self.shape.side).features_of(data, device, progress) if self.semantic else data

    def latents_of(self, images: Tensor, patches: Tensor) -> Tensor:
        """Encode the patches `patches`, int64 (B, K), of images (B, 3, H, W) to inputs of the bottleneck, (B, K, 2 D).

        The encoder does not see the other patches.
        """
        seen = select_patches(self.encoder.patches(images), patches)
        encoded = self.encoder.head(self.encoder.body(seen))
        return encoded if self.shortcut is None else encoded + select_patches(self.shortcut.latents(images), patches)

    def noise_levels(self, batch: int) -> Tensor:
        """Draw a noise level t for each image, (B, 1, 1), in [0, 1].

        A uniform t is shifted to s t / (1 + (s - 1) t) with s = sqrt(values / 4096), where `values` is the number of
        latent values of an image: the more values, the more noise is needed to hide the image (SD3, arXiv:2403.03206).
        """
        shift = (self.shape.patches * self.bottleneck.dim / REFERENCE_VALUES) ** 0.5
        level = torch.rand(batch, 1, 1)
        return shift * level / (1 + (shift - 1) * level)

    def pixels_of(self, vectors: Tensor, visible: Tensor) -> Tensor:
        """Decode latents (B, N, D) of which only those where `visible` (B, N) is True are known; the others are 0."""
        embedded = torch.where(visible[..., None], self.decoder.places.embed(vectors), self.mask_token)
        features = self.decoder.body(embedded + self.decoder.places.positions)
        return self.decoder.pixels(features) + self.linear_pixels(vectors)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        images = batch.images
        if progress >= FINE_TUNED_FROM:
            with torch.no_grad():
                vectors = self.latents(images).float().chunk(2, dim=-1)[0]  # the posterior's means, as in evaluation
            return self.compare(self.pixels(vectors), images, progress)
        low, high = RATIOS
        ratio = max(0.0, low + (high - low) * float(torch.rand(()))) if self.masked else 0.0
        patches = visible_patches(len(images), self.shape.patches, ratio, images.device)
        vectors, own = self.squeeze(self.latents_of(images, patches))
        if self.noise:
            level = self.noise_levels(len(images)).to(images.device)
            vectors = (1 - level) * vectors + level * torch.randn_like(vectors)
        vectors, visible = scatter_patches(vectors, patches, self.shape.patches)
        terms = self.compare(self.pixels_of(vectors, visible), images, progress) | {"bottleneck": own}
        if self.semantic:
            assert batch.features is not None, "prepare_data adds the teacher's features"
            terms["semantic"] = self.semantic * cosine(self.semantics(vectors, visible), batch.features)
        return terms


class SemanticDecoder(nn.Module):
    """A transformer of one block that predicts the teacher's features (B, N, DIM) from latents (B, N, D).

    It is small, so that the semantics have to be in the latents. Only the training uses it.
    """

    def __init__(self, dim: int, shape: Shape) -> None:
        super().__init__()
        self.places, self.mask_token = Places(dim, shape), random_parameter(shape.width)
        self.body, self.head = Transformer(shape.width, 1, shape.heads), nn.Linear(shape.width, DIM)

    def forward(self, vectors: Tensor, visible: Tensor) -> Tensor:
        """Predict features from latents (B, N, D), of which those where `visible` (B, N) is False are unknown."""
        embedded = torch.where(visible[..., None], self.places.embed(vectors), self.mask_token)
        return self.head(self.body(embedded + self.places.positions))


def model(variant: AdapterConfig) -> RecTok:
    """Build the untrained model that a TOML file describes."""
    given = dict(variant.config["model"])
    bottleneck = KL(given.pop("channels"), weight=given.pop("weight"))
    encoder, decoder = Shape(**given.pop("encoder")), Shape(**given.pop("decoder"))
    return RecTok(encoder, decoder, bottleneck, **given)


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the trained tokenizer. Raises MissingWeights if it is not trained."""
    return LearnedTokenizer(variant.name, load_trained(variant, model(variant)))
