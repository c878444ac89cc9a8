"""`tokbench.evaluate`: models and images in, results out."""

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
from tokbench.evaluation.tasks import Task, parse_task
from tokbench.extractors.backend import Precision
from tokbench.io.left_out import describe_left_out
from tokbench.metrics import registry as metrics
from tokbench.paths import cache_dir
from tokbench.protocol.protocol import Protocol, load_protocol
from tokbench.results.result import Result
from tokbench.tokenizers.registry import LoadedAdapter

_LOG = logging.getLogger("tokbench")


class Options(TypedDict, total=False):
    """The keyword arguments of `evaluate`, for type checkers; its docstring explains them."""

    metrics: str | Iterable[str] | None
    size: int | None
    limit: int | None
    protocol: str | Protocol
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
    progress: bool = True,
    root: str | Path | None = None,
    allow_download: bool = False,
) -> Result | list[Result] | dict[str, Result]:
    """Evaluate a model on images: the numbers of `tokbench eval`, as a `tokbench.Result`.

    model: an adapter's name or path, as on the command line; a `tokbench.Tokenizer`; an object, such as an `nn.Module`,
    with `encode` and `decode`; or a function from images to images. Images are float tensors (B, 3, H, W) in
    `value_range`. A list of models shares the pass over the images and gives a list of results, a dict of names a dict.
    `encode` returns latents, floats (B, C, h, w), (B, N, D) or (B, D); codes, integers (B, h, w) or (B, N); a tuple
    that starts with one, as (quantized, loss, info); or one of diffusers' outputs. `decode` gets the latents, rounded
    to float16, in which their bits are counted, or the codes; for quantized vectors with codes among the other
    outputs, it gets the vectors of the codes.
    data: a dataset's name or path, a torch Dataset, DataLoader, tensor or iterable of images in [0, 1], or what
    `tokbench.open_dataset` returned; see there.

    Which numbers:
    metrics: names, as a list or separated by commas (`tokbench list metrics`); None for the default ones.
    size: images are brought to size x size px. limit: only the first images. protocol: a name, a .toml file or a
    `tokbench.Protocol`. task: `reconstruct`, `truncate-8` (the first 8 tokens), `perturb` or `perturb-code`.

    Models without a spec, all those of one call alike:
    name: of the result (default: of the class or function). value_range: what they take and give. multiple: image
    sides must be a multiple of it (default: pixels a side per token, where `encode` gives a grid); other images are
    padded and cropped back. input_size: the only side they take, in px; larger images run in tiles. codebook_size: the
    number of codes, which must be given where `encode` returns codes.

    How it runs:
    batch_size: images in one forward pass. device: `cpu`, `cuda`, `cuda:1` ... (default: where the model's parameters
    are; of adapters' names, CUDA where there is one). precision: of the networks that metrics read. seed: of intervals
    and of the noise that models draw. cache: keep the reference images' features for later calls, in the cache folder
    or another one; False for neither reading nor keeping anything. progress: show a bar. root: the folder that holds
    adapters/ and datasets/. allow_download: fetch missing weights.

    Afterwards the model, grad mode, default dtype, and the random number generators of Python, numpy and torch are as
    they were, also after an exception. A model runs in eval mode, without gradients and without autocast. Warnings go
    to the logger `tokbench`.

    Raises UsageError for arguments that do not exist or fit, DataError for images that cannot be used, AdapterError for
    a model that fails. Of several models, those that fail while they run have a result with `error`.

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
    _check_counts(batch_size=(batch_size, 1), size=(size, 1), limit=(limit, 1), seed=(seed, 0))
    if precision not in get_args(Precision):
        raise UsageError(f"precision is {' or '.join(get_args(Precision))}, not {precision!r}")
    models = named(model, name)
    rules = protocol if isinstance(protocol, Protocol) else load_protocol(str(protocol))
    doing, chosen = _metrics_of(task, metrics, rules)
    settings = Settings((value_range[0], value_range[1]), multiple, input_size, codebook_size, seed)
    place = choose_device(device or own_device(list(models.values())))
    folder = (cache_dir() if cache is True else Path(cache).expanduser()) if cache else None
    where = None if root is None else Path(root)
    with preserved(models.values(), place) as as_before:
        dataset = _opened(data, rules, size, limit, where)
        loaded = as_adapters(
            models,
            settings,
            lambda: _first_image(dataset),
            as_before,
            device=place,
            root=where,
            allow_download=allow_download,
        )
        with _Bars(progress) as bars:
            config = EvalConfig(tuple(chosen), doing, batch_size, seed, place, precision)
            context = Context(folder, allow_download=allow_download, warn=_LOG.warning, progress=bars)
            results = run(loaded, dataset, config, context)
    _log(results, dataset, asked=metrics is not None)
    for result in results:
        if result.journal is not None and result.error is None:
            result.journal.discard()
        result.journal = None
    if isinstance(model, Mapping):
        return dict(zip(models, results, strict=True))
    if isinstance(model, list | tuple):
        return results
    _raise_failure(loaded[0], results[0])
    return results[0]


def _check_counts(**given: tuple[int | None, int]) -> None:
    """Raises UsageError where an argument, given with the least that it can be, is something else."""
    for name, (value, least) in given.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise UsageError(f"{name} must be an integer of at least {least}, it is {value!r}")


def _metrics_of(task: str, names: str | Iterable[str] | None, rules: Protocol) -> tuple[Task, list[str]]:
    """The task of a name and the metrics that are computed for it. Raises UsageError."""
    doing = parse_task(task)
    if not doing.paired:
        raise UsageError("samples of generators are evaluated with the command 'tokbench eval --task generate'")
    given = names if names is None or isinstance(names, str) else ",".join(names)
    if doing.label.kind == "perturb":
        every = metrics.choose(",".join(metric_names.defaults("perturb")) if given is None else given, rules)
        return doing, metric_names.measurable(every, strict=given not in (None, "all"))
    return doing, metrics.choose_for(False, given, rules)


def _opened(data: Any, rules: Protocol, size: int | None, limit: int | None, root: Path | None) -> Dataset:
    if not isinstance(data, Dataset):
        return open_dataset(data, protocol=rules, size=size, limit=limit, root=root)
    given = {"size": (size, data.size), "limit": (limit, data.limit)}
    unlike = [name for name, (asked, own) in given.items() if asked not in (None, own)]
    if rules.sha256 != data.protocol.sha256 and rules.name != "tokbench":
        unlike.append("protocol")
    if unlike:
        raise UsageError(f"the dataset was opened with another {' and '.join(unlike)}; give that to open_dataset")
    return data


def _first_image(dataset: Dataset) -> Tensor:
    """One image (1, 3, H, W) in [0, 1]. Raises DataError where none can be read."""
    for images in dataset.batches(1):
        return images.reference
    dataset.refuse_empty()
    raise AssertionError("a dataset without images was not refused")


def _log(results: Sequence[Result], dataset: Dataset, asked: bool) -> None:
    """What the command line prints beside the numbers. asked: whether the metrics were, by their names."""
    if counts := dataset.left_out:
        _LOG.warning("left out %s; convert or rename them", describe_left_out(counts))
    for name, reason in dataset.bad:
        _LOG.warning("bad image %s: %s", name, reason.removeprefix(f"{name}: "))
    for result in results:
        for warning in result.warnings:
            _LOG.warning("%s: %s", result.adapter, warning.text)
        for metric, reason in result.notes.items():
            _LOG.log(logging.WARNING if asked else logging.INFO, "%s: skipped %s: %s", result.adapter, metric, reason)
        if result.error and len(results) > 1:
            _LOG.error("%s: failed: %s", result.adapter, result.error)


def _raise_failure(adapter: LoadedAdapter, result: Result) -> None:
    """Raises AdapterError where a model failed, from the exception that its own code raised."""
    if result.error:
        fault = getattr(getattr(adapter.model, "call", None), "fault", None)
        raise AdapterError(f"{adapter.name}: {result.error.removeprefix(f'{adapter.name}: ')}") from fault


class _Bars:
    """Progress bars, one for each thing that is being done; none where they are not wanted."""

    def __init__(self, shown: bool) -> None:
        self._shown, self._bars = shown, dict[str, Any]()

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self._shown:
            return
        from tqdm.auto import tqdm  # type: ignore[import-untyped]

        if what not in self._bars:
            self.__exit__()  # the one before is finished
            self._bars[what] = tqdm(total=total, desc=what, leave=False)
        self._bars[what].update(done - self._bars[what].n)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        for bar in self._bars.values():
            bar.close()
