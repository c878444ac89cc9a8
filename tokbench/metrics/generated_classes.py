"""Whether samples show the class that they were drawn for, and how much the samples of one class differ."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tokbench.errors import NotApplicable
from tokbench.metrics.batch import Batch
from tokbench.metrics.classify import ridge_classes
from tokbench.metrics.distribution import Distribution
from tokbench.stats.bootstrap import Interval, bootstrap
from tokbench.stats.split_half import Replicates, SplitHalves
from tokbench.stats.spread import Spread
from tokbench.tokenizers.base import Generator, ImageModel

if TYPE_CHECKING:
    from tokbench.metrics.semantics import LabelsOf

DIVERSITY = "class_diversity"

PARTS = ("content", "style")
"""The parts of a class that a generator may name (`Generator.factors`)."""


class GeneratedClasses(Distribution):
    """`class_accuracy`: the share of samples whose class a probe predicts, in 0..1. `class_diversity`: the mean
    distance of two samples of one class, divided by that of two references of one class; 1 is as diverse as the
    references.

    The probe is a ridge regression on one-hot labels, fitted on the features of all references, in a network and a
    layer that a generator must not have been tuned with. Chance is one divided by the number of classes. Where labels
    are combinations of parts (`Generator.factors`), such as content and style, `content_accuracy` and `style_accuracy`
    come from a probe of their own each.

    Distances are Euclidean in the same features, averaged over all pairs of a class and then over the classes with two
    or more samples. The interval of an accuracy comes from resampling the samples and does not contain the variation of
    the fitted probe; that of the diversity comes from halves of the samples and of the references.
    """

    def __init__(self, model: ImageModel, labels: LabelsOf, **given: Any) -> None:
        """Raises NotApplicable where the model has no classes, or the references have no labels of these classes."""
        super().__init__(**given)
        if not isinstance(model, Generator) or model.classes < 2:
            raise NotApplicable(f"{model.spec.name}: it does not draw samples of given classes")
        self._parts = _parts(model)
        self._labels, self._described = labels(model.classes)
        self._cached: tuple[int, dict[str, np.ndarray]] | None = None

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return super().per_sample(batch) | {"label": batch.require("labels").cpu().numpy()}

    def _right(self) -> dict[str, np.ndarray]:
        """Return whether the probes predict each sample's class and the parts of it, float64 (n,), by number."""
        reference, image = self._all_features()
        if self._cached is None or self._cached[0] != len(image):
            train, test = (torch.from_numpy(part).double() for part in (reference, image))
            known, drawn = self._reference_labels(), self.rows.column("label")
            results = {}
            for name, (step, count) in self._parts.items():
                labels = torch.from_numpy(known // step % count)
                predicted = ridge_classes(train, labels, test, count).numpy()
                results[name] = (predicted == drawn // step % count).astype(np.float64)
            self._cached = len(image), results
        return self._cached[1]

    def _reference_labels(self) -> np.ndarray:
        return self._labels[self.references.index(self._layer)]

    def statistic(self, reference: np.ndarray, image: np.ndarray) -> float:
        """Return the diversity of features (n, D) and (m, D) whose last column is the label."""
        return _distance(image) / _distance(reference)

    def compute(self) -> dict[str, float]:
        self._require_images()
        reference, image = self._labelled()
        shares = {name: float(right.mean()) for name, right in self._right().items()}
        return shares | {DIVERSITY: self.statistic(reference, image)}

    def _labelled(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of references and samples, float64 (n, D + 1) and (m, D + 1), with labels at the end."""
        reference, image = self._all_features()
        return _joined(reference, self._reference_labels()), _joined(image, self.rows.column("label"))

    def per_image(self) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
        index = self.rows.index("label")
        return {name: (index, right) for name, right in self._right().items()}

    def intervals(self, seed: int) -> dict[str, Interval]:
        return {name: bootstrap(right, seed).within((0.0, 1.0)) for name, right in self._right().items()}

    def replicates(self, halves: SplitHalves) -> dict[str, Spread]:
        reference_halves = self._usable_halves(halves, self.min_images)
        if reference_halves is None:
            return {}
        reference, image = self._labelled()
        pairs = zip(reference_halves, halves, strict=True)
        values = np.array([self.statistic(reference[one], image[other]) for one, other in pairs])
        return {DIVERSITY: Replicates(values, None, (0.0, np.inf))} if np.isfinite(values).all() else {}

    def provenance(self) -> dict[str, str]:
        return super().provenance() | {
            "probe": f"ridge regression on the references' labels: {self._described.rule}",
            "labels": hashlib.sha256(self._labels.tobytes()).hexdigest(),
        }


def _parts(model: Generator) -> dict[str, tuple[int, int]]:
    """Return the numbers of the metric, each with the step of its part in the labels and the count of its values.

    Raises NotApplicable where the parts are unknown or do not make up the classes.
    """
    given = dict(model.factors)
    if given and (not given.keys() <= set(PARTS) or math.prod(given.values()) != model.classes):
        raise NotApplicable(
            f"{model.spec.name}: its factors are {given}; give numbers of {' and '.join(PARTS)} whose product is the "
            f"number of classes, {model.classes}"
        )
    parts, step = {"class_accuracy": (1, model.classes)}, model.classes
    for name, count in model.factors.items():
        step //= count
        parts[f"{name}_accuracy"] = step, count
    return parts


def _joined(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.concatenate([features.astype(np.float64), labels[:, None].astype(np.float64)], 1)


def _distance(labelled: np.ndarray) -> float:
    """Return the mean distance of two vectors of one class, NaN where no class has two. The last column is the
    label."""
    means = []
    for label in np.unique(labelled[:, -1]):
        features = torch.from_numpy(labelled[labelled[:, -1] == label, :-1])
        if len(features) > 1:
            means.append(float(torch.pdist(features).mean()))
    return float(np.mean(means)) if means else float("nan")
