"""What every quantizer of discrete tokens is: latents to indices, and indices back to what the decoder gets.

Latents are (B, N, D): N positions of D values. A position has G indices, one for each codebook ("group"): one for a
plain codebook, several for products, bits in groups, or the levels of a residual. Quantizing computes in float32,
whatever autocast says: an index must not depend on the precision of the networks around it.
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
    """What a quantizer makes of latents (B, N, D).

    vectors: float32 (B, N, D), what the decoder gets, and exactly what `lookup` gives; their gradient goes to the
    latents. indices: int64 (B, N, G), from which `lookup` makes the same vectors. loss: a scalar, the sum of what the
    quantizer adds to the training loss, weighted. statistics: what is worth watching, detached.
    """

    vectors: Tensor
    indices: Tensor
    loss: Tensor
    statistics: dict[str, Tensor]


class Quantizer(nn.Module, ABC):
    """D = `dim` values a position, G = `groups` indices a position, each of K = `codebook_size` entries.

    used_from: the share of a training from which the decoder gets what was quantized, and before it `unquantized`. A
    row of tokens that is quantized from its first step learns nothing for long: latents and entries agree before either
    says anything of an image. It is for whoever calls (`tokbench.nn.tokenizer`) to heed.
    """

    dim: int
    groups: int
    codebook_size: int
    used_from: float = 0.0

    @abstractmethod
    def forward(self, latents: Tensor) -> Quantized:
        """(B, N, D) to the quantized. In training it may move a codebook that is not learned by gradient."""

    def unquantized(self, latents: Tensor) -> Tensor:
        """Latents (B, N, D) to what comes nearest to vectors (B, N, D) without choosing any index: here they
        themselves, since vectors stand in for them."""
        return latents

    @abstractmethod
    def lookup(self, indices: Tensor) -> Tensor:
        """int64 (B, N, G) to vectors (B, N, D), from the indices and the codebooks alone."""

    @abstractmethod
    def table(self) -> Tensor:
        """Every codebook's entries (G, K, d), in the space in which the nearest one is chosen."""

    @abstractmethod
    def anchors(self, latents: Tensor) -> Tensor:
        """Latents (B, N, D) in that same space, (B, N, G, d): the chosen index is the nearest entry of the table."""


def exact(like: Tensor) -> torch.autocast:
    """A context in which products on the device of `like` are not rounded to autocast's precision."""
    return torch.autocast(like.device.type, enabled=False)


def straight_through(latents: Tensor, vectors: Tensor) -> Tensor:
    """Exactly the values of `vectors`, with a gradient that goes to `latents` as if nothing had been quantized."""
    # The difference is an exact zero; latents + (vectors - latents) would be off by a rounding.
    return vectors.detach() + (latents - latents.detach())


def rotation(latents: Tensor, vectors: Tensor) -> Tensor:
    """Exactly the values of `vectors`; the gradient goes back through the rotation and scale that made them of latents.

    Rotation and scale are constants for the gradient, so the angle between gradient and vector is the angle between
    the latents' gradient and the latents (the rotation trick, Fifty et al., 2410.06424). Both are (..., D).
    """
    source, target = latents.detach(), vectors.detach()
    length = source.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    start, end = source / length, F.normalize(target, dim=-1)
    # Two reflections make the rotation in the plane of start and end: first in their bisector, then in the end.
    bisector = F.normalize(start + end, dim=-1)
    turned = latents - 2 * bisector * (bisector * latents).sum(-1, keepdim=True)
    turned = turned + 2 * end * (start * latents).sum(-1, keepdim=True)
    turned = turned * (target.norm(dim=-1, keepdim=True) / length)
    return straight_through(turned, target)


GRADIENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"straight-through": straight_through, "rotation": rotation}


def distances(anchors: Tensor, table: Tensor) -> Tensor:
    """Squared Euclidean distances, float32 (B, N, G, K), of anchors (B, N, G, d) to a table (G, K, d)."""
    anchors, table = anchors.float(), table.float()
    if table.shape[-1] == 1:  # fine scales of single values: the expanded square would lose the digits that tell them
        return (anchors - table[..., 0]).square()
    with exact(anchors):
        products = torch.einsum("bngd,gkd->bngk", anchors, table)
    return anchors.square().sum(-1, keepdim=True) - 2 * products + table.square().sum(-1)


def nearest(anchors: Tensor, table: Tensor, count: int = 1) -> Tensor:
    """The `count` nearest entries of each group's table (G, K, d) to anchors (B, N, G, d), nearest first.

    int64 (B, N, G, count), by squared Euclidean distance in float32. Of equally near ones a single nearest is the one
    of lowest index; the order of several is that of `topk`.
    """
    with torch.no_grad():
        gaps = distances(anchors, table)
        return gaps.argmin(-1, keepdim=True) if count == 1 else gaps.topk(count, dim=-1, largest=False).indices


def matching_loss(latents: Tensor, vectors: Tensor, commitment: float, learned: bool = True) -> Tensor:
    """Mean squares that draw latents and their vectors together (VQ-VAE, 1711.00937), a scalar.

    `commitment` times that of the latents to the vectors, plus that of the vectors to the latents where those are
    `learned` by gradient.
    """
    loss = commitment * F.mse_loss(latents, vectors.detach())
    return loss + F.mse_loss(vectors, latents.detach()) if learned else loss


def entropy_loss(gaps: Tensor, temperature: float) -> Tensor:
    """How undecided the choices are less how evenly they use the codebook: from -log K (best) to 0, a scalar.

    Of softmax(-gaps / temperature), gaps (B, N, G, K): the mean entropy of one position less the entropy of the mean
    over all positions, in nats; the mean over groups (MAGVIT-v2, 2310.05737).
    """
    logs = F.log_softmax(-gaps / temperature, dim=-1)
    chances = logs.exp()
    undecided = -(chances * logs).sum(-1).mean()
    mean = chances.mean((0, 1))
    spread = -(mean * mean.clamp_min(1e-8).log()).sum(-1).mean()  # clamped: a chance of 0 has no finite gradient
    return undecided - spread


def counted(indices: Tensor, codebook_size: int) -> Tensor:
    """How often every entry occurs in indices (..., G): int64 (G, K)."""
    rows = indices.flatten(0, -2).T
    return rows.new_zeros(len(rows), codebook_size).scatter_add_(1, rows, torch.ones_like(rows))


def usage(indices: Tensor, codebook_size: int) -> dict[str, Tensor]:
    """Of indices (..., G): perplexity and used share of the codebook in this batch, means over groups, scalars."""
    counts = counted(indices, codebook_size)
    shares = counts / counts.sum(-1, keepdim=True)
    return {
        "perplexity": torch.special.entr(shares).sum(-1).exp().mean(),
        "used": (counts > 0).float().mean(),
    }


def mixed_radix(levels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Numbers whose digits have `levels` values, the first digit the least significant.

    What each place is worth, int64 (d,), and the digits of all K = prod(levels) numbers in order, int64 (K, d).
    """
    places = torch.tensor([math.prod(levels[:place]) for place in range(len(levels))])
    digits = torch.arange(math.prod(levels))[:, None] // places % torch.tensor(levels)
    return places, digits
