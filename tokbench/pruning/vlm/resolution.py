"""Lower resolution: the model on smaller images, as a control."""

from __future__ import annotations

from tokbench.pruning.vlm.model import VisionLanguageModel
from tokbench.pruning.vlm.pruner import VlmPruner


class LowerResolution(VlmPruner):
    """The image is downscaled to the side whose number of visual tokens is closest to `keep`; nothing is selected."""

    title, source = "lower resolution", "control"

    def side(self, model: VisionLanguageModel, keep: float) -> int:
        sides = dict(model.sides())
        target = keep * sides[model.side]
        return min(sides, key=lambda side: (abs(sides[side] - target), -side))
