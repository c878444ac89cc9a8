"""The adapters that define a training: their order, their hyperparameters, and their weights on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tokbench.data.dataset import Dataset
from tokbench.errors import AdapterError, DataError, MissingWeights, UsageError
from tokbench.io.atomic import write_atomically
from tokbench.io.hashing import code_of, sha256_of
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import FittedModel, Trainable, TrainingBatch, TrainingData
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
from tokbench.training.loop import Progress, TrainConfig, batches, fingerprint, fit, train
from tokbench.weights.compact import expand
from tokbench.weights.hashing import hash_module
from tokbench.weights.registry import LocalWeights, WeightFile
from tokbench.weights.shards import shard_paths, write_weights
from tokbench.weights.state_dict import load_strict, read_state
from tokbench.weights.storage import StorageCheck, loss_check, psnr_check, stored_weights

_LOG = logging.getLogger("tokbench")

PROFILES = {
    "cpu": TrainConfig(images=96_000, batch=16, rate=1e-3),
    "gpu": TrainConfig(images=307_200, batch=64, rate=1e-3),
}
"""The hyperparameters of all families. The table [training] of a variant's TOML changes single fields."""

M = TypeVar("M", bound=nn.Module)


def trainable_adapters(root: Path | None = None) -> dict[str, Path]:
    """Return the TOML files of adapters and networks that can be trained, by name, each after its dependencies."""
    files = adapter_files(root) | network_files(root)
    return {name: files[name] for name in dependencies(root)}


def dependencies(root: Path | None = None) -> dict[str, set[str]]:
    """Return the direct and indirect dependencies of each trainable adapter, in the order of `trainable_adapters`.

    Raises UsageError for a cycle.
    """
    bases: dict[str, list[str]] = {}
    for name, toml in sorted((adapter_files(root) | network_files(root)).items()):
        with suppress(AdapterError):  # `tokbench list adapters` reports it
            config = read_variant(toml)
            if isinstance(config.get("training"), dict):
                bases[name] = [config[key] for key in ("base", "teacher", "prior") if key in config]
    below: dict[str, set[str]] = {}
    try:
        for name in TopologicalSorter(bases).static_order():
            if name in bases:  # others are not trained
                below[name] = set(bases[name]).union(*(below.get(base, ()) for base in bases[name]))
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        raise UsageError(f"the adapters depend on each other in a cycle: {cycle}") from error
    return below


