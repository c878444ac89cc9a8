"""`tokbench.evaluate`: evaluates models on images and returns results."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack, get_args, overload

from torch import Tensor

from tokbench import metric_names
from tokbench.api.data import open_dataset
from tokbench.api.device import choose_device
from tokbench.api.models import as_adapters, named, own_device
from tokbench.api.state import preserved
from tokbench.api.wrappers import Settings
from tokbench.data.dataset import Dataset
from tokbench.errors import AdapterError, UsageError
from tokbench.evaluation.config import Context, EvalConfig, Progress
from tokbench.evaluation.evaluate import evaluate as run
from tokbench.evaluation.finished import Plan, merged, plan_remaining
from tokbench.evaluation.restore import Restorer
from tokbench.evaluation.tasks import Task, parse_task
from tokbench.extractors.backend import Precision
from tokbench.io.left_out import describe_left_out
from tokbench.metrics import registry as metrics
from tokbench.paths import cache_dir
from tokbench.protocol.protocol import Protocol, load_protocol
from tokbench.results.result import Result
from tokbench.tokenizers.registry import LoadedAdapter, load_adapter

_LOG = logging.getLogger("tokbench")


class Options(TypedDict, total=False):
    """Keyword arguments of `evaluate`, for type checkers; the docstring of `evaluate` explains them."""

    metrics: str | Iterable[str] | None
    size: int | None
    limit: int | None
    protocol: str | Protocol
    degrade: str | None
    restore: str | None
    task: str
    name: str | None
    value_range: tuple[float, float]
    multiple: int | None
    input_size: int | None
    codebook_size: int | None
    batch_size: int
    device: str | None
    precision: Precision
    seed: int
    cache: bool | str | Path
    out: str | Path | None
    progress: bool
    root: str | Path | None
    allow_download: bool


@overload
def evaluate(model: Mapping[str, Any], data: Any = ..., **options: Unpack[Options]) -> dict[str, Result]: ...
@overload
def evaluate(model: list[Any] | tuple[Any, ...], data: Any = ..., **options: Unpack[Options]) -> list[Result]: ...
@overload
def evaluate(model: Any, data: Any = ..., **options: Unpack[Options]) -> Result: ...
def evaluate(
    model: Any,
    data: Any = "samples",
    *,
    metrics: str | Iterable[str] | None = None,
    size: int | None = None,
    limit: int | None = None,
    protocol: str | Protocol = "tokbench",
    degrade: str | None = None,
    restore: str | None = None,
    task: str = "reconstruct",
    name: str | None = None,
    value_range: tuple[float, float] = (-1.0, 1.0),
    multiple: int | None = None,
    input_size: int | None = None,
    codebook_size: int | None = None,
    batch_size: int = 16,
    device: str | None = None,
    precision: Precision = "float32",
    seed: int = 0,
    cache: bool | str | Path = True,
    out: str | Path | None = None,
    progress: bool = True,
    root: str | Path | None = None,
    allow_download: bool = False,
) -> Result | list[Result] | dict[str, Result]:
    """Evaluate a model on images and return the metrics of `tokbench eval` as a `tokbench.Result`.

    model: an adapter's name or path, as on the command line; a `tokbench.Tokenizer`; an object with `encode` and
    `decode`, such as an `nn.Module`; or a function from images to images. Images are float tensors (B, 3, H, W) in
    `value_range`. Several models, given as a list or as a dict by name, share one pass over the images; the result is
    then a list or a dict.
    `encode` returns latents (float (B, C, h, w), (B, N, D) or (B, D)); codes (integer (B, h, w) or (B, N)); a tuple
    that starts with one of these, such as (quantized, loss, info); or a diffusers output. `decode` receives the codes
    or the latents; latents are rounded to float16, and their bits are counted in this format. If `encode` returns
    quantized vectors with codes among its other outputs, `decode` receives the vectors of the codes.
    data: a dataset's name or path, a torch Dataset, DataLoader, tensor or iterable of images in [0, 1], or a dataset
    returned by `tokbench.open_dataset`, which describes the accepted forms.

    Metrics and images:
    metrics: names, as a list or separated by commas (see `tokbench list metrics`); None selects the default metrics.
    size: images are resized and cropped to size x size px. limit: use only the first images. protocol: a name, a .toml
    file or a `tokbench.Protocol`. degrade: damage of the images that the model gets, such as `rain:0.5`, `noise:25`,
    `blur:1.5` or `jpeg:20`; its output is compared with the clean images. restore: an adapter that restores
    the damaged images first. task: `reconstruct`, `truncate-8` (first 8
    tokens), `perturb` or `perturb-code`.

    Properties of models without a spec (they apply to all such models of the call):
    name: the name in the result (default: that of the class or function). value_range: range of input and output
    images. multiple: image sides must be a multiple of it (default: pixels per token side if `encode` returns a grid);
    other images are padded, and reconstructions are cropped. input_size: the only supported side in px; larger images
    are processed in tiles. codebook_size: the number of codes, required if `encode` returns codes.

    Execution:
    batch_size: images per forward pass. device: `cpu`, `cuda`, `cuda:1` ... (default: the device of the model's
    parameters; for adapter names, CUDA if available). precision: precision of the networks used by metrics. seed: seed
    of intervals and of the noise that models sample. cache: True or a folder to store features of reference images for
    later calls; False disables the cache. out: a results folder, as in `tokbench eval --skip-existing --out`: results
    are saved there, and metrics that a saved result of the same adapter, images and settings contains are not measured
    again (models given as objects are always measured); None saves nothing. progress: show a progress bar. root: the
    folder with adapters/ and datasets/. allow_download: download missing weights.

    The model runs in eval mode, without gradients and autocast. After the call, also after an exception, the model,
    grad mode, default dtype and the random number generators of Python, numpy and torch are restored. Warnings are
    logged to `tokbench`.

    Raises UsageError for invalid arguments, DataError for images that cannot be used, AdapterError for a model that
    fails. With several models, the result of a model that fails while running has `error` set.

    >>> import torch, tokbench
    >>> images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> result = tokbench.evaluate(
    ...     lambda x: x * 0.9, images, metrics=["psnr", "ssim"], name="dim", value_range=(0, 1), progress=False
    ... )
    >>> round(result["psnr"].value, 1), result["psnr"].n
    (24.8, 8)
    >>> list(result.to_frame().index)
    ['psnr', 'exact', 'ssim']
    """
    _check_counts(1, batch_size=batch_size, size=size, limit=limit)
    _check_counts(1, multiple=multiple, input_size=input_size, codebook_size=codebook_size)
    _check_counts(0, seed=seed)
    if precision not in get_args(Precision):
        raise UsageError(f"precision must be {' or '.join(get_args(Precision))}, but is {precision!r}")
    models = named(model, name)
    rules = (protocol if isinstance(protocol, Protocol) else load_protocol(str(protocol))).degraded(degrade)
    if restore and not rules.degrade:
        raise UsageError("restore= requires degrade=, which damages the images that it restores")
    parsed = _task_of(task)
    if out is not None and parsed.label.kind == "perturb":
        raise UsageError("out= is not available for task='perturb'; save its result with result.save(folder)")
    settings = Settings((value_range[0], value_range[1]), multiple, input_size, codebook_size, seed)
    chosen_device = choose_device(device or own_device(list(models.values())))
    folder = (cache_dir() if cache is True else Path(cache).expanduser()) if cache else None
    root_folder = None if root is None else Path(root)
    with preserved(models.values(), chosen_device) as as_before:
        dataset = _opened(data, rules, size, limit, root_folder)
        chosen = _metrics_of(parsed, metrics, rules, dataset.modality)
        loaded = as_adapters(
            models,
            settings,
            lambda: _first_image(dataset),
            as_before,
            device=chosen_device,
            root=root_folder,
            allow_download=allow_download,
        )
        with _Bars(progress) as bars:
            restorer = None
            if restore:
                restorer = Restorer(load_adapter(restore, chosen_device, root_folder, allow_download))
            config = EvalConfig(tuple(chosen), parsed, batch_size, seed, chosen_device, precision, restorer=restorer)
            context = Context(folder, allow_download=allow_download, warn=_LOG.warning, progress=bars)
            results = _measure(loaded, dataset, config, context, None if out is None else Path(out).expanduser())
    _log(results, dataset, requested=metrics is not None)
    if isinstance(model, Mapping):
        return dict(zip(models, results, strict=True))
    if isinstance(model, list | tuple):
        return results
    _raise_failure(loaded[0], results[0])
    return results[0]


def _measure(
    adapters: Sequence[LoadedAdapter], dataset: Dataset, config: EvalConfig, context: Context, out: Path | None
) -> list[Result]:
    """Return one result per adapter, in order; with a results folder `out`, measure and save only what it lacks."""
    plan = Plan({}, [(config, list(adapters))])
    if out is not None:
        plan = plan_remaining(adapters, dataset, config, out, context.networks_for(config))
    found = {name: results[0] for name, results in plan.kept.items()}
    for part, members in plan.groups:
        for result in run(members, dataset, part, context):
            if out is not None and result.error is None:
                _, replaced = result.save(out)
                if replaced:
                    _LOG.warning("%s: replaced an earlier result: %s", result.adapter, replaced)
            if result.checkpoint is not None and result.error is None:
                result.checkpoint.discard()
            result.checkpoint = None
            found[result.adapter] = result if out is None or result.error is not None else merged(result, out)
    return [found[adapter.name] for adapter in adapters]


def _check_counts(least: int, **arguments: int | None) -> None:
    """Raise UsageError if an argument is neither None nor an integer of at least `least`."""
    for name, value in arguments.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise UsageError(f"{name} must be an integer of at least {least}, but is {value!r}")


def _task_of(task: str) -> Task:
    """Return the task of a name. Raises UsageError."""
    parsed = parse_task(task)
    if not parsed.paired:
        raise UsageError("samples of generators are evaluated only by the command 'tokbench eval --task generate'")
    return parsed


def _metrics_of(
    parsed: Task, names: str | Iterable[str] | None, rules: Protocol, modality: metric_names.Modality
) -> list[str]:
    """Return the metrics to compute for a task on data of one kind. Raises UsageError."""
    given = names if names is None or isinstance(names, str) else ",".join(names)
    if parsed.label.kind == "perturb":
        asked = ",".join(metric_names.defaults("perturb", modality)) if given is None else given
        every = metrics.choose(asked, rules, modality)
        return metric_names.measurable(every, strict=given not in (None, "all"))
    return metrics.choose_for(parsed.label.kind, given, rules, modality)


def _opened(data: Any, rules: Protocol, size: int | None, limit: int | None, root: Path | None) -> Dataset:
    """Open the data, or check that an open dataset fits the other arguments. Raises UsageError if it does not."""
    if not isinstance(data, Dataset):
        return open_dataset(data, protocol=rules, size=size, limit=limit, root=root)
    given = {"size": (size, data.size), "limit": (limit, data.limit)}
    conflicts = [name for name, (asked, own) in given.items() if asked not in (None, own)]
    if rules.sha256 != data.protocol.sha256 and (rules.name != "tokbench" or rules.degrade):
        conflicts.append("protocol")
    if conflicts:
        raise UsageError(
            f"the dataset was opened with a different {' and '.join(conflicts)}; pass it to open_dataset instead"
        )
    return data


def _first_image(dataset: Dataset) -> Tensor:
    """Return one image, or frame of a clip, (1, 3, H, W) in [0, 1], from which the spec of an object is inferred.

    Raises DataError if none can be read, UsageError for data without images.
    """
    for images in dataset.batches(1):
        if dataset.modality not in ("image", "video"):
            raise UsageError(
                f"{dataset.name} has data of the kind {dataset.modality}; give a tokbench.Tokenizer whose spec has "
                f'modalities=("{dataset.modality}",)'
            )
        return images.reference[:, 0] if images.reference.dim() == 5 else images.reference
    dataset.refuse_empty()
    raise AssertionError("refuse_empty accepted a dataset without images")


def _log(results: Sequence[Result], dataset: Dataset, requested: bool) -> None:
    """Log unreadable images, warnings, skipped metrics and failures. requested: whether metrics were given by name."""
    if counts := dataset.left_out:
        _LOG.warning("ignored %s; convert or rename them", describe_left_out(counts))
    for name, reason in dataset.unreadable:
        _LOG.warning("unreadable image %s: %s", name, reason.removeprefix(f"{name}: "))
    for result in results:
        for warning in result.warnings:
            _LOG.warning("%s: %s", result.adapter, warning.text)
        for metric, reason in result.notes.items():
            _LOG.log(
                logging.WARNING if requested else logging.INFO, "%s: skipped %s: %s", result.adapter, metric, reason
            )
        if result.error and len(results) > 1:
            _LOG.error("%s: failed: %s", result.adapter, result.error)


def _raise_failure(adapter: LoadedAdapter, result: Result) -> None:
    """Raise AdapterError if a model failed, chained to the exception of its own code."""
    if result.error:
        fault = getattr(getattr(adapter.model, "call", None), "fault", None)
        raise AdapterError(f"{adapter.name}: {result.error.removeprefix(f'{adapter.name}: ')}") from fault


class _Bars:
    """Progress bars, one per activity; none if `shown` is False."""

    def __init__(self, shown: bool) -> None:
        self._shown, self._bars = shown, dict[str, Any]()

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self._shown:
            return
        from tqdm.auto import tqdm  # type: ignore[import-untyped]

        if what not in self._bars:
            self.__exit__()  # the previous activity has finished
            self._bars[what] = tqdm(total=total, desc=what, leave=False)
        self._bars[what].update(done - self._bars[what].n)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        for bar in self._bars.values():
            bar.close()
