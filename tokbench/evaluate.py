"""The loop: one pass over the images, every adapter, every metric. It names none of them."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tokbench
from tokbench.batch import Batch, Memo
from tokbench.dataset import UNIT, Dataset, Images, Reader, whole_units
from tokbench.errors import DataError
from tokbench.features import References
from tokbench.fit import fit
from tokbench.halves import Halves
from tokbench.journal import Journal
from tokbench.plugins import Loaded
from tokbench.provenance import code_of, describe_protocol
from tokbench.ranks import ALONE, Ranks
from tokbench.readers import Networks
from tokbench.result import Result
from tokbench.result_warning import few_images
from tokbench.run import Numbers, Run, explain
from tokbench.slots import Slots, Turn, Turns
from tokbench.speed import describe, give_back_memory
from tokbench.statistics import Statistics
from tokbench.steps import Step
from tokbench.storage import stored
from tokbench.tasks import RECONSTRUCT, Task

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and of how much."""

_TIMED = ("cost", "speed")
"""Metrics whose provenance is the machine."""

_TRIMMED = 8
"""Batches after which freed memory goes back to the system; getting it again costs milliseconds."""

_VERSIONS = ("torch", "torchvision", "numpy", "pillow", "scikit-image", "torch-fidelity", "lpips")


def evaluate(
    adapters: Sequence[Loaded],
    stream: Dataset | Slots,
    names: Sequence[str],
    *,
    task: Task = RECONSTRUCT,
    networks: Networks | None = None,
    statistics: Statistics | None = None,
    batch_size: int = 16,
    seed: int = 0,
    cache: Path | None = None,
    ranks: Ranks = ALONE,
    warn: Callable[[str], None] = lambda text: None,
    progress: Progress = lambda what, done, total: None,
) -> list[Result]:
    """Evaluate adapters on a dataset in one pass; their Results in order, those with an `error` included: one of each
    adapter, but for a task that makes several. `stream`: the dataset, or for a task that is not `paired` its `Slots`.

    `names` are metric names. `statistics`: what distributions are compared with in place of the references' own.
    `cache`: a folder where what is found is kept as it is found, so that the same call goes on from there after an
    interruption, and what metrics keep takes no memory; it also holds the references' features for later runs. Call
    `discard` of each result's journal once the result is saved. `ranks`: this process among others that share the
    images; only the first one gets results, the others an empty list. `progress` is told ("images", "references" or
    "intervals", how many are done, of how many).
    Raises DataError where not one image could be read, TokbenchError where another rank ended.
    """
    networks = networks or Networks()
    references = References(cache / "features" if cache else None, warn)
    groups = [_runs(adapter, stream, task, batch_size, networks.device) for adapter in adapters]
    runs = [run for group in groups for run in group]
    told: dict[str, Any] = {"seed": seed, "precision": networks.precision, "device": networks.device.partition(":")[0]}
    for run in runs:
        run.start(names, networks, statistics, isinstance(stream, Slots) and stream.reference is not None)
        if cache and run.error is None and run.adapter.resumable:
            run.journal = Journal(cache / "runs", _about(run, stream, names, statistics, networks, told), warn)
    for run in runs:  # when every layer has been asked for
        run.attach(references)
    kept = cache is not None and all(run.journal is None or run.journal.folder for run in runs)
    if ranks.world > 1 and not kept:
        _close(runs)
        raise DataError(
            "several processes need a cache folder that they can write; set TOKBENCH_CACHE to one, without --no-cache"
        )
    try:
        if isinstance(stream, Slots) and stream.reference is not None and ranks.first:
            _look(runs, stream.reference, references, progress)
            refuse_empty(stream.reference)
            stream.shape = stream.reference.shape
        _pass(runs, stream, references, networks.device, batch_size, seed, ranks, progress)
        give_back_memory()  # so that the matrices of distances find room below what the pass needed
        if ranks.world > 1 and cache is not None:
            _join(runs, stream, references, ranks, cache)
        if not ranks.first:
            _close(runs)
            return []
        if isinstance(stream, Dataset):
            refuse_empty(stream)
        if statistics is not None:
            told["reference"] = statistics.described(stream.protocol, stream.shape)
        total, measured = sum(len(run.metrics) for run in runs if run.error is None), 0

        def count(name: str) -> None:
            nonlocal measured
            measured += 1
            progress("intervals", measured, total)

        results: list[Result] = []
        for group in groups:
            results += task.results([(run.step, _result(run, stream, told, count)) for run in group])
        return results
    except BaseException:
        _close(runs)
        raise


