"""Measurements of one method on a vision-language model: answers, token counts, and time at batch 1."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tokbench.data.dataset import Dataset
from tokbench.data.questions import majority_shares
from tokbench.errors import DataError
from tokbench.pruning.paired_timing import TRIES, rounded, speedup_of, time_alternately
from tokbench.pruning.result import Estimate
from tokbench.pruning.vlm.model import Asked, VisionLanguageModel
from tokbench.pruning.vlm.prefill import Prefilled, SelectorClock, generate, prefill
from tokbench.pruning.vlm.pruner import VlmPruner
from tokbench.pruning.vlm.result import TypeAccuracy, VlmTiming
from tokbench.stats.bootstrap import bootstrap_pairs, mean, metric_entry, share_interval

CHUNK = 50
"""Images per batch when measuring accuracy."""

DECODED, ANSWER = 8, 2
"""Tokens that are generated to time decoding, and to time an answer with its end."""


@dataclass(frozen=True)
class Answers:
    """Answers to Q questions.

    ids: names. kinds: types. right: whether the answer is correct, (Q,), 1 or 0. given: the correct answers. visual,
    lengths: visual tokens and all tokens that entered each layer, (Q, depth).
    """

    ids: tuple[str, ...]
    kinds: tuple[str, ...]
    right: np.ndarray
    given: tuple[str, ...]
    visual: np.ndarray
    lengths: np.ndarray

    @property
    def floors(self) -> dict[str, float]:
        """The share of the most frequent answer of each type."""
        by_kind = defaultdict(list)
        for kind, answer in zip(self.kinds, self.given, strict=True):
            by_kind[kind].append(answer)
        return majority_shares(by_kind)


@torch.inference_mode()
def ask(
    model: VisionLanguageModel,
    dataset: Dataset,
    pruner: VlmPruner | None,
    keep: float,
    progress: Callable[[int, int], None],
    change: Callable[[Asked], Asked] = lambda asked: asked,
) -> Answers:
    """Return the answers to all questions about a data set. change: is applied to the prompts first.

    Raises DataError if there are no questions.
    """
    ids, kinds, given, seen = list[str](), list[str](), list[str](), set[str]()
    right, visual, lengths = list[bool](), list[Tensor](), list[Tensor]()
    for asked in map(change, model.questions(dataset, CHUNK)):
        state = run(model, asked, pruner, keep)
        answers = model.read(partial(generate, model, state), model.logits(state.features).argmax(-1))
        right += [found == wanted for found, wanted in zip(answers, asked.answers, strict=True)]
        ids += asked.ids
        kinds += [asked.kind] * len(asked.ids)
        given += asked.answers
        visual.append(state.visual)
        lengths.append(state.lengths)
        seen.update(name.rpartition(" ")[0] for name in asked.ids)
        progress(len(seen), len(dataset))
    dataset.refuse_empty()
    if not ids:
        raise DataError(f"{dataset.name}: no question could be asked; use more images (--limit)")
    counted = (torch.cat(counts).numpy() for counts in (visual, lengths))
    return Answers(tuple(ids), tuple(kinds), np.array(right, dtype=float), tuple(given), *counted)


def run(model: VisionLanguageModel, asked: Asked, pruner: VlmPruner | None, keep: float) -> Prefilled:
    """Return the state after the prefill of prompts; images are resized if the method asks for it."""
    side = model.side if pruner is None else pruner.side(model, keep)
    return prefill(model, model.embed(asked, side), pruner, keep)


def compare(own: Answers, whole: Answers) -> tuple[Estimate, Estimate, dict[str, TypeAccuracy]]:
    """Return the accuracy, its paired difference to the model with all tokens, and both by type of question.

    Raises DataError if the questions differ.
    """
    if own.ids != whole.ids:
        raise DataError("some images could be read in only one of two passes; run the command again")
    kinds, floors, types = np.array(own.kinds), own.floors, {}
    for kind in sorted(set(own.kinds)):
        chosen = kinds == kind
        accuracy, gap = _both(own.right[chosen], whole.right[chosen])
        types[kind] = TypeAccuracy(accuracy, gap, rounded(mean(whole.right[chosen])), rounded(floors[kind]))
    return *_both(own.right, whole.right), types


def _both(own: np.ndarray, whole: np.ndarray) -> tuple[Estimate, Estimate]:
    accuracy = metric_entry(mean(own), share_interval(own))
    gap = metric_entry(mean(own) - mean(whole), bootstrap_pairs(whole, own, 0))
    return Estimate(**accuracy), Estimate(**gap)


@torch.inference_mode()
def time_method(
    model: VisionLanguageModel, asked: Asked, pruner: VlmPruner, keep: float, repetitions: int
) -> VlmTiming:
    """Time one prompt with the method and with all tokens alternately. asked: a single prompt."""
    side, device = pruner.side(model, keep), model.device
    whole_prompt, prompt = model.embed(asked, model.side), model.embed(asked, side)
    whole, own = prefill(model, whole_prompt, None, 1.0), prefill(model, prompt, pruner, keep)

    def total(chosen: VlmPruner | None, share: float) -> None:
        generate(model, run(model, asked, chosen, share), ANSWER)

    timings = [
        time_alternately(first, second, repetitions, device)
        for first, second in (
            (partial(prefill, model, whole_prompt, None, 1.0), partial(prefill, model, prompt, pruner, keep)),
            (partial(generate, model, whole, DECODED + 1), partial(generate, model, own, DECODED + 1)),
            (partial(total, None, 1.0), partial(total, pruner, keep)),
        )
    ]
    spent = []
    for _ in range(TRIES):
        clock = SelectorClock(device, on=True)
        prefill(model, prompt, pruner, keep, clock)
        spent.append(clock.seconds)
    prefilling, decoding, all_of_it = timings
    return VlmTiming(
        speedup_of(prefilling),
        speedup_of(decoding, DECODED),
        speedup_of(all_of_it),
        rounded(float(np.median(spent)) * 1000),
    )
