"""The benchmark of classifiers: accuracy on labelled images, FLOPs, and time relative to the full network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tokbench.data.dataset import Dataset
from tokbench.data.labels import at_chance
from tokbench.pruning.benchmark import Benchmark, BenchmarkConfig, FullModel, label_of
from tokbench.pruning.claims import JUDGED, claims_about
from tokbench.pruning.classifier.candidates import candidates_of, with_own_network
from tokbench.pruning.classifier.measure import (
    Candidate,
    Predictions,
    accuracy,
    best_kernel,
    check_same,
    counted_flops,
    gflops,
    predict,
    time_candidate,
)
from tokbench.pruning.classifier.models import ImageClassifier, LabelledImages
from tokbench.pruning.classifier.result import ClassifierRow, ClassifierTiming
from tokbench.pruning.flops import FORMULA
from tokbench.pruning.kind_names import CLASSIFIER
from tokbench.pruning.request import Progress
from tokbench.pruning.result import WHOLE, packed
from tokbench.pruning.vit import Kernel, images_like, recognise


class ClassifierBenchmark(Benchmark[Candidate, ClassifierRow, Predictions, Dataset]):
    """Benchmark of token-reduction methods in one classifier, on one dataset and device."""

    kind, formula, packages = CLASSIFIER, FORMULA, ("torch", "timm", "numpy")
    sources = ("nn/classifier.py", "nn/text.py")

    def __init__(
        self,
        classifier: ImageClassifier,
        images: LabelledImages,
        device: str,
        config: BenchmarkConfig,
        root: Path | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        profile = classifier.training.get("recipe", {}).get("profile")
        model = FullModel(classifier.name, device, classifier.side, classifier.weights, profile)
        super().__init__(model, images.dataset, config, say)
        self.classifier, self.images, self.device, self.root = classifier, images, device, root
        self.whole = Candidate(WHOLE, WHOLE, None, classifier.vit, classifier.vit)
        self.kernels: dict[int, Kernel] = {}
        """The faster attention kernel of the full network, by batch size."""

    def candidates(self, name: str, keeps: Sequence[float]) -> Iterator[Candidate]:
        for candidate in candidates_of(name, self.classifier, keeps, self.device, self.config.rates, self.root):
            if candidate.pruner is not None:
                check_same(candidate.vit, candidate.pruner)
            yield candidate

    def measure_whole(self, progress: Progress) -> Predictions:
        found, _ = predict(self.whole, self.images, self.device, "sdpa", 1, partial(progress, "whole images"))
        return found

    @property
    def num_images(self) -> int:
        return len(self.full.index)

    @property
    def short(self) -> bool:
        """Whether the network was trained on a CPU for minutes and does not reach an accuracy that is judged."""
        return self.model.training_profile == "cpu" and bool(self.full.first.mean() < JUDGED)

    @property
    def quality(self) -> str:
        return f"the full network classifies {100 * self.full.first.mean():.1f} % correctly; below {100 * JUDGED:.0f} %"

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt that the labels match the network.

        An undertrained network is not checked for accuracy at chance level.
        """
        labels, whole = self.images.labels, self.full
        chance = None if self.short else at_chance(int(whole.first.sum()), len(whole.labels), labels.classes)
        return [*labels.warnings, *([chance] if chance else [])]

    def row(self, candidate: Candidate, progress: Progress) -> ClassifierRow:
        config = self.config
        own, counts = predict(
            candidate, self.images, self.device, config.kernel, config.round_to,
            partial(progress, f"{label_of(candidate)} images"),
        )  # fmt: skip
        found = accuracy(own, self.full)
        formula, formula_whole = gflops(counts, candidate, self.whole)
        images = images_like(recognise(self.classifier.vit), 1)
        # Nothing is known about the training of rates that the user gives.
        given_rates = candidate.training != "none" and not candidate.trained
        unknown = None if given_rates else 0
        return ClassifierRow(
            title=candidate.title,
            network=candidate.network or self.classifier.name,
            top1=found["top1"],
            top5=found["top5"],
            agreement=found["agreement"],
            top1_gap=found["top1_gap"],
            top5_gap=found["top5_gap"],
            right=packed(own.first),
            tokens=list(counts),
            gflops=formula,
            whole_gflops=formula_whole,
            counted_gflops=counted_flops(candidate, images, config.round_to) / 1e9,
            training_seconds=candidate.trained.get("seconds", unknown),
            training_images=candidate.trained.get("images", unknown),
            training_profile=candidate.trained.get("recipe", {}).get("profile"),
            weights=candidate.weights,
            pace=[],
        )

    def time(self, candidate: Candidate, batch: int) -> ClassifierTiming:
        config = self.config
        if batch not in self.kernels:
            self.kernels[batch] = best_kernel(self.whole, batch, self.device, config.repetitions)
        return time_candidate(
            with_own_network(candidate), self.whole, batch, self.device, self.kernels[batch], config.kernel,
            config.repetitions, config.round_to,
        )  # fmt: skip

    def about(self, candidate: Candidate) -> dict[str, Any]:
        about, dataset = super().about(candidate), self.dataset
        measured = [dataset.source.names[position] for position in self.full.index.tolist()]
        about["provenance"]["labels"] = self.images.labels.facts(measured) | {"warnings": self.warnings}
        return about | claims_about(candidate.claims)
