"""Output checks of items that are no images."""

from __future__ import annotations

import numpy as np

from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch
from tokbench.metrics.output_checks import STRAY
from tokbench.results.warning import ResultWarning
from tokbench.tokenizers.decoded import MARGIN
from tokbench.tokenizers.spec import TokenizerSpec


class ItemChecks(Metric):
    """Warns about constant outputs and about values outside the declared range.

    noun: one item, for messages. spec: its range is that of the decoded values.
    """

    def __init__(self, spec: TokenizerSpec, noun: str) -> None:
        super().__init__()
        self._range, self._noun = spec.range, noun

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return `flat`, whether an output is constant although its reference is not, and the share of its values that
        lie `outside` the range."""
        image, reference = (batch.require(side).flatten(1) for side in ("image", "reference"))
        flat = (image.amax(1) == image.amin(1)) & (reference.amax(1) > reference.amin(1))
        columns = {"flat": flat.numpy()}
        return columns | ({"outside": batch.decoded["outside"]} if batch.decoded else {})

    def compute(self) -> dict[str, float]:
        return {}

    def warnings(self) -> list[ResultWarning]:
        if not len(self.rows):
            return []
        found, total = [], len(self.rows)
        if flat := int(self.rows.column("flat").sum()):
            text = f"{flat:,} of {total:,} {self._noun}s are constant, unlike their originals"
            found.append(ResultWarning("constant", text, flat, total))
        if "outside" in self.rows.names and (mean := float(self.rows.column("outside").mean())) > STRAY:
            low, high = self._range
            text = (
                f"{mean:.1%} of the decoded values lie outside the declared range [{low:g}, {high:g}] by more than "
                f"{MARGIN:.0%} of its width and are clamped; is the spec's range right?"
            )
            found.append(ResultWarning("clamped", text, int((self.rows.column("outside") > STRAY).sum()), total))
        return found
