"""Base class of the text and face metrics: recognition results, bins by size, the ceiling, and intervals."""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tokbench.data import letterbox
from tokbench.errors import NotApplicable
from tokbench.extractors import pool
from tokbench.io.hashing import code_of
from tokbench.metric_names import MetricName
from tokbench.metric_names.spec import Span, Version
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch
from tokbench.metrics.image_format import scored
from tokbench.protocol.protocol import Protocol
from tokbench.stats.binned import Bin, BinnedMean, binned, mean_of_bins
from tokbench.stats.bootstrap import Interval

if TYPE_CHECKING:
    from tokbench.data.stream import AnnotatedImage

_SHARED_CODE = (Path(letterbox.__file__),)


@dataclass
class AnnotationScores:
    """The scores of n words or faces, in one order.

    axis: TokBench's size ratio (n,). image: the rank of each one's image (n,). scores, ceiling: values by number, (n,)
    each. errors: the numbers for which lower is better; they have no ratio. per: for numbers that are ratios of sums
    rather than means, the denominators (n,); they have no mean of bins. counts: further numbers. shares: the numbers
    with values in 0..1, whose intervals have a width even where all values are 0 or all are 1.
    """

    axis: np.ndarray
    image: np.ndarray
    scores: dict[str, np.ndarray]
    ceiling: dict[str, np.ndarray]
    errors: frozenset[str] = frozenset()
    per: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    shares: frozenset[str] = frozenset()


