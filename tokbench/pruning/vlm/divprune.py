"""DivPrune: keeps visual tokens with maximal minimum distance (Alvar et al., CVPR 2025, arXiv:2503.02175)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tokbench.pruning.divprune import farthest_points
from tokbench.pruning.vlm.model import Prompt, Visual
from tokbench.pruning.vlm.pruner import VlmPruner, keep_per_image


class DivPrune(VlmPruner):
    """Selects once, before the decoder, as the authors do; the distance is 1 minus the cosine of projected tokens."""

    title, source = "DivPrune", "arXiv:2503.02175"

    def before(self, prompt: Prompt, keep: float) -> Prompt:
        def choose(tokens: Tensor, visual: Visual, count: int) -> Tensor:
            unit = F.normalize(tokens, dim=-1)
            return farthest_points(1 - unit @ unit.transpose(1, 2), count)

        return keep_per_image(prompt, keep, choose)
