"""The benchmark of vision-language models: measures methods at several keeps, and saves every measured row."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tokbench import timing
from tokbench._version import __version__
from tokbench.data.dataset import Dataset, open_dataset
from tokbench.errors import UsageError
from tokbench.io.hashing import code_of
from tokbench.paths import PACKAGE
from tokbench.protocol.protocol import TOKBENCH, describe_protocol
from tokbench.pruning import paired_timing
from tokbench.pruning.benchmark import processor_of
from tokbench.pruning.kinds import Progress, PruneRequest
from tokbench.pruning.measure import rounded
from tokbench.pruning.result import PruningResult, packed
from tokbench.pruning.vlm.measure import Answers, ask, compare, disturbed, time_method
from tokbench.pruning.vlm.methods import CONTROLS, METHODS
from tokbench.pruning.vlm.mini import MiniModel, without_demonstrations
from tokbench.pruning.vlm.model import FORMULA, Asked, Prompt, VisionLanguageModel, flops, kv_bytes
from tokbench.pruning.vlm.pruner import VlmPruner
from tokbench.pruning.vlm.result import JUDGED, VlmRow
from tokbench.timing import device_name

CALIBRATION = 64
"""Images of the calibration set from which prompts are made, at most one batch of each type."""

SAMPLES = 30
"""Largest number of prompts for calibration; the authors of VFlowOpt use 30."""


class VlmBenchmark:
    """Benchmark of methods that remove visual tokens, in one model, on one data set and device."""

    def __init__(
        self, model: VisionLanguageModel, dataset: Dataset, request: PruneRequest, warn: Callable[[str], None]
    ) -> None:
        self.model, self.dataset, self.request, self.warn = model, dataset, request, warn
        self._whole: Answers | None = None
        self._calibration: list[Prompt] | None = None
        self._alone: float | None = None

    @property
    def controls(self) -> tuple[str, ...]:
        """The controls of every table; a model that resizes all images to one size has none at lower resolution."""
        counts = {count for _, count in self.model.sides()}
        return CONTROLS if len(counts) > 1 else tuple(name for name in CONTROLS if name != "lower_resolution")

    def run(
        self, name: str, keeps: Sequence[float], out: Path, progress: Progress
    ) -> Iterator[tuple[PruningResult, str]]:
        """Measure the rows of a method that are not in `out` yet; yield the result and the row's key after each row.

        Raises UsageError if the method is unknown, needs what the model does not have, or removes no token.
        """
        if name not in METHODS:
            raise UsageError(f"unknown method '{name}'; available: {', '.join(METHODS)}")
        pruner = METHODS[name]()
        whole = self.whole(progress)
        for keep in keeps:
            result = PruningResult(self.about(name, pruner, whole)).resumed(out)
            key = f"{keep:g}"
            row = result.rows.get(key)
            seconds = self.calibrate(pruner, keep) if row is None or self.untimed(row) else 0.0
            if row is None:
                row = result.rows[key] = self.row(name, pruner, keep, whole, seconds, progress)
                result.save(out)
            while self.untimed(row):
                progress(f"{name} {keep:g} timings", 0, 1)
                tries = row.pace.tries if row.pace else 0
                row.pace = time_method(
                    self.model, self.first_prompt(), pruner, keep, self.request.repetitions, tries + 1
                )
                result.save(out)
            yield result, key

    def untimed(self, row: VlmRow) -> bool:
        """Return whether a row must be timed, for the first time or again because the machine was disturbed."""
        if self.request.batches == ():
            return False
        return row.pace is None or (disturbed(row.pace) and row.pace.tries < self.request.tries)

    def whole(self, progress: Progress) -> Answers:
        """Return the answers with all tokens, computed once."""
        if self._whole is None:
            model, dataset = self.model, self.dataset
            self._whole = ask(model, dataset, None, 1.0, partial(progress, "whole questions"))
            if self._several():
                alone = ask(model, dataset, None, 1.0, partial(progress, "queries alone"), without_demonstrations)
                self._alone = float(alone.right.mean())
            if self._whole.right.mean() < JUDGED:
                self.warn(
                    f"with all tokens, {100 * self._whole.right.mean():.1f} % of the answers are correct; below "
                    f"{100 * JUDGED:.0f} %, no verdict on a method is drawn"
                )
        return self._whole

    def _several(self) -> bool:
        return isinstance(self.model, MiniModel) and self.model.several

    def first_prompt(self) -> Asked:
        return next(iter(self.model.questions(self.dataset, 1))).first(1)

    def calibrate(self, pruner: VlmPruner, keep: float) -> float:
        """Choose the parameters of a method that has some; return the seconds that this took."""
        if not pruner.calibrates or keep == 1:
            return 0.0
        if self._calibration is None:
            model = self.model
            images = open_dataset(model.calibration, TOKBENCH, None, CALIBRATION, self.request.root)
            asked = list(model.questions(images, CALIBRATION))
            share = max(1, SAMPLES // len(asked))
            self._calibration = [model.embed(one.first(share), model.side) for one in asked]
        start = time.monotonic()
        pruner.calibrate(self.model, self._calibration, keep)
        return time.monotonic() - start

    def row(
        self, name: str, pruner: VlmPruner, keep: float, whole: Answers, seconds: float, progress: Progress
    ) -> VlmRow:
        """Measure one keep, without its timings."""
        sizes = self.model.sizes
        own = ask(self.model, self.dataset, pruner, keep, partial(progress, f"{name} {keep:g} questions"))
        accuracy, gap, types = compare(own, whole)
        total = float(whole.visual.mean())
        applied = float(own.visual.mean()) / total
        if keep < 1 and applied >= 1:
            raise UsageError(
                f"no visual token was removed from any of {len(own.ids)} prompts at keep {keep:g}, so there is nothing "
                "to measure: the method does not reduce the tokens of this model"
            )
        costs = {
            key: [float(sum(of(sizes, lengths) for lengths in found.lengths.tolist())) / len(found.ids) for of in FACTS]
            for key, found in (("own", own), ("whole", whole))
        }
        parameters = getattr(pruner, "parameters", {}).get(keep)
        return VlmRow(
            title=pruner.title,
            accuracy=accuracy,
            gap=gap,
            types=types,
            right=packed(own.right),
            applied=rounded(applied),
            visual=[rounded(value) for value in own.visual.mean(0).tolist()],
            tokens=[rounded(value) for value in own.lengths.mean(0).tolist()],
            side=pruner.side(self.model, keep),
            gflops=costs["own"][0] / 1e9,
            whole_gflops=costs["whole"][0] / 1e9,
            kv_bytes=costs["own"][1],
            whole_kv_bytes=costs["whole"][1],
            parameters_seconds=round(seconds, 1),
            parameters={} if parameters is None else asdict(parameters),
        )

    def about(self, name: str, pruner: VlmPruner, whole: Answers) -> dict[str, Any]:
        """Return the metadata shared by all rows of a method."""
        dataset, model = self.dataset, self.model
        return {
            "kind": "vlm",
            "model": model.name,
            "method": name,
            "title": pruner.title,
            "source": pruner.source,
            "training": "none",
            "dataset": dataset.name,
            "num_images": len(dataset.names),
            "num_questions": len(whole.ids),
            "whole": {
                "accuracy": rounded(float(whole.right.mean())),
                "types": {kind: int(sum(one == kind for one in whole.kinds)) for kind in sorted(set(whole.kinds))},
            }
            | ({} if self._alone is None else {"without_demonstrations": rounded(self._alone)}),
            "short": bool(whole.right.mean() < JUDGED),
            "provenance": {
                "device": device_name(model.device),
                "processor": processor_of(model.device),
                "kernel": "sdpa",
                "repetitions": self.request.repetitions,
                "round_to": 1,
                "formula": FORMULA,
                "weights": model.weights,
                "data": {"sha256": dataset.sha256, "limit": dataset.limit, "side": model.side},
                "protocol": describe_protocol(dataset.protocol),
                "code_sha256": code_of(PACKAGE / "pruning", *map(Path, (paired_timing.__file__, timing.__file__))),
                "versions": {"tokbench": __version__, "python": platform.python_version()}
                | {package: importlib.metadata.version(package) for package in ("torch", "numpy", "scikit-learn")},
            },
        }


FACTS = (flops, kv_bytes)
