"""VFlowOpt: pruning with recycled tokens and parameters that are tuned by the flow of information (ICCV 2025)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.errors import UsageError
from tokbench.pruning.vlm.flow_parameters import FlowParameters, thirds, untuned
from tokbench.pruning.vlm.flow_search import search
from tokbench.pruning.vlm.model import Prompt, VisionLanguageModel, Visual
from tokbench.pruning.vlm.pruner import DecoderView, VlmPruner, keep_best, number_kept


class VFlowOpt(VlmPruner):
    """Scores tokens by the image encoder's attention, and prunes before the decoder and twice inside it.

    `keep` is the mean share of visual tokens over the layers, as in the paper. The removed tokens of a cell are merged
    into one recycled token. recycle: whether they are. tuned: whether `calibrate` searches for the parameters.
    """

    title, source = "VFlowOpt", "ICCV 2025"

    def __init__(self, recycle: bool = True, tuned: bool = False) -> None:
        self.recycle, self.tuned = recycle, tuned
        self.parameters: dict[float, FlowParameters] = {}

    calibrates: ClassVar[bool] = True

    def calibrate(self, model: VisionLanguageModel, prompts: Sequence[Prompt], keep: float) -> None:
        depth, side = model.sizes.depth, max(max(one.grid) for one in prompts[0].visual)
        start = untuned(depth, keep, side)
        self.parameters[keep] = start
        if self.tuned and keep < 1:
            self.parameters[keep] = search(lambda own: self._with({keep: own}), model, prompts, keep, start, side)

    def _with(self, parameters: dict[float, FlowParameters]) -> VFlowOpt:
        other = copy.copy(self)
        other.parameters = parameters
        return other

    def before(self, prompt: Prompt, keep: float) -> Prompt:
        own = self._own(keep)
        hidden, mask = prompt.hidden.clone(), prompt.image < 0
        scores = prompt.hidden.new_zeros(mask.shape)
        for image, visual in enumerate(prompt.visual):
            importance = importance_map(visual, own)
            tokens = prompt.tokens(image)
            count = number_kept(tokens.shape[1], own.first)
            cells = cells_of(visual.grid, own.cell) if self.recycle else None
            merged, kept = recycled(tokens, importance, count, cells)
            place = prompt.image == image
            hidden[place], mask[place], scores[place] = merged.flatten(0, 1), kept.flatten(), importance.flatten()
        return replace(prompt, hidden=hidden, scores=scores).select(mask)

    def during(self, view: DecoderView, keep: float) -> Tensor | None:
        own, (early, late) = self._own(keep), thirds(view.model.sizes.depth)
        if view.layer not in (early, late) or view.prompt.scores is None:
            return None
        share = own.first * own.second * (1.0 if view.layer == early else own.third)
        pool, count = view.prompt.image >= 0, number_kept(view.prompt.total, share)
        if count >= int(pool.sum(1).max()):
            return None
        return keep_best(view.prompt, view.prompt.scores, pool, count)

    def _own(self, keep: float) -> FlowParameters:
        if keep not in self.parameters:
            raise UsageError(f"{self.title} has no parameters for keep {keep:g}; call calibrate first")
        return self.parameters[keep]


def importance_map(visual: Visual, own: FlowParameters) -> Tensor:
    """Return the importance (B, N) of the patches of an image.

    Raises UsageError if the attention of the image encoder is unknown.
    """
    if visual.seen is None:
        raise UsageError("VFlowOpt needs the attention of the image encoder, and this model does not give it")
    attention = visual.seen.map().mean(1)[:, visual.prefix :, visual.prefix :]
    received = attention.mean(1)
    important = received > own.threshold * received.mean(1, keepdim=True)
    important = important | ~important.any(1, keepdim=True)  # without an important token, all determine the relevance
    relevance = (attention * important[..., None]).sum(1) / important.sum(1, keepdim=True)
    if own.entropy == 0:
        return relevance
    return relevance + own.entropy * patch_entropy(visual.pixels, visual.grid).softmax(1)


def patch_entropy(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the entropy (B, N) in nats of the grey levels of each patch; pixels (B, 3, H, W) in [0, 1].

    Levels are those of an 8-bit image. Normalized pixels must not be given: their negative values are no levels.
    """
    grey = (pixels.mean(1) * 255).round().clamp(0, 255).long()
    rows, columns = (size // parts for size, parts in zip(grey.shape[1:], grid, strict=True))
    grey = grey[:, : rows * grid[0], : columns * grid[1]]
    patches = grey.unflatten(2, (grid[1], columns)).unflatten(1, (grid[0], rows)).permute(0, 1, 3, 2, 4)
    levels = patches.flatten(3).flatten(1, 2)
    share = torch.zeros(*levels.shape[:2], 256, device=levels.device)
    share = share.scatter_add(2, levels, torch.ones_like(levels, dtype=share.dtype)) / levels.shape[2]
    return torch.special.entr(share).sum(2)


def cells_of(grid: tuple[int, int], side: float) -> Tensor:
    """Return the number (N,) of the cell of each token, in cells of `side` x `side` tokens; sides may be fractions."""
    rows, columns = (((torch.arange(size) + 0.5) / side).floor().long() for size in grid)
    return (rows[:, None] * math.ceil(grid[1] / side) + columns).flatten()


def recycled(tokens: Tensor, scores: Tensor, count: int, cells: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return tokens (B, N, D) with recycled ones in place, and the mask (B, N) of the `count` tokens that remain.

    The other tokens of each cell are merged into one, the mean weighted by scores (B, N), at the place of the best of
    them. Recycled tokens are part of `count`; if they would be all of it, nothing is recycled. cells: as `cells_of`
    returns them; None for no recycling.
    """
    one_hot = None if cells is None else F.one_hot(cells.to(tokens.device)).to(tokens.dtype)
    if one_hot is None or one_hot.shape[1] >= count:
        return tokens, _first(scores, count)
    kept = _first(scores, count - one_hot.shape[1])
    weights = scores.clamp(min=1e-9) * ~kept
    sums = weights @ one_hot
    merged = torch.einsum("bn,nc,bnd->bcd", weights, one_hot, tokens) / sums[..., None].clamp(min=1e-9)
    own = scores[..., None].masked_fill(kept[..., None] | (one_hot == 0), -torch.inf)
    places, filled = own.argmax(1), sums > 0
    mask, result = kept.clone(), tokens.clone()
    for row in range(len(tokens)):
        result[row, places[row, filled[row]]] = merged[row, filled[row]]
        mask[row, places[row, filled[row]]] = True
    return result, _first(scores.masked_fill(mask, torch.inf), count)  # empty cells leave room for further tokens


def _first(scores: Tensor, count: int) -> Tensor:
    ranked = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, ranked, True)
