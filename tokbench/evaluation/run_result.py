"""The Result of one run: its numbers, and the provenance of adapter, data, protocol and versions."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from tokbench._version import __version__
from tokbench.errors import MissingWeights, NotApplicable
from tokbench.evaluation.adapter_run import AdapterRun
from tokbench.modalities.registry import MODALITIES
from tokbench.protocol.protocol import describe_protocol
from tokbench.results.result import Result
from tokbench.results.warning import ResultWarning, few_images
from tokbench.stats.split_half import SplitHalves
from tokbench.tokenizers.builtin.images import ImageFolder
from tokbench.tokenizers.captioned import CaptionedTokenizer

_VERSIONS = ("torch", "torchvision", "numpy", "pillow", "scikit-image", "torch-fidelity", "lpips")


def versions() -> dict[str, str]:
    """Return the versions of the packages that numbers depend on."""
    return {package: importlib.metadata.version(package) for package in _VERSIONS}


def settings(run: AdapterRun) -> dict[str, Any]:
    """Return the settings that a result records and that are part of a checkpoint's key."""
    config = run.config
    restore = {} if config.restorer is None else {"restore": config.restorer.description}
    return {"seed": config.seed, "precision": config.precision, "device": config.device.partition(":")[0]} | restore


def collect(run: AdapterRun, done: Callable[[str], None]) -> Result:
    """Return the result of a run that has processed all images, or that failed. done: called with each metric's
    name."""
    stream, config = run.images, run.config
    read = stream.summary()
    numbers = run.compute(SplitHalves(read.sha256, read.count, read.pairs), done)
    for number in numbers.values.values():
        number.setdefault("n", read.count)
    modality = MODALITIES[stream.modality]
    few: ResultWarning | None = None
    if run.error is None:  # a failed run has no numbers to warn about
        few = few_images(read.count, numbers.values, read.references, modality.noun)
    note: str | None = None
    adapter = run.description | run.step.recorded
    with suppress(NotApplicable):  # a shape that the adapter does not take is the error of the run
        note = modality.plan(run.adapter.model.spec, stream.shape).describe() if stream.shape else None
    if note:
        adapter["fitted"] = note
    if fingerprint := run.checkpoint.fingerprint():
        adapter["fingerprint"] = fingerprint
    statistics = config.statistics
    captioned = isinstance(run.adapter.model, CaptionedTokenizer)
    reference = {"reference": statistics.describe(stream.protocol, stream.shape)} if statistics else {}
    return Result(
        adapter=run.adapter.name,
        dataset=stream.name,
        task=run.step.task,
        num_images=read.count,
        metrics=numbers.values,
        skipped={name: error.public_reason for name, error in run.metrics.skipped.items()},
        bad_images=[{"name": name, "reason": reason} for name, reason in read.unreadable],
        provenance={
            "adapter": adapter,
            "data": {
                "sha256": read.sha256,
                "own_size": read.native_size,
                "available": read.available,
                "limit": read.limited,
                "enlarged": read.num_upscaled,
            }
            | modality.describe_data(stream)
            | ({"sampling": read.sampling} if read.limited else {})
            | ({"captions": stream.captions.rule} if captioned and stream.captions else {})
            | ({"left_out": read.left_out} if read.left_out else {}),
            "protocol": describe_protocol(stream.protocol),
            "metrics": numbers.provenance,
            **settings(run),
            **reference,
            "versions": {"tokbench": __version__, "python": platform.python_version()} | versions(),
        },
        error=run.error,
        per_image=_aligned(numbers.per_image, stream.names),
        replicates=numbers.replicates,
        readings={
            kind: [(stream.names[position], reading) for position, reading in readings]
            for kind, readings in numbers.readings.items()
        },
        warnings=[*numbers.warnings, *filter(None, (few, _other_rotation(run)))],
        notes={name: str(error) for name, error in run.metrics.skipped.items()},
        computed=frozenset(run.metrics.metrics) - frozenset(run.metrics.skipped),
        lacking=frozenset(name for name, error in run.metrics.skipped.items() if isinstance(error, MissingWeights)),
        checkpoint=run.checkpoint.storage,
    )


def _other_rotation(run: AdapterRun) -> ResultWarning | None:
    """Return a warning if originals and reconstructions made elsewhere have different EXIF orientations."""
    model, seen, names = run.adapter.model, run.images.seen, run.images.names
    if not isinstance(model, ImageFolder) or not (seen.rotated or model.rotated):
        return None
    originals = {names[position]: orientation for position, orientation in seen.rotated.items()}
    unlike = [
        name for name in sorted(originals | model.rotated) if originals.get(name, 1) != model.rotated.get(name, 1)
    ]
    if not unlike:
        return None
    return ResultWarning(
        "exif_rotation",
        f"{len(unlike):,} originals and reconstructions have different EXIF orientations ({unlike[0]}: "
        f"{originals.get(unlike[0], 1)} and {model.rotated.get(unlike[0], 1)}). tokbench ignores them on both sides: "
        "if the other program rotated the pixels, rotate those of the originals, too",
        len(unlike),
        len(names),
    )


def _aligned(per_image: dict[str, tuple[np.ndarray, np.ndarray]], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return per-image values on one axis: `index` (positions) and `name`, then each number, NaN where it has
    no value."""
    if not per_image:
        return {}
    positions = np.unique(np.concatenate([index for index, _ in per_image.values()]))
    columns = {"index": positions, "name": np.array([names[p] for p in positions])}
    for number, (index, values) in per_image.items():
        column = np.full(len(positions), np.nan)
        column[np.searchsorted(positions, index)] = values
        columns[number] = column
    return columns
