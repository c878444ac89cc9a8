"""The Fréchet distance in units of the distance between two halves of the references."""

from __future__ import annotations

import math
from typing import ClassVar

from tokbench.metrics.frechet import Frechet
from tokbench.stats.split_half import Replicates, SplitHalves
from tokbench.stats.spread import Spread


class FrechetRatio(Frechet):
    """A Fréchet distance divided by that between complementary halves of the references (`Frechet.split_half`).

    It makes distances in different networks comparable: 1 means that images and references differ as much as two random
    halves of the references do. The halves have half as many images, and an image resembles its own reference, so good
    reconstructions lie far below 1. The interval takes the divisor as known.
    """

    needs_rows: ClassVar[bool] = True

    def compute(self) -> dict[str, float]:
        divisor = self._divisor()
        return {name: value / divisor if divisor else math.nan for name, value in super().compute().items()}

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        divisor, found = self._divisor(), super().replicates(halves)
        if not divisor:
            return {}
        return {
            name: Replicates(spread.halves / divisor)
            for name, spread in found.items()
            if isinstance(spread, Replicates)
        }

    def _divisor(self) -> float:
        """Return the distance between halves of the references; 0 where there are too few for two halves."""
        return self.split_half() if len(self.references) >= 2 * self.min_images else 0.0
