"""Checkpoints of unfinished trainings: where they are stored, and which training each of them belongs to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import nn

from tokbench.io.atomic import write_atomically
from tokbench.io.hashing import code_of
from tokbench.paths import PACKAGE, cache_dir, find_root
from tokbench.tokenizers.code_identity import identify
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.import_closure import code_of_imports
from tokbench.tokenizers.registry import imported_folder
from tokbench.training.loop import TrainConfig, fingerprint, precision_of
from tokbench.weights.hashing import hash_module

_DESCRIPTIONS = ("summary", "ablation", "reported", "taxonomy")
"""Entries of TOML files that describe an adapter and do not affect its training."""


@dataclass(frozen=True)
class TrainingInputs:
    """Everything that a training's result depends on, except the model.

    recipe: the hyperparameters. data: the description of the images. device: for example "cuda:1". built_on: the names
    of the imported modules of the adapters that the trained one depends on.
    """

    recipe: TrainConfig
    data: str
    device: str
    built_on: tuple[str, ...] = ()

    def fingerprint(self, variant: AdapterConfig, module: ModuleType, model: nn.Module) -> str:
        """Return 16 hex digits that are equal for two trainings only if one may resume the other.

        They cover the code and files of the adapter's folder, its settings, the code that it imports (of tokbench, only
        what it imports from `tokbench.nn`, and the training loop), the weights of the models that it is built on, and
        the precision, which depends on the machine. They do not depend on the locations of files.
        """
        own = imported_folder(module)
        outside = identify([module.__name__, *variant.imported], model, covered=[variant.folder])
        return fingerprint(
            code_of_imports([module.__name__, *self.built_on], "tokbench.nn"),
            code_of(PACKAGE / "training" / "loop.py"),
            own.code.hexdigest(),
            sorted(own.files.items()),
            sorted((key, value) for key, value in variant.config.items() if key not in _DESCRIPTIONS),
            sorted(outside.modules.items()),
            sorted(outside.packages.items()),
            base_hashes(model),
            self.recipe,
            content_of(self.data),
            self.device.partition(":")[0],
            precision_of(self.device),
        )


def base_hashes(model: nn.Module) -> list[str]:
    """Return the hashes of the parameters of the models that a model is built on."""
    return [hash_module(base) for base in getattr(model, "bases", {}).values()]


def describe_data(name: str, count: int, sha256: str) -> str:
    """Return the description of training images for training records."""
    return f"{name}, {count:,} images, sha256 {sha256[:16]}"


def content_of(description: str) -> str:
    """Return the part of `describe_data` that does not depend on the dataset's name: the count and the hash."""
    return description.partition(", ")[2] or description


def state_folder(root: Path) -> Path:
    """Return the folder for checkpoints of trainings of the adapters in `root`/adapters. It is not created.

    It is `.cache/training` in a Git checkout, so that a training survives a move of the checkout to another machine,
    and otherwise a part of the cache folder.
    """
    if (root / ".git").exists() and os.access(root, os.W_OK):
        return root / ".cache" / "training"
    return cache_dir() / "training"


def prepare_state_folder(root: Path) -> Path:
    """Create the folder for checkpoints, which Git ignores, and return it."""
    folder = state_folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    if not (ignore := folder / ".gitignore").exists():
        write_atomically(ignore, b"*\n")
    return folder


@dataclass(frozen=True)
class State:
    """The checkpoint of an unfinished training. size: bytes. age: seconds since it was written."""

    adapter: str
    path: Path
    size: int
    age: float


def states() -> Iterator[State]:
    """Yield the checkpoints of unfinished trainings of the current root and in the cache folder."""
    root = find_root()
    folders: Iterable[Path] = {cache_dir() / "training": None} | ({state_folder(root): None} if root else {})
    for path in sorted(path for folder in folders for path in folder.glob("*.pt")):
        about = path.stat()
        yield State(path.stem.rpartition("-")[0], path, about.st_size, time.time() - about.st_mtime)
