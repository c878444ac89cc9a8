"""Average precision of detections by pycocotools, with a jackknife over groups of images."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokbench.errors import DataError, UsageError
from tokbench.pruning.result import Estimate
from tokbench.stats.bootstrap import Interval, jackknife_deviation, metric_entry, students_t

GROUPS = 20
"""The number of groups of images of the jackknife, each of which is left out once."""

NUMBERS = ("ap50", "ap")
"""AP at an intersection over union of 0.5, and the mean of AP at 0.5 to 0.95 in steps of 0.05 (COCO)."""


@dataclass(frozen=True)
class Detections:
    """The detections in one image: scores (n,), classes (n,), and boxes (n, 4), corners in shares of the side."""

    scores: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class Precision:
    """The numbers of a set of images, and those without each group of images, (GROUPS,), by name.

    index: positions of the images. Fewer images than GROUPS have a group each.
    """

    values: dict[str, float]
    without: dict[str, np.ndarray]
    index: tuple[int, ...]

    def estimate(self, name: str) -> Estimate:
        """Return a number with its 95 % interval, limited to [0, 1]."""
        low, high = interval_without(self.values[name], self.without[name])
        return self._estimate(self.values[name], max(low, 0.0), min(high, 1.0))

    def gap(self, name: str, whole: Precision) -> Estimate:
        """Return the difference from the full network, with its paired 95 % interval.

        Raises DataError if the two cover different images.
        """
        if self.index != whole.index:
            raise DataError("some images could be read in only one of two passes; run the command again")
        value = self.values[name] - whole.values[name]
        return self._estimate(value, *interval_without(value, self.without[name] - whole.without[name]))

    def _estimate(self, value: float, low: float, high: float) -> Estimate:
        count = len(self.index)
        return Estimate(**metric_entry(value, Interval(low, high, count)))


def interval_without(value: float, without: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a value from its values without each group of images (delete-a-group jackknife).

    Its ends are NaN for a single group.
    """
    if len(without) < 2:
        return math.nan, math.nan
    reach = students_t(len(without) - 1) * jackknife_deviation(without)
    return value - reach, value + reach


def _library() -> tuple[Any, Any]:
    try:
        coco, cocoeval = (importlib.import_module(f"pycocotools.{part}") for part in ("coco", "cocoeval"))
    except ImportError as error:
        raise UsageError(f"average precision needs pycocotools ({error}); pip install 'tokbench[detect]'") from error
    return coco, cocoeval


def average_precision(
    found: Sequence[Detections], truths: Sequence[np.ndarray], index: Sequence[int], side: int
) -> Precision:
    """Return the numbers NUMBERS of N images, in [0, 1].

    found: the detections in each image. truths: the true boxes of each image (m, 5), class and corners in shares of the
    side. index: positions of the images. side: of the images in pixels. Raises UsageError without pycocotools.
    """
    coco, cocoeval = _library()
    classes = sorted({int(kind) for own in truths for kind in own[:, 0]})
    images = [{"id": number + 1, "width": side, "height": side} for number in range(len(truths))]
    boxes: list[dict[str, Any]] = [
        {"image_id": number + 1, "category_id": int(row[0]), "bbox": _box(row[1:], side), "iscrowd": 0}
        for number, own in enumerate(truths)
        for row in own
    ]
    boxes = [
        entry | {"id": place + 1, "area": entry["bbox"][2] * entry["bbox"][3]} for place, entry in enumerate(boxes)
    ]
    predicted = [
        {"image_id": number + 1, "category_id": int(kind), "bbox": _box(box, side), "score": float(score)}
        for number, own in enumerate(found)
        for score, kind, box in zip(own.scores, own.classes, own.boxes, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints its progress
        reference = coco.COCO()
        reference.dataset = {"images": images, "annotations": boxes, "categories": [{"id": kind} for kind in classes]}
        reference.createIndex()
        evaluation = cocoeval.COCOeval(reference, reference.loadRes(predicted) if predicted else coco.COCO(), "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        matched, count = evaluation.evalImgs, len(images)
        values = _numbers(evaluation, matched)
        without: dict[str, list[float]] = {name: [] for name in NUMBERS}
        for group in range(min(GROUPS, count)):
            kept = [None if place % count % GROUPS == group else entry for place, entry in enumerate(matched)]
            for name, value in _numbers(evaluation, kept).items():
                without[name].append(value)
    return Precision(values, {name: np.array(row) for name, row in without.items()}, tuple(index))


def _numbers(evaluation: Any, matched: Sequence[Any]) -> dict[str, float]:
    """Return NUMBERS of the images whose matches are not None. matched: by class and image."""
    evaluation.evalImgs = list(matched)
    evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (thresholds, recalls, classes, areas, limits), -1 without true boxes
    parts = {"ap50": precision[:1], "ap": precision}
    return {name: float(part[part > -1].mean()) if (part > -1).any() else 0.0 for name, part in parts.items()}


def _box(corners: np.ndarray, side: int) -> list[float]:
    """Return left, top, width and height in pixels of corners (4,) in shares of the side."""
    left, top, right, bottom = (float(edge) * side for edge in corners)
    return [left, top, max(right - left, 0.0), max(bottom - top, 0.0)]
