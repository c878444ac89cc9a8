"""Base class of methods that remove visual tokens of a vision-language model, before or inside its decoder."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tokbench.errors import UsageError
from tokbench.pruning.vlm.model import Prompt, VisionLanguageModel, Visual, causal_rows


@dataclass(frozen=True)
class DecoderView:
    """What a method sees before layer `layer` runs.

    prompt: its input. history: the inputs of the last two layers since tokens were removed, the latest last.
    """

    model: VisionLanguageModel
    layer: int
    prompt: Prompt
    history: Sequence[Prompt]

    def attention(self, back: int, start: int) -> Tensor:
        """Return the attention in an earlier layer, averaged over heads: (B, n - start, n) of the queries from `start`.

        back: 1 for the layer before this one, 2 for the one before it.
        """
        given = self.history[-back]
        seen = self.model.attended(self.layer - back, given.hidden, given.positions)
        return causal_rows(seen, start)

    def last_row(self, back: int = 1) -> Tensor:
        """Return the attention of the last token in an earlier layer, averaged over heads, (B, n)."""
        return self.attention(back, self.prompt.hidden.shape[1] - 1)[:, 0]


class VlmPruner(ABC):
    """A method that removes visual tokens; text is never removed. All of its state belongs to one call.

    title, source: its name in tables and its paper. calibrates: whether `calibrate` must be called first.
    """

    title: ClassVar[str]
    source: ClassVar[str]
    calibrates: ClassVar[bool] = False

    def calibrate(self, model: VisionLanguageModel, prompts: Sequence[Prompt], keep: float) -> None:
        """Choose the method's parameters for `keep` with prompts of training images."""
        return

    def side(self, model: VisionLanguageModel, keep: float) -> int:
        """Return the side of the images that the encoder gets."""
        return model.side

    def before(self, prompt: Prompt, keep: float) -> Prompt:
        """Reduce the prompt before the decoder; keep in (0, 1)."""
        return prompt

    def during(self, view: DecoderView, keep: float) -> Tensor | None:
        """Return which tokens enter a layer after the first, bool (B, n), or None for all."""
        return None


def number_kept(count: int, keep: float) -> int:
    """Return how many of `count` tokens a share of `keep` is; at least one."""
    return max(1, round(count * keep))


def keep_per_image(prompt: Prompt, keep: float, choose: Callable[[Tensor, Visual, int], Tensor]) -> Prompt:
    """Return the prompt with the tokens that `choose` selects in each image.

    choose: given visual tokens (B, N, D), the image and a number, returns that many places (B, k) in any order.
    """
    mask = prompt.image < 0
    for image, visual in enumerate(prompt.visual):
        tokens = prompt.tokens(image)
        chosen = choose(tokens, visual, number_kept(tokens.shape[1], keep))
        mask = mask | at_places(prompt, image, chosen)
    return prompt.select(mask)


def at_places(prompt: Prompt, image: int, chosen: Tensor) -> Tensor:
    """Return the mask (B, n) of the tokens at places (B, k) among those of one image."""
    own = (prompt.image == image).nonzero()[:, 1].unflatten(0, (len(chosen), -1))
    mask = torch.zeros_like(prompt.image, dtype=torch.bool)
    return mask.scatter(1, own.gather(1, chosen), True)


def keep_best(prompt: Prompt, scores: Tensor, pool: Tensor, count: int) -> Tensor:
    """Return the mask (B, n) of all tokens outside the pool and of the `count` best in it; ties go to the lower place.

    scores: (B, n). pool: bool (B, n).
    """
    ranked = scores.masked_fill(~pool, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :count]
    return ~pool | torch.zeros_like(pool).scatter(1, ranked, True)


def cls_attention(visual: Visual, title: str) -> Tensor:
    """Return the attention of CLS to the N patches of an image, (B, N). Raises UsageError without CLS."""
    if visual.seen is None or visual.prefix < 1:
        raise UsageError(
            f"{title} needs the attention of a CLS token of the image encoder, and this model has none; use a method "
            "that works without it (divprune, fastv, random, strided)"
        )
    return visual.seen.cls()[:, visual.prefix :]
