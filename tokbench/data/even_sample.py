"""The choice of the first images of a source, and the digits that tell sources apart."""

from __future__ import annotations

import hashlib

from tokbench.data.sources.base import Source
from tokbench.data.stream import Sampling


def even_sample(source: Source, limit: int | None, first: bool) -> Sampling:
    """Reorder the images in class folders so that the first `limit` images are an even sample over the sorted list.

    Sources without class folders, and those whose order is given (lists of paths, Parquet files, shards), are not
    changed.
    """
    count = len(source.names)
    if first or limit is None or not 0 < limit < count or not source.sorted_by_name:
        return "first"
    folders = {name.rpartition("/")[0] for name in source.names}
    if len(folders) < 2 or "" in folders:
        return "first"
    chosen = [i * count // limit for i in range(limit)]
    others = set(range(count)).difference(chosen)
    source.reorder([*chosen, *sorted(others)])
    return "even"


def fingerprint(source: Source) -> str:
    """Return six hex digits that identify the files of a source, as its listing names them."""
    return hashlib.sha256(repr(source.listing()).encode()).hexdigest()[:6]
