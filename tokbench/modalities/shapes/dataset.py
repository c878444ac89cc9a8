"""ShapeDataset: voxels under one protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tokbench.errors import UsageError
from tokbench.metric_names import Modality
from tokbench.modalities.dataset import Item, MediaDataset
from tokbench.modalities.shapes.sources import GRID, MAX_GRID, ShapeSource


@dataclass
class ShapeDataset(MediaDataset):
    """Surface voxels (4, D, D, D): occupancy, then red, green and blue, which are 0 in empty voxels. size: D."""

    modality: ClassVar[Modality] = "shape"

    def check_sizes(self) -> None:
        """Set the grid. Raises UsageError if the data cannot be brought to the requested one."""
        native = self._source.native
        self.size = self.size or native or GRID
        if self.size > MAX_GRID:
            raise UsageError(f"--size {self.size}: a grid has at most {MAX_GRID} voxels per side")
        if native is not None and self.size != native:
            raise UsageError(f"{self.name}: its grids have {native} voxels per side, so --size must be {native}")

    @property
    def _source(self) -> ShapeSource:
        assert isinstance(self.source, ShapeSource)
        return self.source

    def item(self, position: int) -> Item:
        return Item(self._source.voxels(position, self.size or GRID))
