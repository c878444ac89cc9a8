"""What `tokbench eval --task generate` compares samples with, and how many there are."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from tokbench.builtin.images import ImageFolder
from tokbench.dataset import open_dataset
from tokbench.errors import UsageError
from tokbench.plugins import Loaded, slug
from tokbench.protocol import Protocol
from tokbench.slots import Slots
from tokbench.statistics import Statistics, load_statistics


def statistics_of(data: str, reference: Path | None) -> Statistics | None:
    """The statistics file that `--data` or `--reference` names; None where `--data` is images.

    Raises UsageError where both name one, ResultError where one cannot be read.
    """
    path = Path(data).expanduser()
    if not (path.suffix == ".npz" and path.is_file() and _holds_statistics(path)):
        return load_statistics(reference) if reference else None
    if reference:
        raise UsageError(f"--data {data} and --reference {reference} are both statistics; give one")
    return load_statistics(path)


def _holds_statistics(path: Path) -> bool:
    """ADM's reference batches hold the images, too, which are then left alone."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {info.filename for info in archive.infolist()}
    except (OSError, zipfile.BadZipFile):
        return True  # reading it says what is wrong
    return bool(names & {"mu.npy", "mu_s.npy"}) or "arr_0.npy" not in names


def slots(
    data: str,
    rules: Protocol,
    size: int | None,
    limit: int | None,
    root: Path | None,
    follow_links: bool,
    statistics: Statistics | None,
    loaded: Sequence[Loaded],
) -> Slots:
    """Places for `limit` samples; for as many as the folders of samples hold, or as there are references, without one.

    Raises UsageError where nothing says how many, DataError where the references cannot be opened.
    """
    counts = {one.model.count for one in loaded if isinstance(one.model, ImageFolder)}
    if limit is None and len(counts) > 1:
        told = " and ".join(f"{count:,}" for count in sorted(counts))
        raise UsageError(f"the folders hold {told} samples, and gFID depends on how many there are; give --limit")
    count = limit or (counts.pop() if counts else None)
    if statistics is not None:
        if count is None:
            raise UsageError("how many samples? a statistics file does not say; give --limit")
        name = slug(statistics.dataset or Path(statistics.name).stem)
        return Slots(name, rules, count, key=statistics.sha256)
    dataset = open_dataset(data, rules, size, None, root, follow_links)
    return Slots(dataset.name, rules, count or len(dataset), dataset)
