"""Runs a prompt through a decoder layer by layer, while visual tokens are removed; then generates words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tokbench.pruning.vlm.model import Prompt, VisionLanguageModel
from tokbench.pruning.vlm.pruner import DecoderView, VlmPruner
from tokbench.timing import timed


@dataclass
class Prefilled:
    """The state after the prefill of B prompts.

    features: outputs of the last layer at the last token (B, D), normed. visual, lengths: for each prompt, the visual
    tokens and all tokens that entered each layer, (B, depth). caches: groups of prompts and their KV caches; there are
    several if a method kept different numbers of tokens.
    """

    features: Tensor
    visual: Tensor
    lengths: Tensor
    prompt: Prompt
    caches: list[tuple[Tensor, Any]] = field(default_factory=list)


class SelectorClock:
    """Sums the seconds of all selections, each with device synchronization; does nothing while it is off."""

    def __init__(self, device: str, on: bool = False) -> None:
        self.device, self.on, self.seconds = device, on, 0.0

    def __call__(self, call: Callable[[], Any]) -> Any:
        if not self.on:
            return call()
        result, seconds = timed(call, self.device)
        self.seconds += seconds
        return result


@torch.inference_mode()
def prefill(
    model: VisionLanguageModel,
    prompt: Prompt,
    pruner: VlmPruner | None,
    keep: float,
    clock: SelectorClock | None = None,
) -> Prefilled:
    """Run embedded prompts through the decoder. At keep 1, or without a pruner, no token is removed."""
    clock = clock or SelectorClock(model.device)
    if keep == 1:
        pruner = None
    count, depth = len(prompt.hidden), model.sizes.depth
    if pruner is not None:
        prompt = clock(partial(pruner.before, prompt, keep))
    counts = torch.zeros(2, count, depth, dtype=torch.int64)
    done = Prefilled(prompt.hidden.new_zeros(count, model.sizes.width), counts[0], counts[1], prompt)
    pending: list[tuple[int, Tensor, Prompt, list[Prompt], Any]] = []
    pending.append((0, torch.arange(count), prompt, [], model.cache()))
    while pending:
        first, rows, part, history, cache = pending.pop()
        for index in range(first, depth):
            if pruner is not None and index and index != first:
                mask = clock(partial(pruner.during, DecoderView(model, index, part, history), keep))
                if mask is not None:
                    kept = mask.sum(1)
                    if int(kept.min()) != int(kept.max()):  # prompts with equal numbers continue together
                        for number in kept.unique():
                            own = (kept == number).nonzero()[:, 0]
                            fewer = part.rows(own).select(mask[own])
                            pending.append((index, rows[own.cpu()], fewer, [], model.split_cache(cache, own)))
                        break
                    if int(kept[0]) < mask.shape[1]:
                        part, history = part.select(mask), []
            done.visual[rows, index] = (part.image >= 0).sum(1).cpu()
            done.lengths[rows, index] = part.hidden.shape[1]
            history = [*history[-1:], part]
            part = replace(part, hidden=model.layer(index, part.hidden, part.positions, cache))
        else:
            done.features[rows.to(done.features.device)] = model.norm(part.hidden[:, -1])
            done.caches.append((rows, cache))
    return done


@torch.inference_mode()
def generate(model: VisionLanguageModel, state: Prefilled, steps: int) -> Tensor:
    """Return `steps` words (B, steps), the most likely one at each step, from the state after a prefill."""
    words = torch.zeros(len(state.features), steps, dtype=torch.int64, device=state.features.device)
    for rows, filled in state.caches:
        own, cache = rows.to(state.features.device), model.fork_cache(filled)
        prompt, word = state.prompt.rows(own), model.logits(state.features[own]).argmax(-1)
        for step in range(steps):
            words[own, step] = word
            if step + 1 < steps:
                word = model.logits(decode(model, prompt, cache, word, step)).argmax(-1)
    return words


@torch.inference_mode()
def decode(model: VisionLanguageModel, prompt: Prompt, cache: Any, words: Tensor, step: int) -> Tensor:
    """Run one generated word (B,) through the decoder; return its features (B, D)."""
    hidden, positions = model.embed_next(words, prompt, step)
    for index in range(model.sizes.depth):
        hidden = model.layer(index, hidden, positions, cache)
    return model.norm(hidden[:, -1])