def load_training_data(
    dataset: Dataset, progress: Callable[[int, int], None] = lambda done, total: None
) -> TrainingData:
    """Return all images of a dataset, and their labels if it has a Parquet column of labels.

    The images are sorted by name, so that their order does not depend on how they are stored. Unreadable images are
    left out with a warning. Raises DataError if no image can be read.
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
    """Return the hyperparameters of a profile, changed first by the TOML and then by `changes`.

    Raises AdapterError for unknown fields in the TOML.
    """
    table = variant.config.get("training", {})
    own = {key: value for key, value in table.items() if key not in PROFILES} | table.get(profile, {})
    try:
        recipe = replace(PROFILES[profile], **own)
    except TypeError as error:
        raise AdapterError(f"{variant.name}: [training] of its TOML: {error}") from error
    if {"images", "seconds"} & changes.keys():
        recipe = replace(recipe, images=None, seconds=None)
    return replace(recipe, **changes)


@dataclass(frozen=True)
class TrainOptions:
    """Options of all trainings of one command.

    data: the name and hash of the images, for the training record. profile: a key of PROFILES. changes: fields of
    TrainConfig that replace those of the profile and of the TOML. out: the folder for weights and training records;
    None for the folder of each TOML.
    """

    data: str
    profile: str = "cpu"
    changes: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    out: Path | None = None


def train_adapter(
    name: str,
    toml: Path,
    data: TrainingData,
    options: TrainOptions,
    *,
    progress: Progress = lambda share, images, speed, terms: None,
    encoding: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Path, TrainRecord]:
    """Train one adapter; write and return its weights file and its training record.

    If a call was interrupted, a call with the same arguments, code and data resumes from the last checkpoint.
    progress: called during the training. encoding: called with the number of images that the tokenizer of a prior has
    encoded, and the total.
    Raises AdapterError if the adapter cannot be trained, MissingWeights if a dependency was not trained.
    """
    variant, module = open_variant(name, toml)
    recipe, device = recipe_of(variant, options.profile, options.changes), options.device
    if not hasattr(module, "model"):
        raise AdapterError(f"{toml.parent / 'adapter.py'} has no function model(variant), so it cannot be trained")
    torch.manual_seed(recipe.seed)  # a model and its ablation start from the same weights in the parts that both have
    model = wrap_load_errors(name, lambda: module.model(variant))
    if not isinstance(model, Trainable | FittedModel):
        raise AdapterError(f"{toml.parent / 'adapter.py'}: model(variant) must return a Trainable or a FittedModel")
    own = imported_folder(module)
    outside = identify([module.__name__, *variant.imported], model, covered=[toml.parent])
    ours = code_of(PACKAGE / "nn", PACKAGE / "training" / "loop.py")
    code = (ours, own.code.hexdigest(), own.files, toml.read_bytes(), outside.modules, outside.packages)
    bases = [hash_module(base) for base in getattr(model, "bases", {}).values()]
    inputs = fingerprint(*code, bases, recipe, options.data, device)
    state = cache_dir() / "training" / f"{name}-{inputs}.pt"
    if isinstance(model, FittedModel):
        record = fit(model, data, recipe, device)
    else:
        prepared = model.prepare_data(data, device, recipe.flip, encoding)
        record = train(model, prepared, recipe, device=device, state=state, progress=progress)
    target = (options.out or variant.folder) / variant.file.name
    record.recipe["profile"] = options.profile
    if bases:
        record.recipe["bases"] = bases
    examples: Iterable[TrainingBatch] = ()
    if not isinstance(model, FittedModel):
        examples = islice(
            batches(prepared, replace(recipe, flip=False), device), len(data) // recipe.batch
        )  # one epoch
    save_trained(model, target, record, options.data, examples)
    state.unlink(missing_ok=True)
    return target, record


def base(variant: AdapterConfig, kind: type[M]) -> M:
    """Return the model of the base adapter. Raises MissingWeights if it was not trained."""
    below = _base_name(variant)
    model = getattr(load_adapter(below, root=variant.folder.parent.parent).model, "model", None)
    if not isinstance(model, kind):
        raise AdapterError(f"{variant.name}: its base {below} is not a {kind.__name__}")
    return model


def base_tokenizer(variant: AdapterConfig) -> Tokenizer:
    """Return the tokenizer of the base adapter. Raises MissingWeights if it was not trained."""
    below = _base_name(variant)
    model = part(variant, below)
    if not isinstance(model, Tokenizer):
        raise AdapterError(f"{variant.name}: its base {below} is not a tokenizer")
    return model


def _base_name(variant: AdapterConfig) -> str:
    """Return the name of the base adapter, the entry `base` of the TOML. Raises AdapterError if there is none."""
    below = variant.config.get("base")
    if not isinstance(below, str):
        raise AdapterError(f'{variant.name}: its TOML must name the adapter that it is built on, as base = "..."')
    return below


def part(variant: AdapterConfig, name: str) -> ImageModel:
    """Load another adapter that `variant` uses. Raises MissingWeights if it was not trained."""
    found = load_adapter(name, root=variant.folder.parent.parent)
    variant.built_on[name], found.model.identity = found.code or "", identity_of(found)
    return found.model


def network(variant: AdapterConfig, key: str) -> nn.Module:
    """Return the trained network (`adapters/<family>/network.py`) that the TOML names under `key`.

    Raises AdapterError if the TOML names none, MissingWeights if it was not trained.
    """
    files, name = network_files(variant.folder.parent.parent), variant.config.get(key)
    if name not in files:
        known = ", ".join(files) or "none"
        raise AdapterError(f'{variant.name}: its TOML must name a network, as {key} = "..."; known networks: {known}')
    return open_network(name, files[name])[1]


def open_network(name: str, toml: Path) -> tuple[AdapterConfig, nn.Module]:
    """Return a network of `adapters/<family>/network.py` with its trained weights, and its configuration.

    Raises MissingWeights if it was not trained.
    """
    own, module = open_variant(name, toml)
    return own, load_trained(own, wrap_load_errors(name, lambda: module.model(own)))


def save_trained(
    model: nn.Module, target: Path, record: TrainRecord, data: str, examples: Iterable[TrainingBatch] = ()
) -> None:
    """Write the weights as safetensors, and the training record as `<variant>.training.json`.

    Weights become int8 if that makes the model hardly worse on the first `CHECKED_IMAGES` examples, else float16; the
    entry `storage` of the record's recipe describes the choice. examples: training batches on the model's device; they
    may be endless. Without examples, weights become float16.
    """
    left_out = tuple(getattr(model, "kept_out", ()))
    state, record.recipe["storage"] = stored_weights(model, left_out, _storage_check(model, examples))
    write_weights(state, target)
    record.recipe["data"] = data
    write_atomically(target.with_suffix(".training.json"), record.to_json().encode())


CHECKED_IMAGES = 256
"""Number of training images on which float32 and int8 weights are compared."""


def _storage_check(model: nn.Module, examples: Iterable[TrainingBatch]) -> StorageCheck | None:
    """Return the comparison by PSNR for autoencoders and by training loss for other trained models; None for fitted
    models, which are small, and if there are no examples."""
    chosen: list[TrainingBatch] = []
    count = 0
    for batch in examples:
        chosen.append(batch)
        count += len(batch.images)
        if count >= CHECKED_IMAGES:
            break
    if chosen and isinstance(model, BottleneckAutoencoder):
        return psnr_check(
            lambda images: model.pixels(model.squeeze(model.latents(images))[0], range(len(images))),
            [batch.images for batch in chosen],
        )
    if chosen and isinstance(model, Trainable):
        return loss_check(lambda batch: model.loss(batch, 1.0), chosen, count)
    return None


def load_trained(variant: AdapterConfig, model: M) -> M:
    """Load the trained weights of a variant into a model and return the model.

    Raises MissingWeights if there are none, if they do not fit the model, or if they were trained with other weights of
    the adapters that the model is built on.
    """
    remedy = f"run 'tokbench train {variant.name}'"
    if not (parts := shard_paths(variant.file)):
        raise MissingWeights(f"{variant.name}: no trained weights here ({variant.file}); {remedy}")
    state: dict[str, Tensor] = {}
    for path in parts:
        found = LocalWeights(path, WeightFile(path.name, "", f"or {remedy}"), sha256_of(path))
        state |= read_state(variant.name, found)
    load_strict(variant.name, model, expand(state, variant.name), found)
    bases = [hash_module(below) for below in getattr(model, "bases", {}).values()]
    if bases and read_record(variant.file).get("recipe", {}).get("bases") not in (None, bases):
        raise MissingWeights(
            f"{variant.name}: the weights of an adapter that it is built on have changed since it was trained; {remedy}"
        )
    return model


def chosen(names: Sequence[str], everything: bool, root: Path | None) -> dict[str, Path]:
    """Return the TOML files of the adapters to train, by name, in the order of `names`, but dependencies first.

    Raises UsageError for unknown names.
    """
    known = trainable_adapters(root)
    if everything == bool(names):
        raise UsageError("name adapters to train, or give --all")
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"cannot train {', '.join(unknown)}; trainable adapters: {', '.join(known) or 'none'}")
    if everything:
        return known
    below, ordered = dependencies(root), dict[str, Path]()
    for name in names:
        earlier = [other for other in known if other in below[name] and other in names]  # dependencies first, in order
        ordered |= {other: known[other] for other in (*earlier, name)}
    return ordered
