"""Slots: places for N samples of each generator, beside a reference that they are not paired with."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tokbench.data.dataset import Dataset
from tokbench.data.sources.npz import MEMBER
from tokbench.data.stream import Bindable, ImageBatch, ImageStream, ReadLog, Share, StreamSummary, all_spans, spans
from tokbench.errors import UsageError
from tokbench.metrics.fid_statistics import KEYS, FidStatistics, load_statistics
from tokbench.paths import slug
from tokbench.protocol.protocol import Protocol
from tokbench.stats.split_half import pairs
from tokbench.tokenizers.builtin.images import ImageFolder
from tokbench.tokenizers.registry import LoadedAdapter


@dataclass
class SamplePlan(ImageStream):
    """N positions, each of which gets one sample.

    reference: the images whose distribution is compared with that of the samples, or None where a statistics file
    replaces them; then `name` is that of the file and `key` its hash. After a pass `shape` is that of the samples.
    """

    name: str
    protocol: Protocol
    count: int
    reference: Dataset | None = None
    shape: tuple[int, int] | None = None
    seen: ReadLog = field(default_factory=ReadLog, repr=False)
    key: str = ""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError("--limit must be at least 1")

    def __len__(self) -> int:
        return self.count

    @property
    def names(self) -> list[str]:
        return [_name(position) for position in range(self.count)]

    @property
    def side(self) -> int | None:
        return self.reference.size if self.reference is not None else None

    @property
    def unpaired(self) -> Dataset | None:
        return self.reference

    def batches(self, batch_size: int, share: Share = all_spans) -> SampleLoader:
        """All positions, `batch_size` at a time; `share` chooses among the spans."""
        return SampleLoader(self, spans(self.count, batch_size, share))

    def bind(self, model: Bindable) -> None:
        """Samples are of no image, so there is nothing to tell a model."""

    def refuse_empty(self) -> None:
        """References are read before the samples are drawn, and refused then."""

    def summary(self) -> StreamSummary:
        """Of the samples' number, and of the references that were read."""
        if self.reference is None:
            return StreamSummary(self.key, self.count, pairs=pairs(self.count), limited=self.count)
        read = self.reference.summary()
        available = len(self.reference)
        return StreamSummary(
            read.sha256,
            self.count,
            references=read.count,
            pairs=pairs(max(self.count, available)),
            available=available,
            limited=self.count if self.count != available else None,
            native_size=read.native_size,
            num_upscaled=read.num_upscaled,
            left_out=read.left_out,
            unreadable=read.unreadable,
        )


class SampleLoader:
    """Spans of positions, one after the other."""

    def __init__(self, slots: SamplePlan, spans: Sequence[range]) -> None:
        self._slots, self._spans = slots, spans
        self.total, self.done = sum(len(span) for span in spans), 0

    def __iter__(self) -> Iterator[ImageBatch]:
        for span in self._spans:
            self.done += len(span)
            names = [_name(position) for position in span]
            yield ImageBatch(torch.tensor(list(span)), names, digests=names, shape=self._slots.shape)

    def prefetch(self) -> None:
        """There is nothing to decode before its time."""


def _name(position: int) -> str:
    return f"{position:08d}"


def statistics_of(data: str, given: bool, reference: Path | None) -> FidStatistics | None:
    """The statistics file that `--data` or `--reference` names; None where `--data` is images. given: whether `--data`
    was.

    Raises UsageError where both are given, ResultError where a file cannot be read.
    """
    if reference is not None:
        if given:
            raise UsageError(f"samples are compared with --data {data} or with --reference {reference}; give one")
        return load_statistics(reference)
    path = Path(data).expanduser()
    return load_statistics(path) if _is_npz(path) and _members(path) & _STATISTICS else None


_STATISTICS = frozenset(f"{name}.npy" for both in KEYS.values() for name in both)


def _is_npz(path: Path) -> bool:
    return path.suffix.lower() == ".npz" and path.is_file()


def _members(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename for info in archive.infolist()}
    except Exception:  # broken zips raise many classes; whoever reads it next says what is wrong
        return set()


def slots(
    data: str,
    rules: Protocol,
    opened: Callable[[], Dataset],
    limit: int | None,
    split: str | None,
    statistics: FidStatistics | None,
    loaded: Sequence[LoadedAdapter],
) -> SamplePlan:
    """Places for `limit` samples; for as many as the folders of samples hold, or as there are references, without one.

    data, opened: what samples are compared with, as it was named, and what opens its images. split: the one of it that
    was asked for. ADM's reference batches hold images beside the statistics, which then serve the metrics that need
    more.
    Raises UsageError where nothing says how many, or a folder holds fewer; DataError where the references cannot be
    opened.
    """
    counts = {one.source: one.model.count for one in loaded if isinstance(one.model, ImageFolder)}
    for source, held in counts.items():
        if not held:
            raise UsageError(f"{source}: no images found")
        if limit is not None and held < limit:
            raise UsageError(f"{source} holds {held:,} images, fewer than --limit {limit:,}")
    if limit is None and len(set(counts.values())) > 1:
        told = " and ".join(f"{held:,}" for held in sorted(set(counts.values())))
        raise UsageError(f"the folders hold {told} samples, and gFID depends on how many there are; give --limit")
    count = limit or next(iter(counts.values()), None)

    if statistics is None:
        dataset = opened()
        return SamplePlan(dataset.name, rules, count or len(dataset), dataset)
    if split:
        raise UsageError("--split chooses among images; a statistics file is of one set of them")
    if count is None:
        raise UsageError("how many samples? a statistics file does not say; give --limit")
    name = slug(statistics.dataset or Path(statistics.name).stem)
    beside = opened() if statistics.path and MEMBER in _members(statistics.path) and _is_npz(Path(data)) else None
    return SamplePlan(name, rules, count, beside, key=statistics.sha256)
