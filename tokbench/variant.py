"""Variant: what an adapter folder's TOML says of one size of it, handed to its `load`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokbench.errors import AdapterError
from tokbench.weights import Found, WeightFile, find


@dataclass(frozen=True)
class Variant:
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
    found: dict[str, Found] = field(default_factory=dict, compare=False)
    built_on: dict[str, str] = field(default_factory=dict, compare=False)
    """Adapters that it is made of, and the hash of each one's code and settings: what it does follows from theirs."""

    @property
    def file(self) -> Path:
        """Where the weights that were trained here lie, beside the TOML."""
        stem = self.name.removeprefix(self.folder.resolve().name).removeprefix(".") or "default"
        return self.folder / f"{stem}.safetensors"

    def weight_files(self) -> dict[str, list[WeightFile]]:
        """The weight files that the TOML lists, by their key. Raises AdapterError where an entry lacks a field."""
        files = {}
        listed = self.config.get("weights", {})
        if not isinstance(listed, dict):
            raise AdapterError(f"{self.name}: weights must be listed as [[weights.<key>]]")
        for key, entries in listed.items():
            try:
                files[key] = [WeightFile(e["file"], e["sha256"], e["get"], url=e.get("url")) for e in entries]
            except (KeyError, TypeError) as error:
                raise AdapterError(f"{self.name}: each [[weights.{key}]] must give file, sha256 and get") from error
        return files

    def weights(self, key: str) -> Found:
        """The verified weight file listed under `[[weights.<key>]]`. Raises MissingWeights."""
        files = self.weight_files()
        if key not in files:
            raise AdapterError(f"{self.name}: its TOML has no [[weights.{key}]]")
        self.found[key] = find(f"adapter {self.name}", files[key], self.allow_download)
        return self.found[key]
