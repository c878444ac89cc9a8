"""Random visual tokens: the control that every selection method should outperform."""

from __future__ import annotations

import torch
from torch import Tensor

from tokbench.pruning.pruner import best
from tokbench.pruning.random import random_scores
from tokbench.pruning.vlm.model import Prompt, Visual
from tokbench.pruning.vlm.pruner import VlmPruner, keep_per_image


class Random(VlmPruner):
    """The selection depends only on the prompt's seed and on the numbers of image and token, not on the batch."""

    title, source = "random", "control"

    def before(self, prompt: Prompt, keep: float) -> Prompt:
        drawn = 0

        def choose(tokens: Tensor, visual: Visual, count: int) -> Tensor:
            nonlocal drawn
            places = torch.arange(drawn, drawn + tokens.shape[1], device=tokens.device)
            drawn += tokens.shape[1]
            return best(random_scores(prompt.seeds.to(tokens.device), places), count)

        return keep_per_image(prompt, keep, choose)
