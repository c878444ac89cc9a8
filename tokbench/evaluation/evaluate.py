"""The evaluation loop: one pass over the images for all adapters and all metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tokbench.data.stream import CHUNK, ImageStream, Loader, PairedBatch, whole_chunks
from tokbench.errors import DataError
from tokbench.evaluation.adapter_run import AdapterRun
from tokbench.evaluation.checkpoint import Checkpoint
from tokbench.evaluation.config import Context, EvalConfig
from tokbench.evaluation.gather import gather
from tokbench.evaluation.metric_set import format_error
from tokbench.evaluation.reconstruct import RunSettings
from tokbench.evaluation.run_result import collect, settings, versions
from tokbench.evaluation.steps import TokenTransform
from tokbench.io.hashing import code_of, code_of_class
from tokbench.metric_names import METRICS, refuse_task
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.metrics.feature_cache import ReferenceFeatures
from tokbench.modalities.registry import MODALITIES
from tokbench.paths import PACKAGE
from tokbench.results.result import Result
from tokbench.timing import device_name, exact_kernels, trim_heap
from tokbench.tokenizers.builtin.images import ImageFolder
from tokbench.tokenizers.registry import LoadedAdapter
from tokbench.tokenizers.user_code import with_place

_TRIM_INTERVAL = 8
"""The number of batches between two calls that return freed memory to the system; allocating it again takes
milliseconds."""


def evaluate(
    adapters: Sequence[LoadedAdapter], stream: ImageStream, config: EvalConfig, context: Context | None = None
) -> list[Result]:
    """Evaluate adapters on a stream of images in one pass.

    stream: a dataset, or a `SamplePlan` for a task that is not `paired`. Returns the results in the order of the
    adapters, including those with an `error`: one per adapter, or several where the task makes several. Raises
    DataError where no image could be read, TokbenchError where another rank ended.
    """
    context = context or Context()
    networks = context.networks_for(config)
    references = ReferenceFeatures(context.cache / "features" if context.cache else None, context.warn)
    groups = [_runs(adapter, stream, config) for adapter in adapters]
    runs = [run for group in groups for run in group]
    stream.with_labels = any("labels" in METRICS[name].requires for name in config.metrics)
    try:
        for run in (run for run in runs if run.error is None):
            run.start(networks, references)
            if context.cache and run.error is None and run.adapter.resumable:
                run.checkpoint.storage = Checkpoint(context.cache / "runs", _key(run), context.warn)
        for run in runs:  # after every layer has been requested
            run.share_references()
        if context.ranks.world > 1:
            _require_checkpoints(runs, context)
        if stream.unpaired is not None and context.ranks.first:
            _read_references(runs, stream.unpaired, references, context)
            stream.shape = stream.unpaired.shape
        _pass(runs, stream, config, context)
        trim_heap()  # the matrices of distances then fit into the memory that the pass has used
        gather(runs, stream, references, context.ranks, context.cache)
        if not context.ranks.first:
            _close(runs)
            return []
        stream.refuse_empty()
        return _collect(groups, config, context)
    except BaseException:
        _close(runs)
        raise


def bind_adapter(adapter: LoadedAdapter, stream: ImageStream, device: str) -> str | None:
    """Bind an adapter to the images and move its networks to the device. Returns an error message, or None."""
    if stream.protocol.degrade and isinstance(adapter.model, ImageFolder):
        return f"{adapter.name}: its images exist already; reconstruct degraded images and leave out --degrade"
    try:
        MODALITIES[stream.modality].check(adapter.model.spec)
        stream.bind(adapter.model)
        if adapter.model.module is not None:
            adapter.model.module.eval().to(device)
    except Exception as error:  # third-party code may raise any exception
        return with_place(format_error(error), error, adapter.folders)
    return None


def _runs(adapter: LoadedAdapter, stream: ImageStream, config: EvalConfig) -> list[AdapterRun]:
    """Return one run per token transform of the task, or one run with an error where the adapter cannot do the task. A
    run has an error, too, where the adapter cannot do its transform."""
    steps: Sequence[TokenTransform] = [TokenTransform(config.task.name)]
    error = bind_adapter(adapter, stream, config.device)
    if error is None:
        try:
            refuse_task(config.task.label.kind, stream.modality)
            steps = config.task.steps(adapter.model)
        except Exception as refusal:  # third-party code may raise any exception
            error = with_place(format_error(refusal), refusal, adapter.folders)
    return [AdapterRun(adapter, step, stream, config, error or step.refusal) for step in steps]


def _require_checkpoints(runs: Sequence[AdapterRun], context: Context) -> None:
    """Raise DataError where several processes have no folder through which they can exchange their values."""
    active = [run for run in runs if run.error is None]
    if context.cache is None or not all(run.checkpoint.storage and run.checkpoint.storage.folder for run in active):
        raise DataError(
            "several processes need a writable cache folder; set TOKBENCH_CACHE to one and leave out --no-cache"
        )


def _read_references(
    runs: Sequence[AdapterRun], dataset: ImageStream, references: ReferenceFeatures, context: Context
) -> None:
    """Update the metrics with all references that are not paired with images, before the first image."""
    reader = dataset.batches(CHUNK)
    with exact_kernels():
        for images in reader:
            reader.prefetch()
            batch = Batch(images.index, images.reference, original=images.original, digests=images.digests)
            batch.references = references
            for run in runs:
                run.update_reference(batch)
            context.progress("references", reader.done, reader.total)
            if all(run.error for run in runs):
                break
    dataset.refuse_empty()


def _pass(runs: Sequence[AdapterRun], stream: ImageStream, config: EvalConfig, context: Context) -> None:
    """Run this process's share of the images through every adapter and metric, except for those in the checkpoints."""
    loader = stream.batches(whole_chunks(config.batch_size), context.ranks.share)
    with exact_kernels(), ThreadPoolExecutor(1, "metrics") as executor:
        finished = 0
        progress = partial(context.progress, f"{MODALITIES[stream.modality].noun}s")
        progress(finished, loader.total)
        for number, images in enumerate(loader):
            memo = DerivedCache()
            if config.restorer is not None and isinstance(images, PairedBatch):
                images = config.restorer.restored(images, RunSettings(config.device, config.batch_size, config.seed))
            active = [run for run in runs if run.error is None]
            for position, run in enumerate(active):
                advance = partial(_advance, progress, finished, loader, position, len(active))
                # The next images are decoded during the last adapter's metrics. Earlier they would slow down another
                # adapter's model and count as its memory.
                run.process(images, memo, executor, loader.prefetch if run is active[-1] else _do_nothing, advance)
            finished = loader.done
            if number % _TRIM_INTERVAL == 0:
                trim_heap()
            progress(loader.done, loader.total)
            if all(run.error for run in runs):
                break


