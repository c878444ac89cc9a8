"""Which metrics a command computes, and how they are made.

Their files are imported only when a metric is asked for, so that one broken file costs only its own metrics.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tokbench.errors import UsageError
from tokbench.metric_names import INCEPTION
from tokbench.protocol.protocol import TOKBENCH, Protocol
from tokbench.results.metric_specs import METRICS

if TYPE_CHECKING:
    from tokbench.extractors.pool import ExtractorPool
    from tokbench.metrics.base import Metric
    from tokbench.metrics.fid_statistics import FidStatistics
    from tokbench.tokenizers.base import ImageModel


DEFAULT = ("rate", "psnr", "ssim", "ms_ssim", "lpips", "rfid", "fd_efficientnet", "codebook", "speed")
"""What `tokbench eval` computes when neither the user nor the protocol tells it."""


ONLY_OF_SAMPLES = (
    "gfid",
    "gfid_768",
    "gfid_192",
    "gfid_64",
    "precision_recall",
    "precision_recall_768",
    "precision_recall_efficientnet",
    "cost",
)
OF_SAMPLES = (
    *ONLY_OF_SAMPLES,
    *("sfid", "fd_efficientnet", "kid", "kid_768", "inception_score", "rate", "codebook", "coding", "speed"),
)
"""Metrics that samples have, which are paired with nothing."""

GENERATED = ("gfid", "gfid_768", "fd_efficientnet", "precision_recall_efficientnet", "codebook", "cost", "speed")
"""What `tokbench eval --task generate` computes when the user does not tell it."""


def choose_for(samples: bool, names: str | None, protocol: Protocol = TOKBENCH) -> list[str]:
    """The same as `choose`, for samples or for reconstructions. Raises UsageError, too, for a metric that is asked for
    by its name and that they do not have."""
    if samples and names is None:
        return list(GENERATED)
    chosen = choose(names, protocol)
    wrong = [name for name in chosen if (name not in OF_SAMPLES if samples else name in ONLY_OF_SAMPLES)]
    if wrong and names != "all":
        why = (
            f"samples are paired with nothing; they have {', '.join(OF_SAMPLES)}" if samples else "give --task generate"
        )
        raise UsageError(f"{', '.join(wrong)}: of {'reconstructions' if samples else 'samples'}; {why}")
    return [name for name in chosen if name not in wrong]


def choose(names: str | None, protocol: Protocol = TOKBENCH) -> list[str]:
    """Metric names from a comma-separated list, `all`, or None for the default. Raises UsageError for unknown ones.

    The default is what the protocol's authors publish, and the rest of tokbench's; `lpips` is the protocol's network.
    """
    if names is None:
        asked = dict.fromkeys([*DEFAULT, *protocol.published.metrics])
        return [_LPIPS[protocol.lpips.net] if name == "lpips" else name for name in asked]
    if names == "all":
        return list(METRICS)
    given = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in given if name not in METRICS]
    if unknown or not given:
        raise UsageError(f"no metric '{', '.join(unknown)}'; there are: {', '.join(METRICS)}")
    return list(dict.fromkeys(given))


_LPIPS = {"alex": "lpips", "vgg": "lpips_vgg"}


def create_metric(
    name: str,
    networks: ExtractorPool,
    model: ImageModel,
    protocol: Protocol = TOKBENCH,
    batch_size: int = 16,
    statistics: FidStatistics | None = None,
    paired: bool = True,
    guidance: float | None = None,
    rows: bool = False,
) -> Metric:
    """A fresh metric of that name; `statistics` are a reference's, in place of those of the images to come. `paired`:
    whether each image is made from one reference. `guidance`: the scale at which a generator is sampled.
    `rows`: whether images lie beside the statistics, for metrics that need more of them than these.

    Raises MissingWeights where its network's weights are not here, NotApplicable where the statistics do not fit.
    """
    entry = METRICS[name]
    module, _, kind = entry.path.partition(":")
    given: dict[str, object] = {
        "name": name, "model": model, "device": networks.device, "batch_size": batch_size, "protocol": protocol,
        "statistics": statistics, "paired": paired,
        "guidance": guidance,
    }  # fmt: skip
    made = getattr(importlib.import_module(f"tokbench.metrics.{module}"), kind)
    if rows and getattr(made, "needs_rows", False):
        given["statistics"] = None
    arguments = {key: given[key] for key in entry.wants}
    if entry.network:
        arguments["network"] = networks.get(entry.network, _input_path(entry.network, protocol))
    if entry.reader:
        arguments |= {"reader": networks.reader(entry.reader), "suffix": entry.suffix}
    if entry.layer:
        arguments["layer"] = entry.layer
    metric: Metric = made(**arguments)
    return metric


def _input_path(network: str, protocol: Protocol) -> str | None:
    if network == INCEPTION:
        return protocol.features.input
    return protocol.lpips.input if network.startswith("lpips") else None
