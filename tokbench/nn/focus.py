"""An encoder of image features that updates only the tokens of the foreground (Focus-DETR, arXiv:2307.12612)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import UsageError
from tokbench.nn.vit import Attention, initialise

Selection = Literal["learned", "random", "norm"]
"""How tokens are selected: by learned foreground scores, at random, or by the norm of their features."""

CASCADE = (1.0, 0.8, 0.6, 0.4)
"""The share of the kept tokens that each layer updates; with more layers, the last one is repeated."""


class ForegroundScorer(nn.Module):
    """Scores how likely each position of a pyramid lies inside an object; one network for all levels.

    The coarsest level is scored first. Its scores, enlarged, modulate the features of the next finer level with a
    learned factor. Half of the channels are replaced by their mean over all positions.
    """

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.head = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 1),
        )
        self.apply(initialise)
        self.factors = nn.Parameter(torch.empty(levels - 1).uniform_(-0.3, 0.3))
        nn.init.constant_(self.head[-1].bias, -2.0)  # type: ignore[arg-type]  # most positions are background

    def forward(self, tokens: Tensor, sides: Sequence[int]) -> Tensor:
        """Map tokens (B, N, D) of square levels, the finest first, to scores before the sigmoid (B, N)."""
        parts, scores = list(tokens.split([side**2 for side in sides], dim=1)), list[Tensor]()
        for level in range(len(sides) - 1, -1, -1):
            features = parts[level]
            if scores:
                coarse = scores[-1].unflatten(1, (1, sides[level + 1], sides[level + 1]))
                fine = F.interpolate(coarse, (sides[level], sides[level]), mode="bilinear", align_corners=True)
                features = features + features * fine.flatten(2).transpose(1, 2) * self.factors[level]
            own, shared = self.expand(features).chunk(2, dim=2)
            shared = shared.mean(1, keepdim=True).expand_as(own)
            scores.append(self.head(torch.cat([own, shared], dim=2)).squeeze(2))
        return torch.cat(scores[::-1], dim=1)


class FocusLayer(nn.Module):
    """An encoder layer whose queries are the selected tokens and whose keys are all tokens.

    fine: number of selected tokens that first attend to each other alone; 0 for none. Before it, the caller scores the
    tokens, since the score depends on the classes.
    """

    def __init__(self, width: int, heads: int, hidden: int, fine: int) -> None:
        super().__init__()
        self.fine = fine
        if fine:
            self.fine_attention, self.fine_norm = Attention(width, heads), nn.LayerNorm(width)
        self.attention, self.norm = Attention(width, heads), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.norm_mlp = nn.LayerNorm(width)

    def refine(self, x: Tensor, places: Tensor, scores: Tensor) -> Tensor:
        """Let the `fine` best of the selected tokens x (B, k, D) attend to each other. scores: (B, k)."""
        if not self.fine:
            return x
        best = scores.topk(min(self.fine, x.shape[1]), dim=1).indices.sort(dim=1).values
        chosen = gather(x, best)
        attended = self.fine_attention(chosen + gather(places, best))
        return scatter(x, best, self.fine_norm(chosen + attended))

    def forward(self, x: Tensor, places: Tensor, context: Tensor) -> Tensor:
        """Update the selected tokens x (B, k, D) with keys `context` (B, N, D), which has positions added."""
        x = self.norm(x + self.attention(x + places, context=context))
        return self.norm_mlp(x + self.mlp(x))


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Return the tokens of x (B, N, D) at the positions index (B, k)."""
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def scatter(x: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """Return x (B, N, D) with the tokens at the positions index (B, k) replaced by values (B, k, D)."""
    return x.scatter(1, index[:, :, None].expand(-1, -1, x.shape[2]), values.to(x.dtype))


class FocusEncoder(nn.Module):
    """Layers that update only the tokens with the best scores; the others are carried through.

    keep: share of the tokens that the first layer updates; the later layers update the shares of CASCADE of it. At 1,
    every layer updates all tokens. selection: the scores. drop: whether tokens that are not selected are removed
    instead, so that neither later layers nor the decoder see them. fine: see `FocusLayer`. counts: number of tokens
    that each layer updated in the last pass.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        depth: int,
        fine: int,
        keep: float = 1.0,
        selection: Selection = "learned",
        drop: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FocusLayer(width, heads, hidden, fine) for _ in range(depth))
        self.layers.apply(initialise)
        self.keep, self.selection, self.drop = keep, selection, drop
        self.counts: list[int] = []

    def budget(self, tokens: int) -> list[int]:
        """Return how many of `tokens` tokens each layer updates."""
        if self.keep >= 1:
            return [tokens] * len(self.layers)
        shares = [CASCADE[min(place, len(CASCADE) - 1)] for place in range(len(self.layers))]
        return [max(1, round(self.keep * share * tokens)) for share in shares]

    def scores(self, tokens: Tensor, foreground: Tensor, seeds: Sequence[int] | None) -> Tensor:
        """Return the scores (B, N) by which tokens are selected. seeds: one per image for the random selection."""
        if self.selection == "learned":
            return foreground.detach()
        if self.selection == "norm":
            return tokens.detach().norm(dim=2)
        if self.selection != "random":
            raise UsageError(f"no selection '{self.selection}'; there are: learned, random, norm")
        if seeds is None:
            return torch.rand(tokens.shape[:2], device=tokens.device)
        drawn = [torch.rand(tokens.shape[1], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(drawn).to(tokens.device)

    def forward(
        self, tokens: Tensor, places: Tensor, foreground: Tensor, classes: nn.Module, seeds: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode tokens (B, N, D) with positions (B, N, D) and foreground scores before the sigmoid (B, N).

        classes: maps tokens to class scores before the sigmoid, by which the tokens of the fine attention are chosen.
        Returns the tokens (B, N, D) and their positions in the input (B, N); fewer than N if tokens are dropped.
        """
        ranked = self.scores(tokens, foreground, seeds)
        index = torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
        self.counts = self.budget(tokens.shape[1])
        layers: Any = self.layers
        for layer, count in zip(layers, self.counts, strict=True):
            chosen = ranked.topk(count, dim=1).indices.sort(dim=1).values
            if self.drop:
                tokens, places = gather(tokens, chosen), gather(places, chosen)
                ranked, foreground, index = (values.gather(1, chosen) for values in (ranked, foreground, index))
                chosen = torch.arange(count, device=tokens.device).expand(len(tokens), -1)
            x, at = gather(tokens, chosen), gather(places, chosen)
            confidence = classes(x.detach()).sigmoid().amax(2) * foreground.gather(1, chosen).sigmoid()
            x = layer.refine(x, at, confidence.detach())
            context = scatter(tokens, chosen, x) + places
            tokens = scatter(tokens, chosen, layer(x, at, context))
        return tokens, index
