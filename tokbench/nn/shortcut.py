"""Linear paths from images to latents and back, which are fitted before the training and added to the networks.

An autoencoder whose networks start at zero then reconstructs like PCA, or like k-means of PCA coefficients, before its
first step, and its networks learn what a linear map cannot do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.quantizers.bottleneck import Bottleneck
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.quantizers.quantizer import Quantizer

RIDGE = 1e-4
"""Ridge of the regressions, as a share of the mean variance of its inputs."""

NO_VARIANCE = 1e-6
"""Share of the largest variance up to which a component counts as constant: its latents stay at 0."""

LOG_VARIANCE = -6.0
"""Initial log-variance of the latents of a KL bottleneck, whose means have unit variance."""


class Shortcut(nn.Module, ABC):
    """A linear encoder and a linear decoder around a bottleneck.

    Images are cut into vectors by `cut`; `into` maps a vector to the inputs of the bottleneck, `out` maps outputs of
    the bottleneck to a vector, from which `paste` makes an image. Subclasses define what a vector is. Both maps stay as
    they are fitted: the networks learn the difference. positions: the number of positions of the bottleneck in one
    vector. values: the number of values in one vector.
    """

    def __init__(self, bottleneck: Bottleneck, values: int, positions: int = 1) -> None:
        super().__init__()
        channels = bottleneck.dim * (2 if isinstance(bottleneck, KL) else 1)
        self.positions = positions
        self.into, self.out = nn.Linear(values, positions * channels), nn.Linear(positions * bottleneck.dim, values)
        for parameter in self.parameters():
            nn.init.zeros_(parameter.requires_grad_(False))

    @abstractmethod
    def cut(self, images: Tensor) -> Tensor:
        """Cut images (B, 3, H, W) into vectors (B, *grid, values)."""

    @abstractmethod
    def paste(self, vectors: Tensor) -> Tensor:
        """Return the images (B, 3, H, W) of vectors (B, *grid, values), the inverse of `cut` as far as there is one."""

    @torch.no_grad()
    def fit(self, images: Tensor, bottleneck: Bottleneck) -> None:
        """Fit both maps, and the codebook of the bottleneck between them, to images (B, 3, H, W) in [-1, 1]."""
        self.fit_encoder(images, bottleneck)
        latents = self.into(self.cut(images).flatten(0, -2).float()).unflatten(1, (self.positions, -1))
        self.fit_decoder(images, start_bottleneck(bottleneck, latents))

    @torch.no_grad()
    def fit_encoder(self, images: Tensor, bottleneck: Bottleneck, used: int | None = None) -> None:
        """Fit the map from images (B, 3, H, W) to the first `used` values of each latent; the others are 0.

        Latents are the principal components, distributed so that all positions, and all parts with codebooks of their
        own, carry about the same information (as in optimised product quantization, Ge et al.,
        doi:10.1109/TPAMI.2013.240). used: None for the number of values that the bottleneck needs.
        """
        vectors = self.cut(images).flatten(0, -2).float()
        mean, parts = vectors.mean(0), 1
        if used is None:
            used = bottleneck.dim
            if isinstance(bottleneck, Quantizer):
                used, parts = bottleneck.start_dim, bottleneck.start_parts
        directions = components(vectors - mean, self.positions * used, self.positions * parts)
        latents = ((vectors - mean) @ directions).unflatten(1, (self.positions, used))
        scale = self._scale(latents, bottleneck)
        into = (directions.unflatten(1, (self.positions, used)) * scale).permute(1, 2, 0)
        weight = self.into.weight.unflatten(0, (self.positions, -1))
        weight[:, :used] = into
        self.into.bias.copy_(-self.into.weight @ mean)
        if isinstance(bottleneck, KL):
            self.into.bias.unflatten(0, (self.positions, -1))[:, bottleneck.dim :] = LOG_VARIANCE

    @torch.no_grad()
    def fit_decoder(self, images: Tensor, outputs: Tensor) -> None:
        """Fit the map back to images (B, 3, H, W): the ridge regression on outputs of the bottleneck.

        outputs: (M, positions, D) for M vectors.
        """
        fit_ridge(self.out, outputs.flatten(1), self.cut(images).flatten(0, -2))

    @staticmethod
    def _scale(latents: Tensor, bottleneck: Bottleneck) -> Tensor:
        """Return factors (positions, D) that bring latents (M, positions, D) to the scale of the bottleneck.

        They give every value that varies unit variance, or, if the quantizer compares distances between vectors, every
        position unit mean square length.
        """
        variance = latents.var(0)
        if isinstance(bottleneck, Quantizer) and not bottleneck.whitened:
            variance = variance.sum(1, keepdim=True).expand_as(variance)
        # Without variance in these images, a component would only amplify the rounding errors of other images.
        return torch.where(variance > NO_VARIANCE * variance.max(), variance.clamp_min(1e-30).rsqrt(), 0.0)

    def latents(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to the linear part of the bottleneck's inputs, (B, *position, channels)."""
        return self.into(self.cut(images))

    def pixels(self, vectors: Tensor) -> Tensor:
        """Map outputs of the bottleneck (B, *position, D) to the linear part of the images (B, 3, H, W)."""
        return self.paste(self.out(vectors))


