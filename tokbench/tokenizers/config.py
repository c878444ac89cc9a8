"""AdapterConfig: the parsed TOML file of one variant, which is passed to the `load` function of the adapter folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tokbench.errors import AdapterError
from tokbench.validate import convert
from tokbench.weights.registry import LocalWeights, WeightFile, resolve

if TYPE_CHECKING:
    from torch import Tensor, nn

M = TypeVar("M", bound="nn.Module")


@dataclass(frozen=True)
class _WeightEntry:
    file: str
    sha256: str
    get: str
    url: str | None = None


@dataclass(frozen=True)
class _WeightTables:
    weights: dict[str, list[_WeightEntry]] = field(default_factory=dict)


@dataclass(frozen=True)
class AdapterConfig:
    """One `<variant>.toml`: `name` is `family.variant`, `config` is the parsed file, `folder` is the folder of the
    file.

    `code = "official"` in the TOML loads official.py from the same folder instead of adapter.py. The TOML may list
    weight files that users provide. Several entries under one key are alternative files with the same weights:

        [[weights.encoder]]
        file = "x.safetensors"
        sha256 = "..."
        get = "where users get it"
        url = "https://..."        # optional: the file is downloaded from there with --allow-download
    """

    name: str
    folder: Path
    config: dict[str, Any]
    allow_download: bool = False
    found: dict[str, LocalWeights] = field(default_factory=dict, compare=False)
    built_on: dict[str, str] = field(default_factory=dict, compare=False)
    """The adapters that this one is built on, and the hash of the code and settings of each: its behaviour depends on
    theirs."""
    imported: set[str] = field(default_factory=set, compare=False)
    """Modules outside the folder that were imported by name. The adapter's code need not contain an import statement
    for them."""
    unplaced: dict[str, dict[str, int]] = field(default_factory=dict, compare=False)
    """Weight file -> names and `id`s of the tensors that were read but not loaded into any network so far."""
    unused: dict[str, int] = field(default_factory=dict, compare=False)
    """Prefix of tensor names -> number of tensors with that prefix that the adapter declares as unused."""

    @property
    def file(self) -> Path:
        """The path of the weights that `tokbench train` writes, in the same folder as the TOML."""
        stem = self.name.removeprefix(self.folder.resolve().name).removeprefix(".") or "default"
        return self.folder / f"{stem}.safetensors"

    def weight_files(self) -> dict[str, list[WeightFile]]:
        """Return the weight files that the TOML lists, by key. Raises AdapterError if an entry lacks a field."""
        content = convert(self.config, _WeightTables, self.name, AdapterError, "; list weights as [[weights.<key>]]")
        return {
            key: [WeightFile(entry.file, entry.sha256, entry.get, url=entry.url) for entry in entries]
            for key, entries in content.weights.items()
        }

    def weights(self, key: str) -> LocalWeights:
        """Return the verified weight file listed under `[[weights.<key>]]`.

        Raises MissingWeights if it is not on this machine, AdapterError if the TOML has no such key.
        """
        files = self.weight_files()
        if key not in files:
            raise AdapterError(f"{self.name}: its TOML has no [[weights.{key}]]")
        self.found[key] = resolve(f"adapter {self.name}", files[key], self.allow_download)
        return self.found[key]

    def tensors(self, key: str, within: Sequence[str] = ()) -> tuple[dict[str, Tensor], LocalWeights]:
        """Return the tensors of the file listed under `[[weights.<key>]]`, on the CPU, and the file.

        within: possible entries of a training checkpoint, such as "ema"; the first one that exists holds the tensors,
        else the file itself does. Raises MissingWeights if the file is not on this machine, is damaged or holds
        something other than tensors.
        """
        from tokbench.weights.state_dict import read_checkpoint  # imports torch

        found = self.weights(key)
        held = read_checkpoint(self.name, found, self.weight_files()[key], within)
        self.unplaced[found.source.file] = {
            name: id(tensor) for name, tensor in held.items() if not name.endswith("num_batches_tracked")
        }
        return held, found

    def load_checkpoint(
        self, module: M, state: Mapping[str, Tensor], found: LocalWeights, unused: Sequence[str] = ()
    ) -> M:
        """Copy tensors of `tensors`, possibly renamed or converted, into a network, and freeze it for evaluation.

        unused: name prefixes of tensors that only training needs; the result records the number of tensors per prefix.
        Raises MissingWeights unless all other tensors agree with the network's in name, shape and kind.
        """
        from tokbench.weights.state_dict import load_strict

        kept: dict[str, Tensor] = {}
        for name, tensor in state.items():
            if name.endswith("num_batches_tracked"):
                continue
            if beginning := next((start for start in unused if name.startswith(start)), None):
                self.unused[beginning] = self.unused.get(beginning, 0) + 1
            else:
                kept[name] = tensor
        load_strict(self.name, module, kept, found, assign=False)
        for waiting in self.unplaced.values():
            names = {identity: name for name, identity in waiting.items()}
            for name, tensor in state.items():  # adapters rename tensors, or convert them
                waiting.pop(names.get(id(tensor), name), None)
        return module

    def load_weights(self, module: M, key: str, within: Sequence[str] = (), unused: Sequence[str] = ()) -> M:
        """Load the tensors of the file listed under `[[weights.<key>]]` into a network, and freeze it for evaluation.

        within, unused: see `tensors` and `load_checkpoint`, which this calls and whose errors it raises.
        """
        state, found = self.tensors(key, within)
        return self.load_checkpoint(module, state, found, unused)

    def unused_tensors(self) -> dict[str, int]:
        """Return the number of tensors in the weight files that are in no network: by prefix for those that the adapter
        declared as unused, and by file for the others that `tensors` read."""
        return self.unused | {file: len(names) for file, names in self.unplaced.items() if names}