class AnnotatedMetric(Metric):
    """Numbers of the words or faces in a dataset's annotations.

    The recognizer reads every original once, and the ceiling: the references, which were scaled to the evaluated size
    and back but not tokenized. One line of JSON per image is stored, with the recognition results of every word or
    face.

    For a score `t_acc`, the numbers `t_acc.small`, `.medium` and `.large` are means in TokBench's bins (at 256, 512 and
    1024 px), and `t_acc` is the mean of these three; `t_acc_all` is the mean over all words; `t_acc_curve.8 to 10` is
    the mean over words with that many pixels per character. Each number has a `_ceiling` and, where higher is better, a
    `_ratio` to it. Intervals come from resampling images.
    """

    kind: ClassVar[str]
    """`words` or `faces`."""

    def __init__(self, reader: Any, protocol: Protocol, suffix: str = "") -> None:
        """suffix: appended to the name of every number, so that the numbers of two recognizers differ in name."""
        super().__init__()
        self._reader, self._protocol, self._suffix = reader, protocol, suffix
        self._cached: tuple[tuple[int, int], dict[str, BinnedMean]] | None = None

    @abstractmethod
    def read_originals(self, marked: AnnotatedImage) -> list[dict[str, Any]]:
        """Return, for each word or face of the original image, a dict that JSON can represent."""

    @abstractmethod
    def read_image(self, pixels: np.ndarray, marked: AnnotatedImage, known: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Return the recognition results for another version of the image, uint8 (h, w, 3), for each of the `known`
        words or faces."""

    @abstractmethod
    def score(self, lines: Sequence[list[dict[str, Any]]]) -> AnnotationScores:
        """Return the scores, from the words or faces of each image with their results for `image` and `ceiling`."""

    @abstractmethod
    def bins(self, side: int) -> Sequence[Bin]:
        """Return TokBench's bins for images with that side in pixels, or none where TokBench has none."""

    curve: ClassVar[Sequence[Bin]]
    """Bins by pixels, for images of all sizes."""

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        marked: list[AnnotatedImage] = batch.require("marked")
        images = batch.levels("image", self._protocol.rounding).permute(0, 2, 3, 1).numpy()
        references = batch.levels("reference", self._protocol.rounding).permute(0, 2, 3, 1).numpy()

        def scaled(squares: np.ndarray, at: int) -> np.ndarray:
            height, width = marked[at].pixels.shape[:2]
            square = squares[at] if squares.dtype == np.uint8 else squares[at].round().astype(np.uint8)
            return scored(square, width, height, self._protocol)

        def read_references(span: slice) -> dict[str, np.ndarray]:
            lines = []
            for at in range(*span.indices(len(marked))):
                known = self.read_originals(marked[at])
                ceiling = self.read_image(scaled(references, at), marked[at], known)
                lines.append([entry | {"ceiling": read} for entry, read in zip(known, ceiling, strict=True)])
            return {"read": np.array([json.dumps(line) for line in lines])}

        if batch.references is None or batch.digests is None:
            reference_lines = read_references(slice(None))["read"]
        else:
            reference_lines = batch.references.arrays(self._key, batch.index, batch.digests, read_references)["read"]
        lines = []
        for at, line in enumerate(reference_lines):
            known = json.loads(str(line))
            results = self.read_image(scaled(images, at), marked[at], known)
            lines.append(json.dumps([entry | {"image": read} for entry, read in zip(known, results, strict=True)]))
        return {"read": np.array(lines), "side": np.full(len(lines), max(images.shape[1:3]))}

    @cached_property
    def _key(self) -> str:
        code = code_of(Path(pool.__file__).parent, *sorted(Path(__file__).parent.glob("*.py")), *_SHARED_CODE)
        return f"{self._reader.key}/{self.kind}/{self._protocol.sha256}/{code}"

    def compute(self) -> dict[str, float]:
        scores = self._scores()
        numbers = {name: binned_mean.mean for name, binned_mean in self._numbers(scores, 0).items()}
        for name in scores.scores.keys() - scores.errors:
            whole, ceiling = numbers.get(self._name(name)), numbers.get(self._name(name, "ceiling"))
            if whole is not None and ceiling is not None:
                numbers[self._name(name, "ratio")] = whole / ceiling if ceiling else math.nan
        return numbers | {f"{name}{self._suffix}": count for name, count in scores.counts.items()}

    def intervals(self, seed: int) -> dict[str, Interval]:
        means = self._numbers(self._scores(), seed)
        return {name: Interval(mean.low, mean.high, mean.n) for name, mean in means.items()}

    def readings(self) -> dict[str, list[tuple[int, list[dict[str, Any]]]]]:
        lines = zip(self.rows.index().tolist(), self._lines(), strict=True)
        summaries = [(at, [self.summarize(entry) for entry in line]) for at, line in lines if line]
        return {self.kind + self._suffix: summaries}

    def summarize(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is saved of a word or face together with a result."""
        return dict(entry)

    def _lines(self) -> list[list[dict[str, Any]]]:
        return [json.loads(text) for text in self.rows.texts("read")]

    def provenance(self) -> dict[str, str]:
        return dict(self._reader.describe())

    def _scores(self) -> AnnotationScores:
        scores = self.score(self._lines())
        if not len(scores.axis):
            raise NotApplicable(
                f"no {self.kind} to score: none are annotated, or none were recognized in the originals"
            )
        return scores

    def _numbers(self, scores: AnnotationScores, seed: int) -> dict[str, BinnedMean]:
        """Return means with their intervals, by number. They are cached, since values and intervals are requested
        separately."""
        key = (seed, len(self.rows))
        if self._cached is None or self._cached[0] != key:
            self._cached = key, dict(self._binned(scores, seed))
        return self._cached[1]

    def _name(self, score: str, version: Version = "", span: Span = "", part: str = "") -> str:
        return str(MetricName(score, version=version, span=span, reader=self._suffix, part=part))

    def _binned(self, scores: AnnotationScores, seed: int) -> Iterator[tuple[str, BinnedMean]]:
        """Yield every number by name, except ratios of means of bins."""
        side = int(self.rows.column("side")[0])
        everything, three = [Bin("all", 0, math.inf)], self.bins(side)
        for score, values in scores.scores.items():
            ceiling, per = scores.ceiling[score], scores.per.get(score)
            versions: list[tuple[Version, np.ndarray, np.ndarray | None]] = [
                ("", values, per),
                ("ceiling", ceiling, per),
            ]
            if score not in scores.errors:
                versions.append(("ratio", values, ceiling))
            for version, measured, divisor in versions:
                share = score in scores.shares
                rest = (seed, scores.image, divisor, share)
                (whole,) = binned(measured, scores.axis, everything, *rest)
                yield self._name(score, version, "all"), whole
                for mean in binned(measured, scores.axis * side, self.curve, *rest):
                    if mean.n:
                        yield self._name(score, version, "curve", mean.bin.name), mean
                if not three or per is not None:
                    continue
                for mean in binned(measured, scores.axis, three, *rest):
                    yield self._name(score, version, part=mean.bin.name), mean
                if version != "ratio":
                    yield (
                        self._name(score, version),
                        mean_of_bins(measured, scores.axis, three, seed, scores.image, share),
                    )
