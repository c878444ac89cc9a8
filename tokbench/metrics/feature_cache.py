"""The features of a run's references. They are computed once for all tokenizers and metrics, and stored for
later runs."""

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

_SHARED_CODE = (Path(pixels.__file__), Path(state_dict.__file__))
"""Code that features depend on besides the extractors: rounding, and how weights are loaded and folded."""

Compute = Callable[[slice], dict[str, Tensor]]
"""A function that returns a network's features of a span of the images."""


class ReferenceFeatures:
    """The references' features by network, side and rounding. With a `folder` they are written to files and read from
    them.

    A file holds one chunk of images. Its name is a hash of everything that it depends on: the images' digests; the
    network's weights, backend, precision and layers; the protocol's input settings; and the code that computes
    features. The key in the file is checked when it is read. Files are renamed into place, so several processes may
    share a folder.
    """

    def __init__(self, folder: Path | None = None, warn: Callable[[str], None] = lambda text: None) -> None:
        self._folder, self._warn = folder, warn
        self._rows: dict[str, SampleStore] = {}
        self._loaded: set[tuple[str, int]] = set()
        self.files: set[Path] = set()
        """The files that this run has written or read."""

    def separate(self) -> ReferenceFeatures:
        """Return an empty table for some of the references, which uses the same files."""
        return ReferenceFeatures(self._folder)

    def rows(self, network: FeatureExtractor, side: str, rounding: Rounding) -> SampleStore:
        """Return the store of the features of all references so far, by layer."""
        return self._rows.setdefault(_key(network, side, rounding), SampleStore())

    def features(
        self,
        network: FeatureExtractor,
        side: str,
        rounding: Rounding,
        index: Tensor,
        digests: Sequence[str],
        compute: Compute,
    ) -> dict[str, Tensor]:
        """Return the features (B, ...) by layer of the references at positions `index` (B,), from files or from
        `compute`."""

        def compute_arrays(span: slice) -> dict[str, np.ndarray]:
            return {layer: value.numpy() for layer, value in compute(span).items()}

        arrays = self.arrays(_key(network, side, rounding), index, digests, compute_arrays)
        return {layer: torch.from_numpy(values) for layer, values in arrays.items()}

    def arrays(
        self, key: str, index: Tensor, digests: Sequence[str], compute: Callable[[slice], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Return arrays (B, ...) by name, numbers or text, from files or from `compute`. They must depend only on the
        references' pixels and on what `key` describes."""
        parts, start = [], 0
        for chunk, members in itertools.groupby((index // CHUNK).tolist()):
            span = slice(start, start + len(list(members)))
            start = span.stop
            path = self._path(key, digests[span])
            arrays = _read(path, key) if path else None
            if arrays is None:
                arrays = compute(span)
                path = path if path and self._write(path, key, arrays) else None
            self._add(key, chunk, index[span].numpy(), arrays, path)
            parts.append(arrays)
        return {name: np.concatenate([arrays[name] for arrays in parts]) for name in parts[0]}

    def load_chunk(
        self, network: FeatureExtractor, side: str, rounding: Rounding, index: np.ndarray, digests: Sequence[str]
    ) -> bool:
        """Load the features of one chunk from its file, without the images. Returns whether it existed."""
        key, chunk = _key(network, side, rounding), int(index[0]) // CHUNK
        if (key, chunk) in self._loaded:
            return True
        path = self._path(key, digests)
        arrays = _read(path, key) if path else None
        if arrays is not None:
            self._add(key, chunk, index, arrays, path)
        return arrays is not None

    def _add(self, key: str, chunk: int, index: np.ndarray, arrays: dict[str, np.ndarray], path: Path | None) -> None:
        """Add a chunk to the rows once. Several tokenizers may request the same chunk."""
        if (key, chunk) in self._loaded:
            return
        self._loaded.add((key, chunk))
        rows = self._rows.setdefault(key, SampleStore())
        if path:
            self.files.add(path)
            rows.add_file(index, list(arrays), path)
        else:
            rows.add(index, arrays)

    def _path(self, key: str, digests: Sequence[str]) -> Path | None:
        if self._folder is None:
            return None
        folder, chunk = (hashlib.sha256(text.encode()).hexdigest() for text in (key, "".join(digests)))
        return self._folder / folder[:16] / f"{chunk[:32]}.npz"

    def _write(self, path: Path, key: str, arrays: dict[str, np.ndarray]) -> bool:
        buffer = io.BytesIO()
        np.savez(buffer, key=np.array(key), **arrays)  # type: ignore[arg-type]
        try:
            write_atomically(path, buffer.getvalue())
        except ResultError as error:
            self._warn(f"features of the references are kept in memory only, since {error}")
            self._folder = None
            return False
        return True


def _key(network: FeatureExtractor, side: str, rounding: Rounding) -> str:
    layers, code = ",".join(sorted(network.layers)), code_of(Path(pool.__file__).parent, *_SHARED_CODE)
    return f"{network.key}/{layers}/{side}/{rounding}/{code}"


def _read(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """Return the arrays of a file; None where it does not exist, is damaged, or belongs to another key with the same
    short hash."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                return None
            return {name: arrays[name] for name in arrays.files if name != "key"}
    except UNREADABLE:
        return None
