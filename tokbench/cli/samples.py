"""What `tokbench eval --task generate` compares samples with, and how many there are."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tokbench.arrays import MEMBER
from tokbench.builtin.images import ImageFolder
from tokbench.dataset import Dataset
from tokbench.errors import UsageError
from tokbench.plugins import Loaded, slug
from tokbench.protocol import Protocol
from tokbench.slots import Slots
from tokbench.statistics import KEYS, Statistics, load_statistics


def statistics_of(data: str, given: bool, reference: Path | None) -> Statistics | None:
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
    statistics: Statistics | None,
    loaded: Sequence[Loaded],
) -> Slots:
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
        return Slots(dataset.name, rules, count or len(dataset), dataset)
    if split:
        raise UsageError("--split chooses among images; a statistics file is of one set of them")
    if count is None:
        raise UsageError("how many samples? a statistics file does not say; give --limit")
    name = slug(statistics.dataset or Path(statistics.name).stem)
    beside = opened() if statistics.path and MEMBER in _members(statistics.path) and _is_npz(Path(data)) else None
    return Slots(name, rules, count, beside, key=statistics.sha256)
