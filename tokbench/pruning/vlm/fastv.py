"""FastV: keeps the visual tokens with most attention from the last token of the prompt (arXiv:2403.06764)."""

from __future__ import annotations

from torch import Tensor

from tokbench.pruning.vlm.pruner import DecoderView, VlmPruner, keep_best, number_kept


class FastV(VlmPruner):
    """Tokens are ranked by the attention in layer K - 1, and dropped before layer K, counted from 0.

    The authors use K = 2 for decoders of 32 layers; decoders of less than 12 layers get K = 1 here, since two full
    layers would be a third of their cost. The images of a prompt form one pool.
    """

    title, source = "FastV", "arXiv:2403.06764"

    def during(self, view: DecoderView, keep: float) -> Tensor | None:
        if view.layer != (2 if view.model.sizes.depth >= 12 else 1):
            return None
        pool = view.prompt.image >= 0
        return keep_best(view.prompt, view.last_row(), pool, number_kept(view.prompt.total, keep))