def _runs(adapter: Loaded, stream: Dataset | Slots, task: Task, batch_size: int, device: str) -> list[Run]:
    """One for each step of the task; one with an error where the adapter cannot do it, or cannot be made ready."""
    steps: Sequence[Step] = [Step(task.name)]
    error = make_ready(adapter, stream, device)
    if error is None:
        try:
            steps = task.steps(adapter.model)
        except Exception as refusal:  # other people's code: anything may come
            error = explain(refusal)
    return [Run(adapter, stream.protocol, batch_size, task, step, error=error) for step in steps]


def _close(runs: Sequence[Run]) -> None:
    """Let go of the journals, and leave them for the same call."""
    for run in runs:
        if run.journal:
            run.journal.close()


def _look(runs: Sequence[Run], dataset: Dataset, references: References, progress: Progress) -> None:
    """All references, before images come that were not made from them; what is asked of each, once."""
    reader = dataset.batches(UNIT)
    with exact_kernels():
        for images in reader:
            reader.ahead()
            batch = Batch(images.index, images.reference, original=images.original, digests=images.digests)
            batch.references = references
            for run in runs:
                if run.error is None:
                    run.look(batch)
            progress("references", reader.done, reader.total)
            if all(run.error for run in runs):
                break


def _pass(
    runs: Sequence[Run],
    stream: Dataset | Slots,
    references: References,
    device: str,
    batch_size: int,
    seed: int,
    ranks: Ranks,
    progress: Progress,
) -> None:
    """This process's share of the images through every adapter and metric, but for what is in the journals."""
    reader: Reader | Turns = stream.batches(whole_units(batch_size), ranks.share)
    with exact_kernels(), ThreadPoolExecutor(1, "metrics") as beside:
        some: Images | Turn
        for number, some in enumerate(reader):  # type: ignore[assignment]
            memo = Memo()
            going = [run for run in runs if run.error is None]
            for run in going:
                ahead = reader.ahead if run is going[-1] else _later
                _step(run, some, memo, references, stream, ahead, beside, device=device, seed=seed)
            if number % _TRIMMED == 0:
                give_back_memory()
            progress("images", reader.done, reader.total)
            if all(run.error for run in runs):
                break


def _step(
    run: Run,
    images: Images | Turn,
    memo: Memo,
    references: References,
    stream: Dataset | Slots,
    ahead: Callable[[], None],
    beside: ThreadPoolExecutor,
    **options: Any,
) -> None:
    """Some images through one adapter and its metrics. `ahead` is called when encode and decode are over: the last
    adapter's begins to decode the next images, which beside another's would take its time and count as its memory."""
    # Only a sample tells how large samples are, where there is no reference.
    if not run.elsewhere and stream.shape is not None and run.resume(images, references):
        ahead()
        return
    batch = run.take(images, memo=memo, **options)
    ahead()
    if batch is None:
        return
    batch.references = references
    stream.shape = stream.shape or tuple(batch.need("image").shape[2:])
    if run.elsewhere and run.resume(images, references, batch):
        return
    run.eat(stored(batch, run.protocol), beside)
    run.keep(images)


def _later() -> None:
    """Decode the next images when they are asked for, or when the last adapter has had its turn."""


def _join(runs: Sequence[Run], stream: Dataset | Slots, references: References, ranks: Ranks, cache: Path) -> None:
    """Bring together on rank 0 what all ranks found."""
    if not ranks.first:
        files = [run.journal.path(unit) for run in runs if run.journal for unit in sorted(run.units)]
        told = {
            "rank": ranks.rank,
            "seen": stream.seen,
            "shape": stream.shape,
            "runs": [(run.error, sorted(run.units)) for run in runs],
        }
        ranks.hand_over(told, [file for file in files if file] + sorted(references.files), cache)
        return
    for told in ranks.collect(cache):
        stream.seen.merge(told["seen"])
        ours, theirs = stream.shape, told["shape"]
        if ours and theirs and tuple(theirs) != ours:
            sizes = f"{theirs[1]}x{theirs[0]}, and rank 0 of {ours[1]}x{ours[0]}"
            raise DataError(f"rank {told['rank']} met images of {sizes}; make all of them alike")
        stream.shape = stream.shape or told["shape"]
        for run, (error, units) in zip(runs, told["runs"], strict=True):
            run.error = run.error or (f"rank {told['rank']}: {error}" if error else None)
            for unit in units if run.error is None else ():
                kept = run.kept(unit)
                if kept is None or not run.comparable(kept, references):
                    raise DataError(
                        f"unit {unit} of rank {told['rank']} cannot be read in {cache}; run the same command again"
                    )
                run.restore(kept)


