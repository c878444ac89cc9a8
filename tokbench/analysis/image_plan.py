"""How many images tell two results apart, and how long their evaluation takes on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokbench.analysis.compare import Difference, differences
from tokbench.data.dataset import Dataset
from tokbench.data.reading import DEFAULTS, ReadOptions
from tokbench.errors import AdapterError, DataError, NotApplicable, ResultError, did_you_mean
from tokbench.evaluation.config import Context, EvalConfig
from tokbench.evaluation.evaluate import evaluate
from tokbench.evaluation.tasks import parse_task
from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import metric_of
from tokbench.modalities.open import open_dataset
from tokbench.protocol.protocol import recorded_protocol
from tokbench.results.result import Result, side_of
from tokbench.stats.sample_size import POWER, images_needed, range_of_images_needed
from tokbench.tokenizers.registry import load_adapter

WARM_UP = 2
"""The number of images of the run before the measured one, which loads networks and allocates memory."""


@dataclass(frozen=True)
class ImagePlan:
    """The images that one number needs in order to differ significantly between two results.

    difference: the measured difference. needed: the number of images, or None where no number is enough or there is no
    interval. fewest, most: the same for the ends of the difference's interval; `most` is None where it contains 0.
    """

    difference: Difference
    needed: int | None
    fewest: int | None
    most: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object."""
        return self.difference.to_dict() | {"needed": self.needed, "fewest": self.fewest, "most": self.most}


def plan_images(first: Result, second: Result, numbers: Sequence[str] = (), power: float = POWER) -> list[ImagePlan]:
    """Return the images that each number needs, by default every number whose difference has an interval.

    power: the probability with which the paired 95 % interval of that many images excludes 0. Raises ResultError if the
    results cannot be compared or lack a number.
    """
    found = {one.number: one for one in differences(first, second)}
    if unknown := [number for number in numbers if number not in found]:
        raise ResultError(
            f"{first.adapter} and {second.adapter} have no common number '{unknown[0]}' with the same settings; "
            f"{did_you_mean(unknown[0], found)}they have {', '.join(found)}"
        )
    with_interval = [number for number, one in found.items() if not math.isnan(one.low)]
    return [_planned(found[number], power) for number in dict.fromkeys(numbers or with_interval)]


def _planned(one: Difference, power: float) -> ImagePlan:
    fewest, most = range_of_images_needed(one.low, one.high, one.deviation, one.n, power)
    return ImagePlan(one, images_needed(one.gap, one.deviation, one.n, power), fewest, most)


def dataset_of(
    result: Result, data: str | None = None, root: Path | None = None, reading: ReadOptions = DEFAULTS
) -> Dataset:
    """Open the images of a result. data: their path, if the name in the result is not that of a dataset here.

    Raises DataError if they are not available, or if an adapter restored them first.
    """
    provenance = result.provenance
    if "restore" in provenance:
        restorer = provenance["restore"]["name"]
        raise DataError(
            f"{result.adapter} on {result.group}: its input was restored by {restorer}; give a result without it"
        )
    facts, protocol = provenance["data"], recorded_protocol(provenance["protocol"])
    return open_dataset(
        data or result.dataset, protocol, side_of(facts), facts["limit"], root, reading.recorded(provenance)
    )


def seconds_per_image(
    first: Result,
    second: Result,
    numbers: Sequence[str],
    images: Callable[[], Dataset],
    count: int,
    device: str = "cpu",
    root: Path | None = None,
    allow_download: bool = False,
) -> float:
    """Return the seconds per image in which both adapters and the metrics of these numbers run here.

    images: opens the images. count: the number of images that are timed, after a run of WARM_UP images. The time of
    intervals at the end of an evaluation is not in proportion to the images; only that for these images is included.

    Raises NotApplicable for generated samples, TokbenchError if an adapter cannot be loaded or fails.
    """
    task = parse_task(second.task)
    if not task.paired:
        raise NotApplicable("the time of generated samples is not measured; it depends on the generator")
    names = tuple(dict.fromkeys(metric for number in numbers if (metric := metric_of(number))))
    networks = ExtractorPool(device, allow_download, second.provenance["precision"])
    # The two results can be those of two variants of one decoder.
    sources = [(parse_task(one.task), one.provenance["adapter"].get("source", one.adapter)) for one in (first, second)]
    loaded = [(own, load_adapter(source, device, root, allow_download)) for own, source in sources]

    def run(limit: int) -> float:
        """Return the seconds per image of the first images."""
        dataset = images()
        dataset.limit = min(limit, len(dataset))  # the first images of the same sample
        start = time.perf_counter()
        for own, adapter in loaded:
            config = EvalConfig(names, own, device=device, precision=second.provenance["precision"])
            for result in evaluate([adapter], dataset, config, Context(networks=networks)):
                if result.error:
                    raise AdapterError(f"{adapter.name}: {result.error}")
        return (time.perf_counter() - start) / len(dataset)

    run(WARM_UP)
    return run(count)
