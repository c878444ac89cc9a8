"""The features of a run's references: each computed once, for all tokenizers and metrics, and kept for later runs."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tokbench.data.stream import CHUNK
from tokbench.errors import ResultError
from tokbench.extractors import pool
from tokbench.io.atomic import write_atomically
from tokbench.io.hashing import code_of
from tokbench.metrics.sample_store import UNREADABLE, SampleStore
from tokbench.protocol import rounding as pixels
from tokbench.protocol.protocol import Rounding
from tokbench.weights import state_dict

if TYPE_CHECKING:
    from tokbench.extractors.network import FeatureExtractor

_ALSO = (Path(pixels.__file__), Path(state_dict.__file__))
"""What the readers' code rests on: roundings, and how weights are loaded and folded."""

Look = Callable[[slice], dict[str, Tensor]]
"""A network's features of some of the images at hand."""


class ReferenceFeatures:
    """Features by network, side and rounding. With a `folder` they go to files there, and come from them.

    A file holds one unit of images. Its name is a hash of the images' digests, of the network's weights, backend,
    precision and layers, of what a protocol says of a network's input, and of the code that reads them; on
    anything else they do not depend. It is checked when it is read. Files are renamed into place, so several processes
    may share a folder.
    """

    def __init__(self, folder: Path | None = None, warn: Callable[[str], None] = lambda text: None) -> None:
        self._folder, self._warn = folder, warn
        self._rows: dict[str, SampleStore] = {}
        self._taken: set[tuple[str, int]] = set()
        self.files: set[Path] = set()
        """Those that this run has written or read."""

    def rows(self, network: FeatureExtractor, side: str, rounding: Rounding) -> SampleStore:
        """The features of all references so far, by layer."""
        return self._rows.setdefault(_key(network, side, rounding), SampleStore())

    def features(
        self,
        network: FeatureExtractor,
        side: str,
        rounding: Rounding,
        index: Tensor,
        digests: Sequence[str],
        look: Look,
    ) -> dict[str, Tensor]:
        """The features (B, ...) by layer of the references at positions `index` (B,): read, or computed by `look`."""

        def computed(some: slice) -> dict[str, np.ndarray]:
            return {layer: value.numpy() for layer, value in look(some).items()}

        found = self.arrays(_key(network, side, rounding), index, digests, computed)
        return {layer: torch.from_numpy(values) for layer, values in found.items()}

    def arrays(
        self, key: str, index: Tensor, digests: Sequence[str], look: Callable[[slice], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """The same of whatever follows from the references' pixels and from what `key` says: arrays (B, ...) by name,
        numbers or text."""
        found, start = [], 0
        for unit, members in itertools.groupby((index // CHUNK).tolist()):
            some = slice(start, start + len(list(members)))
            start = some.stop
            path = self._path(key, digests[some])
            held = _read(path, key) if path else None
            if held is None:
                held = look(some)
                path = path if path and self._write(path, key, held) else None
            self._take(key, unit, index[some].numpy(), held, path)
            found.append(held)
        return {name: np.concatenate([held[name] for held in found]) for name in found[0]}

    def known(
        self, network: FeatureExtractor, side: str, rounding: Rounding, index: np.ndarray, digests: Sequence[str]
    ) -> bool:
        """Take in the features of one unit from its file, without the images; whether it was there."""
        key, unit = _key(network, side, rounding), int(index[0]) // CHUNK
        if (key, unit) in self._taken:
            return True
        path = self._path(key, digests)
        held = _read(path, key) if path else None
        if held is not None:
            self._take(key, unit, index, held, path)
        return held is not None

    def _take(self, key: str, unit: int, index: np.ndarray, held: dict[str, np.ndarray], path: Path | None) -> None:
        """Add a unit to the rows, once: several tokenizers may come with the same."""
        if (key, unit) in self._taken:
            return
        self._taken.add((key, unit))
        rows = self._rows.setdefault(key, SampleStore())
        if path:
            self.files.add(path)
            rows.add_file(index, list(held), path)
        else:
            rows.add(index, held)

    def _path(self, key: str, digests: Sequence[str]) -> Path | None:
        if self._folder is None:
            return None
        kind, unit = (hashlib.sha256(text.encode()).hexdigest() for text in (key, "".join(digests)))
        return self._folder / kind[:16] / f"{unit[:32]}.npz"

    def _write(self, path: Path, key: str, held: dict[str, np.ndarray]) -> bool:
        buffer = io.BytesIO()
        np.savez(buffer, key=np.array(key), **held)  # type: ignore[arg-type]
        try:
            write_atomically(path, buffer.getvalue())
        except ResultError as error:
            self._warn(f"features of the references are kept in memory only, since {error}")
            self._folder = None
            return False
        return True


def _key(network: FeatureExtractor, side: str, rounding: Rounding) -> str:
    layers, code = ",".join(sorted(network.layers)), code_of(Path(pool.__file__).parent, *_ALSO)
    return f"{network.key}/{layers}/{side}/{rounding}/{code}"


def _read(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """The arrays of a file; None where it is not there, damaged, or of another key, which has the same short hash."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return None
            return {name: arrays[name] for name in arrays.files if name != "key"}
    except UNREADABLE:
        return None
