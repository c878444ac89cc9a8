"""Top-k CLS: keeps the visual tokens with most attention from CLS in the image encoder's last layer."""

from __future__ import annotations

from tokbench.pruning.pruner import best
from tokbench.pruning.vlm.model import Prompt
from tokbench.pruning.vlm.pruner import VlmPruner, cls_attention, keep_per_image


class TopKCls(VlmPruner):
    """The criterion of FasterVLM (arXiv:2412.01818), once, before the decoder."""

    title, source = "top-k CLS attention", "after FasterVLM, arXiv:2412.01818"

    def before(self, prompt: Prompt, keep: float) -> Prompt:
        return keep_per_image(
            prompt, keep, lambda tokens, visual, count: best(cls_attention(visual, self.title), count)
        )
