"""What numbers of words and of faces share: one pass of readings, bins by size, the ceiling, and intervals."""

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

_ALSO = (Path(letterbox.__file__),)


@dataclass
class Found:
    """Words or faces, n of them, in one order: `axis` is TokBench's ratio, `image` the position of each one's image.

    scores, ceiling: by number, (n,) each. errors: the numbers of which less is better; they get no ratio. per: of
    numbers that are no plain means, what their sums are divided by; they get no mean of bins. shares: those of values
    in 0..1, whose intervals have a width also where all values are 0, or 1.
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
    """Numbers of the words or the faces that a dataset's annotations name.

    The originals are read once, and the ceiling: the references, which were scaled to the size and back but not
    tokenized. What is remembered of an image is one line of JSON, in which every word or face has its readings.

    Of a score `t_acc`, `t_acc.small`, `.medium` and `.large` are the means in TokBench's bins (at 256, 512 and 1024 px)
    and `t_acc` is the mean of these three; `t_acc_all` is the mean of all; `t_acc_curve.8 to 10` is the mean of those
    with so many pixels a character. Beside each is its `_ceiling`, and the `_ratio` to it where more is better;
    intervals come from resampling images.
    """

    kind: ClassVar[str]
    """`words` or `faces`."""

    def __init__(self, reader: Any, protocol: Protocol, suffix: str = "") -> None:
        """`suffix` joins every number's name, so that two readers never share a column."""
        super().__init__()
        self._reader, self._protocol, self._suffix = reader, protocol, suffix
        self._made: tuple[tuple[int, int], dict[str, BinnedMean]] | None = None

    @abstractmethod
    def originals(self, marked: AnnotatedImage) -> list[dict[str, Any]]:
        """What is read in the image file: for each word or face a dict that JSON can hold."""

    @abstractmethod
    def again(self, pixels: np.ndarray, marked: AnnotatedImage, known: Sequence[Mapping[str, Any]]) -> list[Any]:
        """What is read in another version of it, uint8 (h, w, 3), for each of those."""

    @abstractmethod
    def found(self, lines: Sequence[list[dict[str, Any]]]) -> Found:
        """Scores, from each image's words or faces with their `image` and `ceiling` readings."""

    @abstractmethod
    def bins(self, side: int) -> Sequence[Bin]:
        """TokBench's bins for images of that side; none where it has none."""

    curve: ClassVar[Sequence[Bin]]
    """Bins over pixels, for all sides."""

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        marked: list[AnnotatedImage] = batch.require("marked")
        images = batch.levels("image", self._protocol.rounding).permute(0, 2, 3, 1).numpy()
        references = batch.levels("reference", self._protocol.rounding).permute(0, 2, 3, 1).numpy()

        def scaled(squares: np.ndarray, at: int) -> np.ndarray:
            height, width = marked[at].pixels.shape[:2]
            square = squares[at] if squares.dtype == np.uint8 else squares[at].round().astype(np.uint8)
            return scored(square, width, height, self._protocol)

        def look(some: slice) -> dict[str, np.ndarray]:
            lines = []
            for at in range(*some.indices(len(marked))):
                known = self.originals(marked[at])
                ceiling = self.again(scaled(references, at), marked[at], known)
                lines.append([one | {"ceiling": read} for one, read in zip(known, ceiling, strict=True)])
            return {"read": np.array([json.dumps(line) for line in lines])}

        if batch.references is None or batch.digests is None:
            before = look(slice(None))["read"]
        else:
            before = batch.references.arrays(self._key, batch.index, batch.digests, look)["read"]
        lines = []
        for at, line in enumerate(before):
            known = json.loads(str(line))
            read = self.again(scaled(images, at), marked[at], known)
            lines.append(json.dumps([one | {"image": got} for one, got in zip(known, read, strict=True)]))
        return {"read": np.array(lines), "side": np.full(len(lines), max(images.shape[1:3]))}

    @cached_property
    def _key(self) -> str:
        code = code_of(Path(pool.__file__).parent, *sorted(Path(__file__).parent.glob("*.py")), *_ALSO)
        return f"{self._reader.key}/{self.kind}/{self._protocol.sha256}/{code}"

    def compute(self) -> dict[str, float]:
        found = self._found()
        numbers = {name: one.mean for name, one in self._numbers(found, 0).items()}
        for name in found.scores.keys() - found.errors:
            whole, ceiling = (numbers.get(self._name(name, end)) for end in ("", "ceiling"))
            if whole is not None and ceiling is not None:
                numbers[self._name(name, "ratio")] = whole / ceiling if ceiling else math.nan
        return numbers | {f"{name}{self._suffix}": count for name, count in found.counts.items()}

    def intervals(self, seed: int) -> dict[str, Interval]:
        return {name: Interval(one.low, one.high, one.n) for name, one in self._numbers(self._found(), seed).items()}

    def readings(self) -> dict[str, list[tuple[int, list[dict[str, Any]]]]]:
        lines = zip(self.rows.index().tolist(), self._lines(), strict=True)
        return {self.kind + self._suffix: [(at, [self.shown(one) for one in line]) for at, line in lines if line]}

    def shown(self, one: Mapping[str, Any]) -> dict[str, Any]:
        """What is kept of a word or face beside a result."""
        return dict(one)

    def _lines(self) -> list[list[dict[str, Any]]]:
        return [json.loads(text) for text in self.rows.texts("read")]

    def provenance(self) -> dict[str, str]:
        return dict(self._reader.told())

    def _found(self) -> Found:
        found = self.found(self._lines())
        if not len(found.axis):
            raise NotApplicable(f"no {self.kind} to score: none are annotated, or none could be read in the originals")
        return found

    def _numbers(self, found: Found, seed: int) -> dict[str, BinnedMean]:
        """Means with their intervals, by number: made once, for values and intervals are asked for in turn."""
        key = (seed, len(self.rows))
        if self._made is None or self._made[0] != key:
            self._made = key, dict(self._binned(found, seed))
        return self._made[1]

    def _name(self, score: str, version: Version = "", span: Span = "", part: str = "") -> str:
        return str(MetricName(score, version=version, span=span, reader=self._suffix, part=part))

    def _binned(self, found: Found, seed: int) -> Iterator[tuple[str, BinnedMean]]:
        """Every number but ratios of means of bins, by name."""
        side = int(self.rows.column("side")[0])
        everything, three = [Bin("all", 0, math.inf)], self.bins(side)
        for score, values in found.scores.items():
            ceiling, per = found.ceiling[score], found.per.get(score)
            versions: list[tuple[Version, np.ndarray, np.ndarray | None]] = [
                ("", values, per),
                ("ceiling", ceiling, per),
            ]
            if score not in found.errors:
                versions.append(("ratio", values, ceiling))
            for version, measured, divisor in versions:
                share = score in found.shares
                rest = (seed, found.image, divisor, share)
                (whole,) = binned(measured, found.axis, everything, *rest)
                yield self._name(score, version, "all"), whole
                for one in binned(measured, found.axis * side, self.curve, *rest):
                    if one.n:
                        yield self._name(score, version, "curve", one.bin.name), one
                if not three or per is not None:
                    continue
                for one in binned(measured, found.axis, three, *rest):
                    yield self._name(score, version, part=one.bin.name), one
                if version != "ratio":
                    yield (
                        self._name(score, version),
                        mean_of_bins(measured, found.axis, three, seed, found.image, share),
                    )
