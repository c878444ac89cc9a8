"""SamplePlan: the positions of N samples of each generator, with references that are not paired with them."""

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
from tokbench.metric_names import refuse_task
from tokbench.metrics.fid_statistics import KEYS, FidStatistics, load_statistics
from tokbench.paths import slug
from tokbench.protocol.protocol import Protocol
from tokbench.stats.split_half import pairs
from tokbench.tokenizers.builtin.images import ImageFolder
from tokbench.tokenizers.registry import LoadedAdapter


@dataclass
class SamplePlan(ImageStream):
    """An image stream of N positions, each of which gets one sample.

    reference: the images whose distribution is compared with that of the samples, or None where a statistics file
    replaces them; then `name` is that of the file and `key` its hash. shape: height and width of the samples in pixels,
    known after the first batch.
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
        """Return all positions, `batch_size` at a time. `share` selects the spans of this process."""
        return SampleLoader(self, spans(self.count, batch_size, share))

    def bind(self, model: Bindable) -> None:
        """Do nothing: samples belong to no image, so a model needs no names."""

    def refuse_empty(self) -> None:
        """Do nothing: the references are read, and checked, before the samples are drawn."""

    def summary(self) -> StreamSummary:
        """Return the summary of the references that were read, with the number of samples."""
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
    """Iterates over spans of positions."""

    def __init__(self, plan: SamplePlan, spans: Sequence[range]) -> None:
        self._plan, self._spans = plan, spans
        self.total, self.done = sum(len(span) for span in spans), 0

    def __iter__(self) -> Iterator[ImageBatch]:
        for span in self._spans:
            self.done += len(span)
            names = [_name(position) for position in span]
            yield ImageBatch(torch.tensor(list(span)), names, digests=names, shape=self._plan.shape)

    def prefetch(self) -> None:
        """Do nothing: there is nothing to decode."""


def _name(position: int) -> str:
    return f"{position:08d}"


def statistics_of(data: str, given: bool, reference: Path | None) -> FidStatistics | None:
    """Return the statistics file that `--data` or `--reference` names, or None where `--data` names images.

    given: whether `--data` was given. Raises UsageError where both are given, ResultError where a file cannot be read.
    """
    if reference is not None:
        if given:
            raise UsageError(
                f"samples are compared either with --data {data} or with --reference {reference}; give only one"
            )
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
    except Exception:  # broken zips raise many classes; a later read reports the fault
        return set()


def plan_samples(
    data: str,
    rules: Protocol,
    opened: Callable[[], Dataset],
    limit: int | None,
    split: str | None,
    statistics: FidStatistics | None,
    loaded: Sequence[LoadedAdapter],
) -> SamplePlan:
    """Return a plan for `limit` samples; without a limit, for as many as the folders of samples hold or as there are
    references.

    data, opened: the argument that names what samples are compared with, and a function that opens its images. split:
    the requested split. ADM's reference batches hold images in addition to statistics; metrics that need features use
    these images. Raises UsageError where the number of samples is unknown or a folder holds fewer, DataError where the
    references cannot be opened.
    """
    counts = {adapter.source: adapter.model.count for adapter in loaded if isinstance(adapter.model, ImageFolder)}
    for source, count_in_folder in counts.items():
        if not count_in_folder:
            raise UsageError(f"{source}: no images found")
        if limit is not None and count_in_folder < limit:
            raise UsageError(f"{source} holds {count_in_folder:,} images, fewer than --limit {limit:,}")
    if limit is None and len(set(counts.values())) > 1:
        numbers = " and ".join(f"{count_in_folder:,}" for count_in_folder in sorted(set(counts.values())))
        raise UsageError(f"the folders hold {numbers} samples, and gFID depends on their number; give --limit")
    count = limit or next(iter(counts.values()), None)

    if statistics is None:
        dataset = opened()
        refuse_task("generate", dataset.modality)
        return SamplePlan(dataset.name, rules, count or len(dataset), dataset)
    if split:
        raise UsageError("--split selects images, but a statistics file describes one fixed set of images")
    if count is None:
        raise UsageError("the number of samples is unknown, since a statistics file does not contain it; give --limit")
    name = slug(statistics.dataset or Path(statistics.name).stem)
    references = opened() if statistics.path and MEMBER in _members(statistics.path) and _is_npz(Path(data)) else None
    return SamplePlan(name, rules, count, references, key=statistics.sha256)