def _about(
    run: Run,
    stream: Dataset | Slots,
    names: Sequence[str],
    statistics: Statistics | None,
    networks: Networks,
    told: dict[str, Any],
) -> dict[str, Any]:
    """All that the numbers of a run depend on but the pixels themselves, which are compared one by one."""
    layers = {name: metric.provenance() for name, metric in run.metrics.items() if name not in _TIMED}
    return {
        "adapter": run.adapter.name,
        "made": run.described,
        "dataset": stream.name,
        "images": len(stream),
        "size": stream.size,
        "protocol": stream.protocol.sha256,
        "task": run.step.task,
        "cell": run.step.cell,
        "step": run.step.told,
        "metrics": sorted(names),
        "networks": layers,
        "statistics": statistics.key if statistics else None,
        "hardware": describe(networks.device).partition(",")[0],
        "tokbench": code_of(Path(tokbench.__file__).parent),
        "versions": {package: importlib.metadata.version(package) for package in _VERSIONS},
    } | told


def make_ready(adapter: Loaded, stream: Dataset | Slots, device: str) -> str | None:
    """Let an adapter look at the images to come, and put its networks on the device. What went wrong, or None."""
    try:
        if isinstance(stream, Dataset):
            adapter.model.prepare(stream.names, stream.source.names)
        if adapter.model.module is not None:
            adapter.model.module.eval().to(device)
    except Exception as error:
        return explain(error)
    return None


def exact_kernels() -> AbstractContextManager[None]:
    """On a GPU, cuDNN would otherwise round float32 to TF32 and choose kernels that differ from run to run."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def refuse_empty(dataset: Dataset) -> None:
    """Raises DataError where a pass read not one image."""
    if dataset.shape is None:
        first = dataset.bad[0][1] if dataset.bad else "it is empty"
        raise DataError(f"{dataset.name}: no image could be read ({first})")


def _result(run: Run, stream: Dataset | Slots, told: dict[str, Any], done: Callable[[str], None]) -> Result:
    count = stream.readable
    halves = Halves(stream.sha256, count, stream.pairs)
    numbers = run.numbers(told["seed"], halves, done) if run.error is None else Numbers()
    for number in numbers.values.values():
        number.setdefault("n", count)
    # Those of a failed run would be of nothing.
    few = few_images(count, numbers.values, stream.references) if run.error is None else None
    height, width = stream.shape or (0, 0)  # none where the run failed
    plan = fit(run.adapter.model.spec, height, width)
    adapter = run.described | run.step.told
    if note := plan.describe():
        adapter["fitted"] = note
    if fingerprint := run.fingerprint():
        adapter["fingerprint"] = fingerprint
    return Result(
        adapter=run.adapter.name,
        dataset=stream.name,
        task=run.step.task,
        num_images=count,
        metrics=numbers.values,
        skipped={name: error.fact for name, error in run.skipped.items()},
        bad_images=[{"name": name, "reason": reason} for name, reason in stream.bad],
        provenance={
            "adapter": adapter,
            "data": {
                "sha256": stream.sha256,
                "width": width,
                "height": height,
                "own_size": stream.own_size,
                "available": stream.available,
                "limit": stream.limited,
                "enlarged": stream.enlarged,
            }
            | ({"left_out": stream.left_out} if stream.left_out else {}),
            "protocol": describe_protocol(stream.protocol),
            "metrics": numbers.provenance,
            **told,
            "versions": {"tokbench": tokbench.__version__, "python": platform.python_version()}
            | {package: importlib.metadata.version(package) for package in _VERSIONS},
        },
        error=run.error,
        per_image=_aligned(numbers.per_image, stream.names),
        replicates=numbers.replicates,
        readings={kind: [(stream.names[at], read) for at, read in own] for kind, own in numbers.readings.items()},
        warnings=numbers.warnings + ([few] if few else []),
        notes={name: str(error) for name, error in run.skipped.items()},
        computed=frozenset(run.metrics) - frozenset(run.skipped),
        journal=run.journal,
    )


def _aligned(per_image: dict[str, tuple[np.ndarray, np.ndarray]], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Per-image values on one axis: `index` (positions) and `name`, then each number, NaN where it has no value."""
    if not per_image:
        return {}
    positions = np.unique(np.concatenate([index for index, _ in per_image.values()]))
    columns = {"index": positions, "name": np.array([names[p] for p in positions])}
    for number, (index, values) in per_image.items():
        column = np.full(len(positions), np.nan)
        column[np.searchsorted(positions, index)] = values
        columns[number] = column
    return columns
