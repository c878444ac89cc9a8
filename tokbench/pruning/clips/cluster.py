"""Clusters of tokens within segments of frames: k-medoids++ and spectral clustering (CenterCLIP, arXiv:2205.00823)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDS = 100
"""The largest number of rounds of k-medoids."""


@torch.no_grad()
def k_medoids(tokens: Tensor, count: int) -> Tensor:
    """Return the positions (B, `count`), ascending, of the medoids of tokens (B, N, D) by Euclidean distance.

    The first medoid is the token of the largest norm, each further one the token that is farthest from its nearest
    medoid (KKZ). Then tokens join their nearest medoid, and the token with the smallest sum of distances to its cluster
    becomes its medoid, until nothing changes, for at most `ROUNDS` rounds. Ties go to the lower position, so the result
    is deterministic. Raises ValueError unless 1 <= count <= N.
    """
    if not 1 <= count <= tokens.shape[1]:
        raise ValueError(f"{count} medoids of {tokens.shape[1]} tokens")
    points = tokens.float()
    # The product form of the distance is not exactly zero for equal tokens, and would split clusters of duplicates.
    apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    medoids = _first_medoids(points, apart, count)
    for _ in range(ROUNDS):
        updated = _updated(apart, medoids)
        if torch.equal(updated, medoids):
            break
        medoids = updated
    return medoids.sort(1).values


def _first_medoids(points: Tensor, apart: Tensor, count: int) -> Tensor:
    chosen = [points.norm(dim=2).argmax(1)]
    rows = torch.arange(len(points), device=points.device)
    gap = apart[rows, chosen[0]]
    taken = torch.zeros_like(gap, dtype=torch.bool)
    taken[rows, chosen[0]] = True
    for _ in range(count - 1):
        farthest = gap.masked_fill(taken, -1).argmax(1)  # a duplicate of a medoid may be next, but never a medoid
        chosen.append(farthest)
        taken[rows, farthest] = True
        gap = torch.minimum(gap, apart[rows, farthest])
    return torch.stack(chosen, 1)


def _updated(apart: Tensor, medoids: Tensor) -> Tensor:
    """Return the medoids (B, K) after one round. apart: the distances (B, N, N). medoids: before the round."""
    batch, count = apart.shape[:2]
    joined = apart.gather(2, medoids[:, None].expand(-1, count, -1)).argmin(2)
    own = torch.arange(medoids.shape[1], device=apart.device).expand(batch, -1)
    joined = joined.scatter(1, medoids, own)  # a medoid stays in its cluster, also if another one is equal to it
    same = joined[:, :, None] == joined[:, None]
    costs = apart.masked_fill(~same, 0).sum(2)
    least = torch.full(medoids.shape, torch.inf, device=apart.device).scatter_reduce(1, joined, costs, "amin")
    places = torch.arange(count, device=apart.device).expand(batch, -1)
    candidates = places.masked_fill(costs > least.gather(1, joined), count)
    return torch.full_like(medoids, count).scatter_reduce(1, joined, candidates, "amin")


@torch.no_grad()
def spectral(tokens: Tensor, count: int) -> Tensor:
    """Return the positions (B, `count`), ascending, of the medoids of spectral clusters of tokens (B, N, D).

    The affinity of two tokens is exp(-d^2 / (2 sigma^2)) with sigma the median distance of two tokens of a segment. The
    last `count` eigenvectors of the symmetric normalised Laplacian, with unit rows and the largest value of each
    eigenvector positive, are the points of `k_medoids`.
    """
    points = tokens.float()
    apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    sigma = apart.flatten(1).median(1).values.clamp_min(1e-6)[:, None, None]
    affinity = torch.exp(-apart.square() / (2 * sigma.square()))
    scale = affinity.sum(2).rsqrt()
    # The largest eigenvalues of the normalised affinity are the smallest of the Laplacian.
    vectors = torch.linalg.eigh(scale[:, :, None] * affinity * scale[:, None])[1][:, :, -count:]
    largest = vectors.abs().argmax(1, keepdim=True)
    vectors = vectors * vectors.gather(1, largest).sign()
    return k_medoids(F.normalize(vectors, dim=2), count)
