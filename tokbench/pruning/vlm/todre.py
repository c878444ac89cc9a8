"""ToDRE: diverse visual tokens before the decoder, and none in its last layers (arXiv:2505.18757)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.pruning.vlm.model import Prompt, Visual
from tokbench.pruning.vlm.pruner import DecoderView, VlmPruner, cls_attention, keep_per_image

Variant = Literal["k_center", "max_sum"]


class ToDRE(VlmPruner):
    """Stage 1 starts from the token with most CLS attention and adds tokens that differ from the chosen ones.

    variant: `k_center` adds the token whose nearest chosen token is farthest (version 1 of the paper), `max_sum` the
    one with the smallest sum of cosines to the chosen ones (version 2). Stage 2: before the layer at seven eighths of
    the depth, all visual tokens are removed if little attention passes between text and image in the layer below.
    first, second: whether the stages are used. tau: threshold of stage 2; the paper does not state its own.
    """

    title, source = "ToDRE", "arXiv:2505.18757"

    def __init__(
        self, variant: Variant = "max_sum", first: bool = True, second: bool = True, tau: float = 0.15
    ) -> None:
        self.variant, self.first, self.second, self.tau = variant, first, second, tau

    def before(self, prompt: Prompt, keep: float) -> Prompt:
        if not self.first:
            return prompt

        def choose(tokens: Tensor, visual: Visual, count: int) -> Tensor:
            unit = F.normalize(tokens, dim=-1)
            pivot = cls_attention(visual, self.title).argmax(1)
            return diverse_from(unit @ unit.transpose(1, 2), pivot, count, self.variant)

        return keep_per_image(prompt, keep, choose)

    def during(self, view: DecoderView, keep: float) -> Tensor | None:
        if not self.second or view.layer != probe_layer(view.model.sizes.depth):
            return None
        to_image, to_text = attention_ratios(view.attention(1, 0), view.prompt.image >= 0)
        dropped = (to_image < self.tau) & (to_text < self.tau)
        return (view.prompt.image < 0) | ~dropped[:, None]


def probe_layer(depth: int) -> int:
    """Return the first layer without visual tokens, at seven eighths of the depth."""
    return 7 * depth // 8


def attention_ratios(attention: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of the attention of the text that lies on visual tokens, and the share of the attention of
    visual tokens that lies on text, both (B,).

    attention: (B, n, n), rows sum to 1. image: bool (B, n). The text before the first image, which cannot see one,
    counts in neither; it attracts attention without content (arXiv:2309.17453).
    """
    seen = image.long().cumsum(1) > 0
    text = seen & ~image
    shares = []
    for queries, keys in ((text, image), (image, text)):
        found = (attention * keys[:, None]).sum(2)
        shares.append((found * queries).sum(1) / queries.sum(1).clamp(min=1))
    return shares[0], shares[1]


def diverse_from(cosines: Tensor, pivot: Tensor, count: int, variant: Variant) -> Tensor:
    """Return `count` of N places (B, count), the pivot (B,) first, chosen greedily by cosines (B, N, N).

    Ties go to the lower place. Cost: O(count N), with a running maximum or a running sum.
    """
    n, chosen = cosines.shape[1], [pivot[:, None]]
    taken = torch.zeros_like(cosines[:, 0], dtype=torch.bool).scatter(1, chosen[0], True)
    near = torch.full_like(cosines[:, 0], -torch.inf if variant == "k_center" else 0.0)
    for _ in range(count - 1):
        row = cosines.gather(1, chosen[-1][..., None].expand(-1, -1, n))[:, 0]
        near = torch.maximum(near, row) if variant == "k_center" else near + row
        chosen.append(near.masked_fill(taken, torch.inf).argmin(1, keepdim=True))
        taken = taken.scatter(1, chosen[-1], True)
    return torch.cat(chosen, 1)