class PatchShortcut(Shortcut):
    """Linear maps of patches of `step` px, one latent per patch.

    grid: whether positions are (h, w), for images of any size; otherwise they are one axis in row-major order.
    """

    def __init__(self, bottleneck: Bottleneck, step: int, grid: bool) -> None:
        super().__init__(bottleneck, 3 * step**2)
        self.step, self.grid = step, grid

    def cut(self, images: Tensor) -> Tensor:
        patches = F.pixel_unshuffle(images, self.step).permute(0, 2, 3, 1)
        return patches if self.grid else patches.flatten(1, 2)

    def paste(self, vectors: Tensor) -> Tensor:
        side = round(vectors.shape[1] ** 0.5)
        grid = vectors if self.grid else vectors.unflatten(1, (side, side))
        return F.pixel_shuffle(grid.permute(0, 3, 1, 2), self.step)


class ImageShortcut(Shortcut):
    """Linear maps of whole images of `size` px, averaged to `side` x `side` px, to `count` tokens and back."""

    def __init__(self, bottleneck: Bottleneck, count: int, size: int, side: int = 16) -> None:
        super().__init__(bottleneck, 3 * side**2, count)
        self.size, self.side = size, side

    def cut(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, self.side).flatten(1)

    def paste(self, vectors: Tensor) -> Tensor:
        small = vectors.unflatten(1, (3, self.side, self.side))
        return F.interpolate(small, size=self.size, mode="bilinear", align_corners=False)

    def latents(self, images: Tensor) -> Tensor:
        return super().latents(images).unflatten(1, (self.positions, -1))

    def pixels(self, vectors: Tensor) -> Tensor:
        """Map the first k vectors (B, k, D) to images (B, 3, size, size); the other tokens count as zero."""
        missing = self.positions - vectors.shape[1]
        return super().pixels(F.pad(vectors, (0, 0, 0, missing)).flatten(1))


@torch.no_grad()
def fit_ridge(layer: nn.Linear, inputs: Tensor, targets: Tensor) -> None:
    """Set a linear layer to the ridge regression of targets (M, values) on inputs (M, D)."""
    inputs, targets = inputs.double(), targets.double()
    centre, mean = inputs.mean(0), targets.mean(0)
    centred = inputs - centre
    products = centred.T @ centred / len(centred)
    ridge = RIDGE * products.diagonal().mean().clamp_min(1e-12)
    solved = torch.linalg.solve(
        products + ridge * torch.eye(len(products), dtype=products.dtype, device=products.device),
        centred.T @ (targets - mean) / len(centred),
    )
    layer.weight.copy_(solved.T)
    layer.bias.copy_(mean - centre @ solved)


@torch.no_grad()
def start_bottleneck(bottleneck: Bottleneck, latents: Tensor) -> Tensor:
    """Choose the first codebook of a bottleneck from latents (M, N, channels); return its outputs (M, N, D)."""
    if isinstance(bottleneck, Quantizer):
        bottleneck.start(latents.flatten(0, 1))
    training = bottleneck.training
    bottleneck.eval()
    outputs = bottleneck(latents)
    bottleneck.train(training)
    return outputs[0] if isinstance(outputs, tuple) else outputs.vectors


def components(vectors: Tensor, count: int, groups: int) -> Tensor:
    """Return the first `count` principal directions (d, count) of centred vectors (M, d), in `groups` equal blocks."""
    variances, directions = torch.linalg.eigh(vectors.double().T @ vectors.double() / len(vectors))
    variances, directions = variances.flip(0)[:count], directions.flip(1)[:, :count]
    return directions[:, balanced(variances, groups)].float()


def balanced(variances: Tensor, groups: int) -> Tensor:
    """Return an order of components, int64 (n,), in which `groups` equal blocks have similar products of variances.

    variances: of the components, decreasing. Each component, in order, goes to the block with the smallest product so
    far that has a free place.
    """
    room, logs = len(variances) // groups, variances.clamp_min(1e-12).log()
    logs = logs - logs.min()  # positive, so that every component makes its block's product larger
    members: list[list[int]] = [[] for _ in range(groups)]
    totals = [0.0] * groups
    for index, log in enumerate(logs.tolist()):
        group = min((g for g in range(groups) if len(members[g]) < room), key=lambda g: totals[g])
        members[group].append(index)
        totals[group] += log
    return torch.tensor([index for group in members for index in group])
