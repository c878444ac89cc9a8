"""The interface of quantizers, which map latents to indices and indices to the inputs of the decoder.

Latents are (B, N, D): N positions with D values each. A position has G indices, one per codebook ("group"): one with a
plain codebook, several with product quantization, groups of bits, or levels of residual quantization. Quantizers
compute in float32 even under autocast, since an index must not depend on the precision of the surrounding networks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Gradient = Literal["straight-through", "rotation"]


@dataclass(frozen=True)
class Quantized:
    """The output of a quantizer for latents (B, N, D).

    vectors: float32 (B, N, D), the decoder's input, equal to `lookup(indices)`; gradients flow to the latents.
    indices: int64 (B, N, G). loss: a scalar, the weighted sum of the quantizer's terms of the training loss.
    statistics: detached scalars for monitoring.
    """

    vectors: Tensor
    indices: Tensor
    loss: Tensor
    statistics: dict[str, Tensor]


class Quantizer(nn.Module, ABC):
    """D = `dim` values and G = `groups` indices per position, each index into K = `codebook_size` entries.

    used_from: the share of the training after which the decoder's input is quantized; before, it is `unquantized`. If
    1D tokens are quantized from the first step, training stalls: the latents match their codebook entries before either
    carries information about the image. The caller (`tokbench.nn.tokenizer`) applies this.
    whitened: whether latents should start with unit variance in every value; otherwise the variances of the values
    keep their ratios and add up to 1, which suits quantizers that compare distances between vectors. start_parts: the
    number of equal parts of a latent that have codebooks of their own. positions: the number M of positions of the
    indices (B, M, G) and of their anchors if it differs from that of the latents, else None.
    """

    dim: int
    groups: int
    codebook_size: int
    used_from: float = 0.0
    whitened = True
    start_parts = 1
    positions: int | None = None

    @property
    def start_dim(self) -> int:
        """Number of values of a latent that `tokbench.nn.shortcut` fills; the others start at 0."""
        return self.dim

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """Choose the first codebook from latents (M, D) of training images; by default there is nothing to choose."""
        return

    def segments(self, values: Tensor) -> Sequence[tuple[Quantizer, Tensor]]:
        """Cut latents (B, N, D) or indices (B, N, G) into consecutive positions that share codebooks.

        Each part (B, n, ...) comes with its quantizer. By default all positions have the same codebooks.
        """
        return [(self, values)]

    @abstractmethod
    def forward(self, latents: Tensor) -> Quantized:
        """Quantize latents (B, N, D). In training this may also update codebooks that are not learned by gradient."""

    def unquantized(self, latents: Tensor) -> Tensor:
        """Return the continuous counterpart (B, N, D) of the vectors, without choosing indices.

        By default it is the latents (B, N, D) themselves, which the vectors approximate.
        """
        return latents

    @abstractmethod
    def lookup(self, indices: Tensor) -> Tensor:
        """Map indices int64 (B, N, G) to vectors (B, N, D), using the codebooks alone."""

    @abstractmethod
    def table(self) -> Tensor:
        """Return the entries of all codebooks (G, K, d), in the space in which the nearest one is chosen."""

    @abstractmethod
    def anchors(self, latents: Tensor) -> Tensor:
        """Map latents (B, N, D) to the space of `table`, (B, N, G, d), where the nearest entry is the chosen one."""


def exact(like: Tensor) -> torch.autocast:
    """Return a context that disables autocast on the device of `like`, so that products keep their precision."""
    return torch.autocast(like.device.type, enabled=False)


def straight_through(latents: Tensor, vectors: Tensor) -> Tensor:
    """Return exactly `vectors`, with the gradient of `latents` (straight-through estimator, arXiv:1308.3432)."""
    # This difference is exactly zero; latents + (vectors - latents) would have a rounding error.
    return vectors.detach() + (latents - latents.detach())


def rotation(latents: Tensor, vectors: Tensor) -> Tensor:
    """Return exactly `vectors` (..., D), with gradients through the rotation that maps latents (..., D) to them.

    This is the rotation trick (Fifty et al., arXiv:2410.06424). The rotation and the scale from a latent to its vector
    count as constants, so the angle between the gradient and the vector equals the angle between the latent's gradient
    and the latent.
    """
    source, target = latents.detach(), vectors.detach()
    length = source.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    start, end = source / length, F.normalize(target, dim=-1)
    # The rotation in the plane of start and end is two reflections: first in their bisector, then in the end.
    bisector = F.normalize(start + end, dim=-1)
    rotated = latents - 2 * bisector * (bisector * latents).sum(-1, keepdim=True)
    rotated = rotated + 2 * end * (start * latents).sum(-1, keepdim=True)
    rotated = rotated * (target.norm(dim=-1, keepdim=True) / length)
    return straight_through(rotated, target)


GRADIENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"straight-through": straight_through, "rotation": rotation}


def distances(anchors: Tensor, table: Tensor) -> Tensor:
    """Return squared Euclidean distances, float32 (B, N, G, K), of anchors (B, N, G, d) to a table (G, K, d)."""
    anchors, table = anchors.float(), table.float()
    if table.shape[-1] == 1:  # the expanded square would lose the precision that closely spaced scalars need
        return (anchors - table[..., 0]).square()
    with exact(anchors):
        products = torch.einsum("bngd,gkd->bngk", anchors, table)
    return anchors.square().sum(-1, keepdim=True) - 2 * products + table.square().sum(-1)


def nearest(anchors: Tensor, table: Tensor, count: int = 1) -> Tensor:
    """Return the `count` entries of each group's table (G, K, d) nearest to anchors (B, N, G, d), nearest first.

    The result is int64 (B, N, G, count), by squared Euclidean distance in float32. With `count` 1 ties go to the lowest
    index; otherwise they are ordered as by `torch.topk`.
    """
    with torch.no_grad():
        gaps = distances(anchors, table)
        return gaps.argmin(-1, keepdim=True) if count == 1 else gaps.topk(count, dim=-1, largest=False).indices


def matching_loss(latents: Tensor, vectors: Tensor, commitment: float, learned: bool = True) -> Tensor:
    """Return VQ-VAE's codebook and commitment losses (arXiv:1711.00937), a scalar.

    It is `commitment` times the mean squared error with gradients to the latents, plus, if the codebook is `learned` by
    gradient, the mean squared error with gradients to the vectors.
    """
    loss = commitment * F.mse_loss(latents, vectors.detach())
    return loss + F.mse_loss(vectors, latents.detach()) if learned else loss


def entropy_loss(gaps: Tensor, temperature: float) -> Tensor:
    """Return the entropy loss of MAGVIT-v2 (arXiv:2310.05737) in nats, a scalar between -log K (best) and 0.

    With p = softmax(-gaps / temperature), gaps (B, N, G, K) being distances, it is the mean entropy of p at a position
    minus the entropy of the mean of p over all positions, averaged over groups. It rewards confident choices and even
    use of the codebook.
    """
    log_probabilities = F.log_softmax(-gaps / temperature, dim=-1)
    probabilities = log_probabilities.exp()
    mean_entropy = -(probabilities * log_probabilities).sum(-1).mean()
    mean = probabilities.mean((0, 1))
    entropy_of_mean = -(mean * mean.clamp_min(1e-8).log()).sum(-1).mean()  # clamped: the gradient at 0 is infinite
    return mean_entropy - entropy_of_mean


def count_codes(indices: Tensor, codebook_size: int) -> Tensor:
    """Count how often every entry occurs in indices (..., G); int64 (G, K)."""
    rows = indices.flatten(0, -2).T
    return rows.new_zeros(len(rows), codebook_size).scatter_add_(1, rows, torch.ones_like(rows))


def usage(indices: Tensor, codebook_size: int) -> dict[str, Tensor]:
    """Return `perplexity` and `used` (share of entries) of indices (..., G), scalars averaged over groups."""
    counts = count_codes(indices, codebook_size)
    shares = counts / counts.sum(-1, keepdim=True)
    return {
        "perplexity": torch.special.entr(shares).sum(-1).exp().mean(),
        "used": (counts > 0).float().mean(),
    }


def mixed_radix(levels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return place values and digits of numbers in a mixed-radix system with `levels`, least significant digit first.

    The place values are int64 (d,); the digits of all K = prod(levels) numbers, in order, are int64 (K, d).
    """
    places = torch.tensor([math.prod(levels[:place]) for place in range(len(levels))])
    digits = torch.arange(math.prod(levels))[:, None] // places % torch.tensor(levels)
    return places, digits
