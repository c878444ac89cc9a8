"""Paired timing of classifiers, and the tables and files of pruning results, without a trained network."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tokbench.errors import DataError, ResultError, UsageError
from tokbench.pruning import table
from tokbench.pruning.classifier.candidates import with_own_network
from tokbench.pruning.classifier.measure import Candidate, Predictions, accuracy, best_kernel, time_candidate
from tokbench.pruning.classifier.result import ClassifierRow
from tokbench.pruning.paired_timing import PairedTiming, time_alternately
from tokbench.pruning.result import Estimate, PruningResult, Speedup, load


def test_a_paired_timing_is_the_ratio_of_medians_with_an_interval_and_a_control() -> None:
    drawn = np.random.default_rng(0)
    noise = drawn.normal(1, 0.005, (20, 4))
    first, second = 0.3 * noise[:, :2], 0.2 * noise[:, 2:]
    timing = PairedTiming(first, second)
    low, high = timing.interval()
    assert low < timing.ratio < high
    assert timing.ratio == pytest.approx(1.5, rel=0.01)
    assert timing.measured
    assert not PairedTiming(first, 0.3 * noise[:, 2:]).measured  # the interval contains 1
    crooked = first.copy()
    crooked[::2, 0] *= 1.2
    crooked[1::2, 1] *= 1.2  # half of the calls, not by their place in a round
    assert abs(PairedTiming(crooked, second).control - 1) > 0.03
    assert not PairedTiming(crooked, second).measured
    placed = first * np.array([1.1, 1.0])  # by their place: both halves hold as many
    assert abs(PairedTiming(placed, second).control - 1) < 0.03


def test_calls_alternate_after_a_warm_up() -> None:
    calls: list[str] = []
    timing = time_alternately(lambda: calls.append("a"), lambda: calls.append("b"), 30, "cpu")
    assert timing.first.size == timing.second.size == 30
    assert "".join(calls) == "ab" * 10 + "abba" * 15


@pytest.mark.slow
def test_the_faster_kernel_is_the_one_whose_clock_says_so(
    small_vit: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    vit = small_vit()
    whole, slow = Candidate("whole", "whole", None, vit, vit), [""]

    def waiting(attention: nn.Module, *given: Any, **more: Any) -> torch.Tensor:
        if attention.fused_attn == (slow[0] == "sdpa"):
            time.sleep(0.001)
        return forward(attention, *given, **more)

    forward = type(vit.blocks[0].attn).forward  # type: ignore[index]
    monkeypatch.setattr(type(vit.blocks[0].attn), "forward", waiting)  # type: ignore[index]
    for slow[0], fast in (("sdpa", "eager"), ("eager", "sdpa")):
        assert best_kernel(whole, 1, "cpu", 30) == fast


def test_rows_that_are_no_speed_up_say_so() -> None:
    speedup = Speedup(1.4, 0.9, 2.0, control=1.0, measured=False, whole_ms=14.0, ms=10.0, repetitions=30)
    assert table.faster(speedup) == "none measured"
    assert table.faster(replace(speedup, measured=True)) == "1.40 [0.90, 2.00]"


def test_accuracies_on_other_images_are_not_compared() -> None:
    top = np.zeros((2, 5), dtype=int)
    first, second = (Predictions(np.array(index), np.zeros(2, dtype=int), top) for index in ([0, 1], [0, 2]))
    assert accuracy(first, first)["agreement"].value == 1
    with pytest.raises(DataError, match="run the command again"):
        accuracy(first, second)


def test_a_network_is_timed_against_a_copy_alone(small_vit: Callable[..., nn.Module]) -> None:
    vit = small_vit()
    whole = Candidate("whole", "whole", None, vit, vit)
    with pytest.raises(UsageError, match="needs a copy"):
        time_candidate(whole, whole, 1, "cpu", "sdpa", "sdpa", 30)
    timing = time_candidate(with_own_network(whole), whole, 1, "cpu", "eager", "sdpa", 30)
    assert timing.best_kernel == "eager" and timing.speedup.repetitions == 30
    assert timing.speedup != timing.speedup_same_kernel


@pytest.mark.parametrize("text", ["", "{", "[]", '{"about": {}, "rows": {}}', '{"rows": {"0.5": {}}}'])
def test_broken_facts_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "prune-x.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=r"prune-x\.json"):
        load(path)


def classifier_row(profile: str | None) -> ClassifierRow:
    share = Estimate(0.5, 0.4, 0.6, 1)
    return ClassifierRow(
        title="x", network="m", top1=share, top5=share, agreement=share, top1_gap=share, top5_gap=share, right="00",
        tokens=[(5, 5)], gflops=1.0, whole_gflops=1.0, counted_gflops=1.0, training_seconds=0, training_images=0,
        training_profile=profile, weights={}, pace=[],
    )  # fmt: skip


def test_facts_with_a_row_without_its_numbers_are_named(tmp_path: Path) -> None:
    provenance = {"device": "cpu", "processor": "", "kernel": "sdpa", "round_to": 1, "formula": "", "weights": {},
            "data": {"limit": None, "side": 64, "sha256": "d"}}  # fmt: skip
    about = {"model": "m", "method": "x", "title": "x", "training": "none", "dataset": "d", "num_images": 1,
             "short": False, "provenance": provenance}  # fmt: skip
    row = classifier_row(None)
    path = PruningResult(about, {"0.5": row}).save(tmp_path)
    assert load(path) == PruningResult(about, {"0.5": row})
    whole = json.loads(path.read_text())
    for key in whole["rows"]["0.5"]:
        rows = {"0.5": {name: value for name, value in whole["rows"]["0.5"].items() if name != key}}
        path.write_text(json.dumps(whole | {"rows": rows}))
        with pytest.raises(ResultError, match=rf"rows\['0\.5'\]\.{key} is missing; delete it and run again"):
            load(path)
    for wrong, message in (("0.5", "must be a number, but it is '0.5'"), (True, "must be a number, but it is True")):
        rows = {"0.5": whole["rows"]["0.5"] | {"top5": {"value": wrong, "low": 0, "high": 1, "n": 1}}}
        path.write_text(json.dumps(whole | {"rows": rows}))
        with pytest.raises(ResultError, match=rf"rows\['0\.5'\]\.top5\.value {message}"):
            load(path)


def test_a_short_training_is_judged_if_the_full_model_is_accurate_after_one() -> None:
    row = classifier_row("cpu")
    assert not table.undertrained(PruningResult({"training_profile": "cpu", "short": False}), row)
    assert table.undertrained(PruningResult({"training_profile": "cpu", "short": True}), row)
    assert table.undertrained(PruningResult({"training_profile": "gpu", "short": False}), row)
    assert table.undertrained(PruningResult({"short": False}), row)  # older files do not state the profile
    assert not table.undertrained(PruningResult({"short": True}), replace(row, training_profile="gpu"))
