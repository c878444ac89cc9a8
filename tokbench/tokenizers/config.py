"""Variant: what an adapter folder's TOML says of one size of it, handed to its `load`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tokbench.errors import AdapterError
from tokbench.validate import convert
from tokbench.weights.registry import LocalWeights, WeightFile, resolve

if TYPE_CHECKING:
    from torch import nn

M = TypeVar("M", bound="nn.Module")


@dataclass(frozen=True)
class _Entry:
    file: str
    sha256: str
    get: str
    url: str | None = None


@dataclass(frozen=True)
class _Listed:
    weights: dict[str, list[_Entry]] = field(default_factory=dict)


@dataclass(frozen=True)
class AdapterConfig:
    """One `<variant>.toml`: `name` is `family.variant`, `config` the parsed file, `folder` where it lies.

    `code = "official"` in the TOML has official.py beside it loaded in place of adapter.py.
    The TOML may list weight files that users bring; several entries under one key are forms of the same weights:

        [[weights.encoder]]
        file = "x.safetensors"
        sha256 = "..."
        get = "where users get it"
        url = "https://..."        # optional: downloaded there with --allow-download
    """

    name: str
    folder: Path
    config: dict[str, Any]
    allow_download: bool = False
    found: dict[str, LocalWeights] = field(default_factory=dict, compare=False)
    built_on: dict[str, str] = field(default_factory=dict, compare=False)
    """Adapters that it is made of, and the hash of each one's code and settings: what it does follows from theirs."""
    imported: set[str] = field(default_factory=set, compare=False)
    """Modules outside its folder that were imported for it by name, which its code need not show."""
    unplaced: dict[str, dict[str, int]] = field(default_factory=dict, compare=False)
    """Weight file -> names, and `id`s, of those of its tensors that were read and put into no network so far."""
    unused: dict[str, int] = field(default_factory=dict, compare=False)
    """Beginning of tensors' names -> how many tensors it is that the adapter declares that it does not use."""

    @property
    def file(self) -> Path:
        """Where the weights that were trained here lie, beside the TOML."""
        stem = self.name.removeprefix(self.folder.resolve().name).removeprefix(".") or "default"
        return self.folder / f"{stem}.safetensors"

    def weight_files(self) -> dict[str, list[WeightFile]]:
        """The weight files that the TOML lists, by their key. Raises AdapterError where an entry lacks a field."""
        told = convert(self.config, _Listed, self.name, AdapterError, "; list weights as [[weights.<key>]]")
        return {
            key: [WeightFile(one.file, one.sha256, one.get, url=one.url) for one in entries]
            for key, entries in told.weights.items()
        }

    def weights(self, key: str) -> LocalWeights:
        """The verified weight file listed under `[[weights.<key>]]`. Raises MissingWeights."""
        files = self.weight_files()
        if key not in files:
            raise AdapterError(f"{self.name}: its TOML has no [[weights.{key}]]")
        self.found[key] = resolve(f"adapter {self.name}", files[key], self.allow_download)
        return self.found[key]

    def load_weights(self, module: M, key: str, within: Sequence[str] = (), unused: Sequence[str] = ()) -> M:
        """Put the tensors of the file listed under `[[weights.<key>]]` into a network, and freeze it for evaluation.

        within: entries of a training checkpoint, such as "ema", of which the first that is there holds the tensors.
        unused: beginnings of the names of tensors that the network has no place for on purpose, such as "loss."; the
        result records how many these are. Raises MissingWeights where the file is not here, holds anything but tensors,
        or where names and shapes do not agree exactly.
        """
        from tokbench.tokenizers.third_party import load_checkpoint, tensors

        state, found = tensors(self, key, within)
        return load_checkpoint(self, module, state, found, unused)

    def unused_tensors(self) -> dict[str, int]:
        """How many tensors of its weight files are in no network: by what the adapter declared, and by file the rest
        of those that `tokbench.tokenizers.third_party.tensors` read."""
        return self.unused | {file: len(names) for file, names in self.unplaced.items() if names}
