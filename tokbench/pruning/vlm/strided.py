"""Strided: evenly spaced visual tokens in row-major order, a control that is independent of the image."""

from __future__ import annotations

from tokbench.pruning.strided import spaced
from tokbench.pruning.vlm.model import Prompt
from tokbench.pruning.vlm.pruner import VlmPruner, keep_per_image


class Strided(VlmPruner):
    """Keeps evenly spaced tokens of each image."""

    title, source = "strided", "control"

    def before(self, prompt: Prompt, keep: float) -> Prompt:
        return keep_per_image(
            prompt,
            keep,
            lambda tokens, visual, count: spaced(tokens.shape[1], count, tokens).expand(len(tokens), -1),
        )
