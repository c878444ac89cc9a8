"""The adapters that define a training: their order, their hyperparameters, and their weights on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tokbench.errors import AdapterError, MissingWeights, UsageError
from tokbench.io.atomic import write_atomically
from tokbench.io.hashing import sha256_of
from tokbench.nn.priors.prior import Prior, PriorGenerator
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import FittedModel, Trainable, TrainingBatch, TrainingData
from tokbench.tokenizers.base import ImageModel, Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.registry import (
    adapter_files,
    identity_of,
    load_adapter,
    network_files,
    open_variant,
    read_variant,
    wrap_load_errors,
)
from tokbench.tokenizers.training_record import TrainRecord, read_record
from tokbench.training.loop import Progress, TrainConfig, batches, fit, train
from tokbench.training.states import TrainingInputs, base_hashes, prepare_state_folder
from tokbench.weights.compact import expand
from tokbench.weights.registry import LocalWeights, WeightFile
from tokbench.weights.shards import shard_paths, write_weights
from tokbench.weights.state_dict import load_strict, read_state
from tokbench.weights.storage import StorageCheck, loss_check, psnr_check, stored_weights

PROFILES = {
    "cpu": TrainConfig(images=96_000, batch=16, rate=1e-3),
    "gpu": TrainConfig(images=307_200, batch=64, rate=1e-3),
}
"""The hyperparameters of all families. The table [training] of a variant's TOML changes single fields."""

M = TypeVar("M", bound=nn.Module)
P = TypeVar("P", bound=Prior)


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
                bases[name] = _bases(config)
    below: dict[str, set[str]] = {}
    try:
        for name in TopologicalSorter(bases).static_order():
            if name in bases:  # others are not trained
                below[name] = set(bases[name]).union(*(below.get(base, ()) for base in bases[name]))
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        raise UsageError(f"the adapters depend on each other in a cycle: {cycle}") from error
    return below


def _bases(config: dict[str, Any]) -> list[str]:
    """Return the names of the adapters that a trainable variant's TOML names directly."""
    return [config[key] for key in ("base", "teacher", "prior") if key in config]


def recipe_of(variant: AdapterConfig, profile: str, changes: dict[str, Any]) -> TrainConfig:
    """Return the hyperparameters of a profile, changed first by the TOML and then by `changes`. A budget replaces the
    earlier one, in images or in seconds. `part` in the TOML is the share of it that an ablation of the training length
    gets, whatever the budget is.

    Raises AdapterError for unknown fields in the TOML, for two budgets in one of its tables, and for a part that is not
    above 0 and at most 1.
    """
    table, recipe = variant.config.get("training", {}), PROFILES[profile]
    part = table.get("part", 1)
    if not isinstance(part, int | float) or not 0 < part <= 1:
        raise AdapterError(f"{variant.name}: [training] of its TOML: part must be above 0 and at most 1, not {part!r}")
    common = {key: value for key, value in table.items() if key not in (*PROFILES, "data", "part")}
    for given in (common, table.get(profile, {}), changes):
        if budgets := {"images", "seconds"} & given.keys():
            if len(budgets) > 1:
                raise AdapterError(f"{variant.name}: [training] of its TOML: give images or seconds, not both")
            recipe = replace(recipe, images=None, seconds=None)
        try:
            recipe = replace(recipe, **given)
        except TypeError as error:
            raise AdapterError(f"{variant.name}: [training] of its TOML: {error}") from error
    if recipe.images is not None:
        return replace(recipe, images=max(1, round(recipe.images * part)))
    assert recipe.seconds is not None
    return replace(recipe, seconds=recipe.seconds * part)


