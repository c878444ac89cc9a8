"""Names of the kinds of models whose tokens `tokbench prune` reduces. A further kind is a module and an entry here."""

from __future__ import annotations

import importlib
from pathlib import Path

from tokbench.errors import UsageError
from tokbench.tokenizers.registry import network_files, read_variant

CLASSIFIER = "classifier"

KINDS = {
    CLASSIFIER: "tokbench.pruning.classifier.kind",
    "detector": "tokbench.pruning.detector.kind",
    "vlm": "tokbench.pruning.vlm.kind",
    "clip": "tokbench.pruning.clips.kind",
    "pose": "tokbench.pruning.pose.kind",
}
"""The module of each kind, which defines `KIND`, an instance of ModelKind."""

PREFIXES = {"timm:": CLASSIFIER, "hf:": "vlm"}
"""Prefixes of models that are not networks of adapters/*/network.py. The TOML file of a network names its kind as
`prune_kind`, unless it is a classifier."""


def row_class(kind: str) -> type:
    """Return the dataclass of the rows of a kind, given by its key in KINDS."""
    found: type = importlib.import_module(KINDS[kind]).KIND.row
    return found


def kind_of_model(model: str, root: Path | None) -> str:
    """Return the key of the kind of a model; that of an unknown network is a classifier, which then reports it.

    Raises UsageError if the TOML file of the network names an unknown kind.
    """
    for prefix, name in PREFIXES.items():
        if model.startswith(prefix):
            return name
    files = network_files(root)
    return kind_of_network(model, files[model]) if model in files else CLASSIFIER


def kind_of_network(name: str, toml: Path) -> str:
    """Return the key of the kind of a network. Raises UsageError if its TOML file names an unknown kind."""
    kind = read_variant(toml).get("prune_kind", CLASSIFIER)
    if kind not in KINDS:
        raise UsageError(f"{name}: prune_kind = {kind!r} in its TOML file; it must be one of {', '.join(KINDS)}")
    return str(kind)
