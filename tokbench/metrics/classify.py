"""Two classifiers of feature vectors that need no tuning: a ridge regression, and nearest neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Ridge penalties that are tried, relative to the mean eigenvalue of the features' scatter matrix (or Gram matrix)."""

NEIGHBOURS = 10
"""Number of nearest neighbours that vote."""

TEMPERATURE = 0.07
"""A vote has the weight exp(cosine similarity / TEMPERATURE), as in DINO's evaluation (arXiv:2104.14294)."""


def scaled(features: Tensor) -> Tensor:
    """Return features (n, D), each with a standard deviation of 1; constant ones become 0."""
    centred = features - features.mean(0)
    deviation = centred.square().mean(0).sqrt()
    return centred / deviation.where(deviation > 1e-6 * deviation.max(), torch.inf)


def ridge_classes(train: Tensor, labels: Tensor, test: Tensor, classes: int) -> Tensor:
    """Return the class int64 (m,) of features `test` (m, D), predicted by a ridge regression on one-hot labels.

    train (n, D), labels int64 (n,): the features that it is fitted on. The penalty is the one of PENALTIES with the
    smallest squared error when each of these in turn is left out, which has a closed form.
    """
    mean = train.mean(0)
    train, test = train - mean, test - mean
    count, dim = train.shape
    targets = torch.nn.functional.one_hot(labels, classes).to(train.dtype)
    targets = targets - (offset := targets.mean(0))
    dual = dim > count  # the smaller of the two matrices
    values, vectors = torch.linalg.eigh(train @ train.T if dual else train.T @ train)
    values = values.clamp(min=0)
    scores = vectors * values.sqrt() if dual else train @ vectors
    moments = scores.T @ targets
    best: tuple[float, Tensor] | None = None
    for penalty in PENALTIES:
        weights = 1 / (values + penalty * values.mean().clamp(min=1e-12))
        fitted = scores @ (weights[:, None] * moments)
        leverage = (scores.square() @ weights + 1 / count).clamp(max=1 - 1e-6)
        error = float(((targets - fitted) / (1 - leverage)[:, None]).square().sum())
        if best is None or error < best[0]:
            best = error, weights
    assert best is not None
    if dual:
        projected = (test @ train.T) @ (vectors / values.sqrt().clamp(min=1e-12))
        projected[:, values <= 1e-10 * values.max()] = 0
    else:
        projected = test @ vectors
    return (projected @ (best[1][:, None] * moments) + offset).argmax(1)


def nearest_classes(train: Tensor, labels: Tensor, test: Tensor, classes: int) -> Tensor:
    """Return the class int64 (m,) of features `test` (m, D) for which the nearest ones of `train` (n, D) vote.

    Similarities are cosines after the mean of `train` was subtracted.
    """
    mean = train.mean(0)
    unit_train, unit_test = (torch.nn.functional.normalize(part - mean, dim=1) for part in (train, test))
    nearest = (unit_test @ unit_train.T).topk(min(NEIGHBOURS, len(train)), dim=1)
    votes = torch.zeros(len(test), classes, dtype=train.dtype)
    votes.scatter_add_(1, labels[nearest.indices], ((nearest.values - 1) / TEMPERATURE).exp())
    return votes.argmax(1)