@dataclass(frozen=True)
class TrainOptions:
    """Options of all trainings of one command.

    data: the name and hash of the images, for the training record. profile: a key of PROFILES. changes: fields of
    TrainConfig that replace those of the profile and of the TOML. out: the folder for weights and training records,
    as adapters/<family>/<variant>.safetensors and .training.json; None for the folder of each TOML. noun: one item of
    the data, for messages.
    """

    data: str
    profile: str = "cpu"
    changes: dict[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    out: Path | None = None
    noun: str = "image"


def train_adapter(
    name: str,
    toml: Path,
    data: TrainingData,
    options: TrainOptions,
    *,
    progress: Progress = lambda share, images, speed, terms: None,
    encoding: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Path, TrainRecord]:
    """Train one adapter; write and return its weights file and its training record.

    If a call was interrupted, a call with the same arguments, code and data resumes from the last checkpoint.
    progress: called during the training. encoding: called with the number of images that the tokenizer of a prior has
    encoded, and the total. should_stop: see `tokbench.training.loop.train`.
    Dependencies are read from `options.out` if they were trained there, else from the folders of their TOML files.
    Raises AdapterError if the adapter cannot be trained, MissingWeights if a dependency was not trained,
    TrainingStopped if `should_stop` returns True.
    """
    with weights_from(options.out):
        variant, module = open_variant(name, toml)
        recipe, device = recipe_of(variant, options.profile, options.changes), options.device
        model = untrained(variant, module, recipe.seed)
        inputs = TrainingInputs(recipe, options.data, device, _modules_of_dependencies(variant))
        folder = prepare_state_folder(_root(variant))
        state = folder / f"{name}-{inputs.fingerprint(variant, module, model)}.pt"
        bases = base_hashes(model)
        if isinstance(model, FittedModel):
            record = fit(model, data, recipe, device)
        else:
            prepared = model.prepare_data(data, device, recipe.flip, encoding)
            record = train(
                model, prepared, recipe, device=device, state=state, progress=progress, should_stop=should_stop
            )
    record.recipe["profile"] = options.profile
    record.recipe["model"] = variant.config.get("model", {})
    if bases:
        record.recipe["bases"] = bases
    examples: Iterable[TrainingBatch] = ()
    if not isinstance(model, FittedModel):
        steps_per_epoch = len(data) // recipe.batch
        examples = islice(batches(prepared, replace(recipe, flip=False), device), steps_per_epoch)
    target = weights_file(variant, options.out)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_trained(model, target, record, options.data, examples)
    state.unlink(missing_ok=True)
    return target, record


def untrained(variant: AdapterConfig, module: ModuleType, seed: int) -> Trainable | FittedModel:
    """Return the model of a variant before its training; the seed determines its weights.

    Raises AdapterError if the adapter cannot be trained, MissingWeights if a dependency was not trained.
    """
    if not hasattr(module, "model"):
        raise AdapterError(f"{module.__file__} has no function model(variant), so it cannot be trained")
    torch.manual_seed(seed)  # a model and its ablation start from the same weights in the parts that both have
    model = wrap_load_errors(variant.name, lambda: module.model(variant))
    if not isinstance(model, Trainable | FittedModel):
        raise AdapterError(f"{module.__file__}: model(variant) must return a Trainable or a FittedModel")
    return model


def _modules_of_dependencies(variant: AdapterConfig) -> tuple[str, ...]:
    """Return the names of the imported modules of the adapters that a variant is built on, directly or indirectly."""
    root, modules = _root(variant), list[str]()
    with suppress(UsageError):  # an adapter of an installed package has no such folder, and no dependencies
        files = adapter_files(root) | network_files(root)
        below, pending = set[str](), [variant.config]  # `dependencies` would read the TOML files of all adapters
        while pending:
            config = pending.pop()
            for name in _bases(config) if isinstance(config.get("training"), dict) else ():
                if name in files and name not in below:
                    below.add(name)
                    with suppress(AdapterError):
                        pending.append(read_variant(files[name]))
        for name in sorted(below):
            with suppress(AdapterError):  # of an indirect dependency that is not used
                modules.append(open_variant(name, files[name])[1].__name__)
    return tuple(modules)


_OUT: ContextVar[Path | None] = ContextVar("out", default=None)
"""The folder of `--out` while an adapter is trained, whose weights precede those of the checkout."""


@contextmanager
def weights_from(out: Path | None) -> Iterator[None]:
    """Within this context, trained weights are read from `out` if they are there."""
    token = _OUT.set(out)
    try:
        yield
    finally:
        _OUT.reset(token)


def weights_file(variant: AdapterConfig, out: Path | None) -> Path:
    """Return the path of a variant's trained weights: in `out`, which has the layout of a checkout, or beside its TOML
    file if `out` is None."""
    return variant.file if out is None else out / "adapters" / variant.folder.resolve().name / variant.file.name


def base(variant: AdapterConfig, kind: type[M]) -> M:
    """Return the model of the base adapter. Raises MissingWeights if it was not trained."""
    below = _named(variant, "base")
    model = getattr(load_adapter(below, root=_root(variant)).model, "model", None)
    return _of_kind(variant, "base", model, kind)


def base_tokenizer(variant: AdapterConfig) -> Tokenizer:
    """Return the tokenizer of the base adapter. Raises MissingWeights if it was not trained."""
    found = part(variant, _named(variant, "base"))
    if not isinstance(found, Tokenizer):
        raise AdapterError(f"{variant.name}: its base {variant.config['base']} is not a tokenizer")
    return found


def base_prior(variant: AdapterConfig, kind: type[P]) -> tuple[P, Tokenizer]:
    """Return the trained prior that the entry `prior` of the TOML names, and the tokenizer that it was trained on.

    Raises MissingWeights if it was not trained, AdapterError if it is not a prior of class `kind`.
    """
    found = part(variant, _named(variant, "prior"))
    if not isinstance(found, PriorGenerator):
        raise AdapterError(f"{variant.name}: its prior {variant.config['prior']} is not a generator with a prior")
    return _of_kind(variant, "prior", found.prior, kind), found.tokenizer


def _of_kind(variant: AdapterConfig, key: str, model: object, kind: type[M]) -> M:
    if not isinstance(model, kind):
        raise AdapterError(f"{variant.name}: its {key} {variant.config[key]} is not a {kind.__name__}")
    return model


def _named(variant: AdapterConfig, key: str) -> str:
    """Return the adapter that the TOML names under `key`. Raises AdapterError if there is none."""
    name = variant.config.get(key)
    if not isinstance(name, str):
        raise AdapterError(f'{variant.name}: its TOML must name the adapter that it is built on, as {key} = "..."')
    return name


def _root(variant: AdapterConfig) -> Path:
    """Return the folder that contains adapters/."""
    return variant.folder.parent.parent


def part(variant: AdapterConfig, name: str) -> ImageModel:
    """Load another adapter that `variant` uses. Raises MissingWeights if it was not trained."""
    found = load_adapter(name, root=_root(variant))
    variant.built_on[name], found.model.identity = found.code or "", identity_of(found)
    return found.model


def network(variant: AdapterConfig, key: str) -> nn.Module:
    """Return the trained network (`adapters/<family>/network.py`) that the TOML names under `key`.

    Raises AdapterError if the TOML names none, MissingWeights if it was not trained.
    """
    files, name = network_files(_root(variant)), variant.config.get(key)
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
    state, record.recipe["storage"] = stored_weights(model, left_out, *_storage_checks(model, examples))
    target.with_suffix(".training.json").unlink(missing_ok=True)  # an interruption leaves no record of other weights
    write_weights(state, target)
    record.recipe["data"] = data
    write_atomically(target.with_suffix(".training.json"), record.to_json().encode())


CHECKED_IMAGES = 256
"""Number of training images on which float32 and int8 weights are compared."""


def _storage_checks(model: nn.Module, examples: Iterable[TrainingBatch]) -> list[StorageCheck]:
    """Return the comparison by PSNR for autoencoders, with those by loss that they ask for, and by training loss for
    other trained models; nothing for fitted models, which are small, and if there are no examples."""
    chosen: list[TrainingBatch] = []
    count = 0
    for batch in examples:
        chosen.append(batch)
        count += len(batch.images)
        if count >= CHECKED_IMAGES:
            break
    if not chosen or not isinstance(model, Trainable):
        return []
    if not isinstance(model, BottleneckAutoencoder):
        return [loss_check(lambda batch: model.loss(batch, 1.0), chosen, count)]
    by_loss = [loss_check(partial(_loss_at, model, share), chosen, count) for share in model.loss_checked_at]
    return [psnr_check(model.reconstruct, [(batch, batch.images) for batch in chosen]), *by_loss]


def _loss_at(model: Trainable, share: float, batch: TrainingBatch) -> dict[str, Tensor]:
    return model.loss(batch, share)


def load_trained(variant: AdapterConfig, model: M) -> M:
    """Load the trained weights of a variant into a model and return the model.

    Raises MissingWeights if there are none, if they do not fit the model, or if they were trained with other weights of
    the adapters that the model is built on.
    """
    remedy = f"run 'tokbench train {variant.name}'"
    file = weights_file(variant, _OUT.get())
    file = file if shard_paths(file) else variant.file
    if not (parts := shard_paths(file)):
        raise MissingWeights(f"{variant.name}: no trained weights here ({variant.file}); {remedy}")
    state: dict[str, Tensor] = {}
    for path in parts:
        found = LocalWeights(path, WeightFile(path.name, "", f"or {remedy}"), sha256_of(path))
        state |= read_state(variant.name, found)
    load_strict(variant.name, model, expand(state, variant.name), found)
    bases = base_hashes(model)
    if bases and read_record(file).get("recipe", {}).get("bases") not in (None, bases):
        raise MissingWeights(
            f"{variant.name}: the weights of an adapter that it is built on have changed since it was trained; {remedy}"
        )
    return model
