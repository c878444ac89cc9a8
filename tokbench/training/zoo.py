"""Adapters that are trained here: which there are, how each is trained, where its weights are kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tokbench.data.dataset import Dataset
from tokbench.errors import AdapterError, DataError, MissingWeights, UsageError
from tokbench.io.atomic import write_atomically
from tokbench.io.hashing import code_of, sha256_of
from tokbench.nn.trainable import FittedModel, Trainable, TrainingData
from tokbench.paths import PACKAGE, cache_dir
from tokbench.tokenizers.base import ImageModel, Tokenizer
from tokbench.tokenizers.code_identity import identify
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.registry import (
    adapter_files,
    identity_of,
    imported_folder,
    load_adapter,
    network_files,
    open_variant,
    read_variant,
    wrap_load_errors,
)
from tokbench.tokenizers.training_record import TrainRecord, read_record
from tokbench.training.loop import Progress, TrainConfig, fingerprint, fit, train
from tokbench.weights.hashing import hash_module
from tokbench.weights.registry import LocalWeights, WeightFile
from tokbench.weights.shards import shard_paths, write_weights
from tokbench.weights.state_dict import load_strict, read_state

_LOG = logging.getLogger("tokbench")

PROFILES = {
    "cpu": TrainConfig(images=12_800, batch=16, rate=1e-3),
    "gpu": TrainConfig(images=1_024_000, batch=256, rate=2e-3),
}
"""The same images seen by every family; a variant's TOML may say otherwise under [training]."""

M = TypeVar("M", bound=nn.Module)


def trainable_adapters(root: Path | None = None) -> dict[str, Path]:
    """Adapters and networks that can be trained, by name, each after those that it is built on."""
    files = adapter_files(root) | network_files(root)
    return {name: files[name] for name in dependencies(root)}


def dependencies(root: Path | None = None) -> dict[str, set[str]]:
    """All that each of them is built on, directly or not, by name and in the order of `trainable_adapters`.

    Raises UsageError for a circle.
    """
    bases: dict[str, list[str]] = {}
    for name, toml in sorted((adapter_files(root) | network_files(root)).items()):
        with suppress(AdapterError):  # `tokbench list adapters` names it
            config = read_variant(toml)
            if isinstance(config.get("training"), dict):
                bases[name] = [config[key] for key in ("base", "teacher", "prior") if key in config]
    below: dict[str, set[str]] = {}
    try:
        for name in TopologicalSorter(bases).static_order():
            if name in bases:  # others are not trained
                below[name] = set(bases[name]).union(*(below.get(base, ()) for base in bases[name]))
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        raise UsageError(f"adapters are built on one another in a circle: {circle}") from error
    return below


def load_training_data(
    dataset: Dataset, progress: Callable[[int, int], None] = lambda done, total: None
) -> TrainingData:
    """All images of a dataset, sorted by name, so that the form in which they lie on a disk changes nothing; with their
    labels where it has a Parquet column of them. Unreadable ones are left out, with a warning.

    Raises DataError where not one can be read.
    """
    found, names, reader = [], [], dataset.batches(256)
    for images in reader:
        reader.prefetch()
        levels = images.levels if images.levels is not None else (images.reference * 255).round()
        found.append(levels.to(torch.uint8))
        names += images.names
        progress(reader.done, reader.total)
    if not found:
        raise DataError(f"{dataset.name}: no image could be read")
    for name, reason in dataset.unreadable:
        _LOG.warning("left out %s: %s", name, reason)
    order = sorted(range(len(names)), key=names.__getitem__)
    known = dataset.source.labels()
    labels = None if known is None else torch.tensor([known[names[place]] for place in order])
    return TrainingData(torch.cat(found)[order], labels)


def recipe_of(variant: AdapterConfig, profile: str, changes: dict[str, Any]) -> TrainConfig:
    """The profile's recipe with the TOML's changes, then the caller's. Raises AdapterError for unknown fields."""
    table = variant.config.get("training", {})
    own = {key: value for key, value in table.items() if key not in PROFILES} | table.get(profile, {})
    try:
        made = replace(PROFILES[profile], **own)
    except TypeError as error:
        raise AdapterError(f"{variant.name}: [training] of its TOML: {error}") from error
    if {"images", "seconds"} & changes.keys():
        made = replace(made, images=None, seconds=None)
    return replace(made, **changes)


