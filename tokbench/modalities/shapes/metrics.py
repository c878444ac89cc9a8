"""Distances between voxels: IoU, Chamfer distance, F-score, and the PSNR of colours."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from scipy.spatial import cKDTree

from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.protocol.protocol import TOKBENCH, Protocol


class _VoxelMetric(PerImageMetric):
    """A metric of occupied voxels, those whose occupancy is above the protocol's threshold."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__()
        self._rule = protocol.shapes

    def occupied(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Return the occupied voxels of outputs and originals, bool (B, D, D, D) each."""
        image, reference = (batch.require(side)[:, 0].numpy() > self._rule.threshold for side in ("image", "reference"))
        return image, reference

    def provenance(self) -> dict[str, str]:
        return {"threshold": f"{self._rule.threshold:g}"}


class IoU(_VoxelMetric):
    """`iou`: the number of voxels that are occupied in both, divided by that of voxels occupied in one of them; 1 if
    both are empty."""

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        image, reference = (voxels.reshape(len(batch), -1) for voxels in self.occupied(batch))
        both, either = (image & reference).sum(1), (image | reference).sum(1)
        return {"iou": np.where(either > 0, both / np.maximum(either, 1), 1.0)}


class SurfaceDistance(_VoxelMetric):
    """`chamfer` and `f_score` of the centres of occupied voxels, in units of the side of the grid.

    `chamfer` is the mean distance from the output to the nearest point of the original plus that in the other direction
    (Euclidean distances, not squared). `f_score` is the harmonic mean of precision and recall, the shares of points of
    output and original with a point of the other within tau (Tatarchenko et al. 2019, arXiv:1905.03678). An empty
    output has the F-score 0 and the distance sqrt(3), the diagonal of the grid, in each direction; an empty original
    has no value.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, 2 * math.sqrt(3))

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        pairs = zip(*self.occupied(batch), strict=True)
        chamfer, score = zip(*(self._of_pair(ours, theirs) for ours, theirs in pairs), strict=True)
        return {"chamfer": np.array(chamfer), "f_score": np.array(score)}

    def _of_pair(self, image: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        ours, theirs = (np.argwhere(voxels) / len(voxels) for voxels in (image, reference))
        if not len(theirs):
            return math.nan, math.nan
        if not len(ours):
            return 2 * math.sqrt(3), 0.0
        there, back = cKDTree(theirs).query(ours)[0], cKDTree(ours).query(theirs)[0]
        precision, recall = (float((gaps <= self._rule.tau).mean()) for gaps in (there, back))
        both = precision + recall
        return float(there.mean() + back.mean()), 2 * precision * recall / both if both else 0.0

    def provenance(self) -> dict[str, str]:
        return super().provenance() | {"tau": f"{self._rule.tau:g} of the side"}


class ColourPSNR(_VoxelMetric):
    """`colour_psnr`: the PSNR in dB of the colours, in levels, of the voxels that are occupied in output and original.

    Shapes with exact colours, and those without a common voxel, have no value and are left out.
    """

    bounds: ClassVar[tuple[float, float]] = (-math.inf, math.inf)

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        image, reference = self.occupied(batch)
        both = image & reference
        ours, theirs = (batch.levels(side)[:, 1:].numpy().astype(np.int32) for side in ("image", "reference"))
        squares = ((ours - theirs) ** 2).sum(1) * both
        counts = 3 * both.reshape(len(batch), -1).sum(1)
        errors = squares.reshape(len(batch), -1).sum(1) / np.maximum(counts, 1)
        with np.errstate(divide="ignore"):
            decibels = 10 * np.log10(255**2 / errors)
        return {"colour_psnr": np.where(errors > 0, decibels, np.nan)}