def _advance(
    progress: Callable[[int, int], None], before: int, loader: Loader, position: int, count: int, share: float
) -> None:
    """Report the progress inside a batch: the images of a batch count in proportion to the finished model calls.

    progress: called with the number of finished images and the total. before: number of images in earlier batches.
    position, count: the adapter's position among those of the pass. share: the share of the batch that this adapter has
    finished.
    """
    progress(before + int((loader.done - before) * (position + share) / count), loader.total)


def _do_nothing() -> None:
    """Do nothing after the model of an adapter that is not the last one; see `_pass`."""


def _collect(groups: Sequence[Sequence[AdapterRun]], config: EvalConfig, context: Context) -> list[Result]:
    runs = [run for group in groups for run in group]
    total, measured = sum(len(run.metrics.metrics) for run in runs if run.error is None), 0

    def count(name: str) -> None:
        nonlocal measured
        measured += 1
        context.progress("intervals", measured, total)

    results: list[Result] = []
    for group in groups:
        results += config.task.results([(run.step, collect(run, count)) for run in group])
    return results


def _close(runs: Sequence[AdapterRun]) -> None:
    for run in runs:
        run.checkpoint.close()


def _key(run: AdapterRun) -> dict[str, Any]:
    """Return everything that the numbers of a run depend on except the pixels, which are compared image by image."""
    stream, config = run.images, run.config
    added = [name for name in run.metrics.metrics if not METRICS.is_builtin(name)]
    plugins = {name: [str(METRICS.package(name)), code_of_class(METRICS.load_class(name))] for name in added}
    return {
        "adapter": run.adapter.name,
        "made": run.description,
        "dataset": stream.name,
        "images": len(stream),
        "size": stream.side,
        "protocol": stream.protocol.sha256,
        "task": run.step.task,
        "cell": run.step.cell,
        "step": run.step.recorded,
        "metrics": sorted(config.metrics),
        "networks": run.metrics.provenance(),
        "labels": stream.labels_sha256,
        "plugins": plugins,
        "statistics": config.statistics.key if config.statistics else None,
        "hardware": device_name(config.device).partition(",")[0],
        "tokbench": code_of(PACKAGE),
        "versions": versions(),
    } | settings(run)