def train_adapter(
    name: str,
    toml: Path,
    material: TrainingData,
    data: str,
    profile: str,
    changes: dict[str, Any],
    *,
    device: str = "cpu",
    out: Path | None = None,
    progress: Progress = lambda share, images, speed, terms: None,
    encoding: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Path, TrainRecord]:
    """Train one adapter and write its weights, and what its training was, beside its TOML (or into `out`).

    `data` names and hashes the images, for the record. An interrupted call goes on from its last state. `encoding` is
    told how many images a prior's tokenizer has encoded, of how many.
    Raises AdapterError where the adapter cannot be trained, or its weights are too large for one file.
    """
    variant, module = open_variant(name, toml)
    recipe = recipe_of(variant, profile, changes)
    if not hasattr(module, "model"):
        raise AdapterError(f"{toml.parent / 'adapter.py'} has no function model(variant), so it cannot be trained")
    torch.manual_seed(recipe.seed)  # twins start from the same weights wherever they have the same parts
    made = wrap_load_errors(name, lambda: module.model(variant))
    if not isinstance(made, Trainable | FittedModel):
        raise AdapterError(f"{toml.parent / 'adapter.py'}: model(variant) must return a Trainable or a Fitted")
    own = imported_folder(module)
    outside = identify([module.__name__, *variant.imported], made, covered=[toml.parent])
    ours = code_of(PACKAGE / "nn", PACKAGE / "training" / "loop.py")
    code = (ours, own.code.hexdigest(), own.files, toml.read_bytes(), outside.modules, outside.packages)
    bases = [hash_module(base) for base in getattr(made, "bases", {}).values()]
    told = fingerprint(*code, bases, recipe, data, device)
    state = cache_dir() / "training" / f"{name}-{told}.pt"
    if isinstance(made, FittedModel):
        record = fit(made, material, recipe, device)
    else:
        studied = made.prepare_data(material, device, recipe.flip, encoding)
        record = train(made, studied, recipe, device=device, state=state, progress=progress)
    target = (out or variant.folder) / variant.file.name
    record.recipe["profile"] = profile
    if bases:
        record.recipe["bases"] = bases
    save_trained(made, target, record, data)
    state.unlink(missing_ok=True)
    return target, record


def base(variant: AdapterConfig, kind: type[M]) -> M:
    """The frozen model of the adapter that a TOML names as `base`. Raises MissingWeights where it is not trained."""
    below = variant.config.get("base")
    if not isinstance(below, str):
        raise AdapterError(f'{variant.name}: its TOML must name the adapter it is built on, as base = "..."')
    model = getattr(load_adapter(below, root=variant.folder.parent.parent).model, "model", None)
    if not isinstance(model, kind):
        raise AdapterError(f"{variant.name}: its base {below} is no {kind.__name__}")
    return model


def base_tokenizer(variant: AdapterConfig) -> Tokenizer:
    """The tokenizer of the adapter that a TOML names as `base`. Raises MissingWeights where it is not trained."""
    below = variant.config.get("base")
    if not isinstance(below, str):
        raise AdapterError(f'{variant.name}: its TOML must name the tokenizer below it, as base = "..."')
    model = part(variant, below)
    if not isinstance(model, Tokenizer):
        raise AdapterError(f"{variant.name}: its base {below} is no tokenizer")
    return model


def part(variant: AdapterConfig, name: str) -> ImageModel:
    """Another adapter, of which `variant` is made. Raises MissingWeights where it is not trained."""
    found = load_adapter(name, root=variant.folder.parent.parent)
    variant.built_on[name], found.model.identity = found.code or "", identity_of(found)
    return found.model


def network(variant: AdapterConfig, key: str) -> nn.Module:
    """The frozen network of `adapters/<family>/network.py` that a TOML names under `key`. Raises MissingWeights."""
    files, name = network_files(variant.folder.parent.parent), variant.config.get(key)
    if name not in files:
        raise AdapterError(f'{variant.name}: its TOML names no known network as {key} = "..."; {", ".join(files)}')
    return open_network(name, files[name])[1]


def open_network(name: str, toml: Path) -> tuple[AdapterConfig, nn.Module]:
    """A network of `adapters/<family>/network.py` with the weights that were trained here. Raises MissingWeights."""
    own, module = open_variant(name, toml)
    return own, load_trained(own, wrap_load_errors(name, lambda: module.model(own)))


def save_trained(model: nn.Module, target: Path, told: TrainRecord, data: str) -> None:
    """Weights as float16 safetensors, and the record of their training as `<variant>.training.json`."""
    left_out = ("adversary.", *getattr(model, "kept_out", ()))
    state = {
        key: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for key, value in model.state_dict().items()
        if not key.startswith(left_out)
    }
    write_weights(state, target)
    told.recipe["data"] = data
    write_atomically(target.with_suffix(".training.json"), told.to_json().encode())


def load_trained(variant: AdapterConfig, model: M) -> M:
    """Put the weights that were trained here into a model. Raises MissingWeights where there are none or others."""
    remedy = f"'tokbench train {variant.name}' makes it"
    if not (parts := shard_paths(variant.file)):
        command = f"run 'tokbench train {variant.name}'"
        raise MissingWeights(f"{variant.name}: no trained weights here ({variant.file}); {command}")
    state: dict[str, Tensor] = {}
    for path in parts:
        found = LocalWeights(path, WeightFile(path.name, "", remedy), sha256_of(path))
        state |= read_state(variant.name, found)
    load_strict(variant.name, model, state, found)
    bases = [hash_module(below) for below in getattr(model, "bases", {}).values()]
    if bases and read_record(variant.file).get("recipe", {}).get("bases") not in (None, bases):
        raise MissingWeights(
            f"{variant.name}: what it is built on has other weights than when it was trained; run 'tokbench train "
            f"{variant.name}'"
        )
    return model


def chosen(names: Sequence[str], everything: bool, root: Path | None) -> dict[str, Path]:
    """What a command asks to be trained, in order. Raises UsageError."""
    known = trainable_adapters(root)
    if everything == bool(names):
        raise UsageError("name adapters to train, or give --all")
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"cannot train {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    return {name: toml for name, toml in known.items() if everything or name in names}
