"""CATP: two stages of pruning for prompts with several images as demonstrations (AAAI 2026)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.pruning.vlm.model import Prompt
from tokbench.pruning.vlm.pruner import DecoderView, VlmPruner, at_places, keep_best, number_kept

ALIGNMENT, CONTEXT = 0.7, 0.6
"""Weights of the alignment with the text in stage 1, and of the similarity to the query in stage 2; the paper's."""


class CATP(VlmPruner):
    """Each of two stages removes half of the visual tokens that are removed in all.

    Stage 1, before the decoder, for each image: greedy maximisation of a facility-location function plus the cosine to
    the mean of the words that follow the image. Stage 2 inside the decoder: first the images of the demonstrations
    share one budget and are scored by the increase of the attention of the last token from one layer to the next, plus
    the cosine to the query; one layer later the query's image is scored by the cosine to the demonstrations. In a
    prompt with one image, this image forms the pool, and the last step does not apply.
    first, second: whether the stages are used; a single stage removes all. difference: whether the attention of the
    layer below is subtracted. shared: whether the demonstrations share one budget.
    """

    title, source = "CATP", "AAAI 2026"

    def __init__(self, first: bool = True, second: bool = True, difference: bool = True, shared: bool = True) -> None:
        self.first, self.second, self.difference, self.shared = first, second, difference, shared

    def before(self, prompt: Prompt, keep: float) -> Prompt:
        if not self.first:
            return prompt
        mask = prompt.image < 0
        for image in range(prompt.images):
            tokens, words = prompt.tokens(image), prompt.words(image)
            count = number_kept(tokens.shape[1], (1 + keep) / 2 if self.second else keep)
            chosen = facility_location(tokens, words.mean(1), count)
            mask = mask | at_places(prompt, image, chosen)
        return prompt.select(mask)

    def during(self, view: DecoderView, keep: float) -> Tensor | None:
        layer = scored_layer(view.model.sizes.depth)
        if not self.second or view.layer not in (layer + 1, layer + 2):
            return None
        prompt = view.prompt
        query = prompt.image == prompt.images - 1
        others = (prompt.image >= 0) & ~query
        per_image = number_kept(prompt.total // prompt.images, keep)
        if view.layer == layer + 2:
            if prompt.images == 1:
                return None
            context = others | ((prompt.image < 0) & (prompt.follows >= 0) & (prompt.follows < prompt.images - 1))
            return keep_best(prompt, cosine_to_mean(prompt.hidden, context), query, per_image)
        pool = query if prompt.images == 1 else others
        scores = self._scores(view, (prompt.follows == prompt.images - 1) | query)
        if self.shared or prompt.images == 1:
            return keep_best(prompt, scores, pool, per_image * max(1, prompt.images - 1))
        kept = torch.ones_like(pool)
        for image in range(prompt.images - 1):
            kept = kept & keep_best(prompt, scores, prompt.image == image, per_image)
        return kept

    def _scores(self, view: DecoderView, query: Tensor) -> Tensor:
        """Return the scores (B, n) of all tokens. query: the tokens of the query, bool (B, n)."""
        attention = view.last_row(1)
        if self.difference:
            attention = (attention - view.last_row(2)).clamp(min=0)
        return attention + CONTEXT * cosine_to_mean(view.prompt.hidden, query)


def scored_layer(depth: int) -> int:
    """Return the layer whose attention is compared with that of the layer below: 6 of 32 in the paper, at least 1."""
    return max(1, 6 * depth // 32)


def cosine_to_mean(hidden: Tensor, chosen: Tensor) -> Tensor:
    """Return the cosine (B, n) of each token of (B, n, D) to the mean of the tokens in a mask (B, n)."""
    mean = (hidden * chosen[..., None]).sum(1, keepdim=True) / chosen.sum(1)[:, None, None].clamp(min=1)
    return F.cosine_similarity(hidden, mean, dim=-1)


def facility_location(tokens: Tensor, words: Tensor, count: int) -> Tensor:
    """Return `count` of N places (B, count), greedily maximising the facility-location function plus alignment.

    tokens: (B, N, D). words: mean of the paired words, (B, D). The function of a set Y is the sum over all tokens x of
    the largest similarity of x to a token in Y, plus ALIGNMENT times the similarities of Y to `words`; similarities are
    cosines mapped to [0, 1]. It is monotone and submodular, so the greedy set has at least 63 % of the optimum. Ties go
    to the lower place. Cost: O(count N^2).
    """
    unit = F.normalize(tokens, dim=-1)
    similarity = (1 + unit @ unit.transpose(1, 2)) / 2
    aligned = ALIGNMENT * (1 + F.cosine_similarity(tokens, words[:, None], dim=-1)) / 2
    covered, chosen = torch.zeros_like(aligned), []
    taken = torch.zeros_like(aligned, dtype=torch.bool)
    for _ in range(count):
        gain = torch.maximum(similarity, covered[:, None]).sum(2) - covered.sum(1, keepdim=True) + aligned
        new = gain.masked_fill(taken, -torch.inf).argmax(1, keepdim=True)
        chosen.append(new)
        taken = taken.scatter(1, new, True)
        row = similarity.gather(1, new[..., None].expand(-1, -1, similarity.shape[2]))[:, 0]
        covered = torch.maximum(covered, row)
    return torch.cat(chosen, 1)
