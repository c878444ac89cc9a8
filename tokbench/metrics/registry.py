"""The selection of the metrics that a command computes, and their creation.

The module of a metric is imported only when the metric is created, so that an error in one module does not affect other
metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from tokbench.errors import MetricUnavailable, NotApplicable, UsageError, did_you_mean
from tokbench.metric_names import INCEPTION, METRICS, MetricSpec, Modality, TaskKind, defaults, groups, metrics_for
from tokbench.protocol.protocol import TOKBENCH, Protocol

if TYPE_CHECKING:
    import numpy as np

    from tokbench.data.labels import Labels
    from tokbench.extractors.pool import ExtractorPool
    from tokbench.metrics.base import Metric
    from tokbench.metrics.fid_statistics import FidStatistics
    from tokbench.metrics.semantics import LabelsOf
    from tokbench.tokenizers.base import ImageModel
    from tokbench.tokenizers.tokens import Tokens


def choose_for(
    task: TaskKind, names: str | None, protocol: Protocol = TOKBENCH, modality: Modality = "image"
) -> list[str]:
    """Return the metrics of `choose` that exist for a task.

    Raises UsageError for unknown metrics, and for metrics that are requested by name but do not exist for samples, for
    reconstructions, or without variants of a decoder.
    """
    if protocol.degrade and task == "generate":
        raise UsageError("--degrade damages the images that a tokenizer gets, and a generator gets none; leave it out")
    if task in ("generate", "decode") and names is None:
        return defaults(task, modality)
    chosen, samples = choose(names, protocol, modality), task == "generate"
    if task != "decode":
        of_variants = [name for name in chosen if "baseline" in METRICS[name].requires]
        if of_variants and names != "all":
            raise UsageError(f"{', '.join(of_variants)}: only for variants of a decoder; give --task decode")
        chosen = [name for name in chosen if name not in of_variants]
    of_degraded = [name for name in chosen if "degraded" in METRICS[name].requires]
    if of_degraded and not protocol.degrade:
        if names != "all":
            raise UsageError(f"{', '.join(of_degraded)}: only for degraded input; give --degrade")
        chosen = [name for name in chosen if name not in of_degraded]
    wrong = [name for name in chosen if METRICS[name].paired is samples]
    if wrong and names != "all":
        known = ", ".join(name for name in metrics_for(modality) if not METRICS[name].paired)
        why = f"samples have no references; they have {known}" if samples else "give --task generate"
        raise UsageError(f"{', '.join(wrong)}: only for {'reconstructions' if samples else 'samples'}; {why}")
    return [name for name in chosen if name not in wrong]


def choose(names: str | None, protocol: Protocol = TOKBENCH, modality: Modality = "image") -> list[str]:
    """Return the metric names of a comma-separated list, of `all`, or of None for the default metrics. The name of a
    group (`latent`) stands for its metrics.

    The default metrics are those of tokbench, those that the authors of the protocol publish, and `restoration` if the
    protocol degrades images; the network of `lpips` is that of the protocol. Raises UsageError for unknown metrics and
    for those of other kinds of data.
    """
    if protocol.degrade and modality != "image":
        raise UsageError(f"--degrade exists for images only, and these are data of the kind {modality}")
    known = metrics_for(modality)
    if names is None:
        own = ["restoration"] if protocol.degrade else []
        published = [name for name in protocol.published.metrics if name in known]
        asked = dict.fromkeys([*defaults("reconstruct", modality), *published, *own])
        return [_LPIPS[protocol.lpips.net] if name == "lpips" else name for name in asked]
    if names == "all":
        return known
    grouped = groups()
    asked_names = [name.strip() for name in names.split(",") if name.strip()]
    given = [member for name in asked_names for member in ([name] if name in METRICS else grouped.get(name, [name]))]
    unknown = [name for name in given if name not in METRICS]
    if refusals := [refusal for name in unknown if (refusal := METRICS.refusal(name))]:
        raise UsageError("; ".join(refusals))
    if unknown or not given:
        hint = did_you_mean(unknown[0], (*METRICS, *grouped)) if unknown else ""
        there = ", ".join((*METRICS, *(f"{name} ({len(members)} metrics)" for name, members in grouped.items())))
        raise UsageError(f"no metric '{', '.join(unknown)}'; {hint}there are: {there}")
    if others := [name for name in given if name not in known]:
        kinds = ", ".join(dict.fromkeys(kind for name in others for kind in METRICS[name].modalities))
        raise UsageError(
            f"{', '.join(others)}: for data of the kind {kinds}, but these are of the kind {modality}, which has "
            f"{', '.join(known)}"
        )
    return list(dict.fromkeys(given))


_LPIPS = {"alex": "lpips", "vgg": "lpips_vgg"}


def no_other_images() -> Tokens:
    """Raise NotApplicable: a context for which no images outside the run are known."""
    raise NotApplicable("no images are known besides those of the run")


def no_labels(classes: int) -> tuple[np.ndarray, Labels]:
    """Raise NotApplicable: a context for which no images are known."""
    raise NotApplicable("these images have no labels")


@dataclass(frozen=True)
class MetricContext:
    """The values with which the metrics of one run are created.

    networks: the frozen networks. model: the tokenizer or generator. protocol: the evaluation protocol. batch_size:
    images per model call. statistics: reference statistics that replace those of the dataset's images. paired: whether
    each image is made from one reference. guidance: the scale at which a generator is sampled. has_references: whether
    reference images exist in addition to statistics, for metrics that need the images. labels: the labels of the
    images, or of the references if samples are compared with them, for a number of classes. neighbours: the tokens of
    images of the dataset that the run does not evaluate.
    """

    networks: ExtractorPool
    model: ImageModel
    protocol: Protocol = TOKBENCH
    batch_size: int = 16
    statistics: FidStatistics | None = None
    paired: bool = True
    guidance: float | None = None
    has_references: bool = False
    labels: LabelsOf = no_labels
    neighbours: Callable[[], Tokens] = no_other_images


def create_metric(name: str, context: MetricContext) -> Metric:
    """Create a metric.

    Raises MissingWeights if the weights of its network are missing, NotApplicable if the statistics do not fit or if
    the package of the metric fails.
    """
    try:
        return _create(METRICS[name], context)
    except MetricUnavailable:
        raise
    except Exception as error:
        if METRICS.is_builtin(name):
            raise
        raise broken_plugin(name, error) from error


def broken_plugin(name: str, error: Exception) -> NotApplicable:
    """Return the error that records why a metric of another package is skipped."""
    return NotApplicable(f"package {METRICS.package(name)} failed ({type(error).__name__}: {str(error)[:300]})")


def _create(spec: MetricSpec, context: MetricContext) -> Metric:
    networks, protocol = context.networks, context.protocol
    cls = METRICS.load_class(spec.name)
    given: dict[str, object] = {field.name: getattr(context, field.name) for field in fields(context)}
    given |= {"name": spec.name, "device": networks.device}
    if context.has_references and getattr(cls, "needs_rows", False):
        given["statistics"] = None
    arguments = {key: given[key] for key in spec.wants}
    if spec.network:
        arguments["network"] = networks.get(spec.network, _input_path(spec.network, protocol))
    if spec.reader:
        arguments |= {"reader": networks.reader(spec.reader), "suffix": spec.suffix}
    if spec.layer:
        arguments["layer"] = spec.layer
    metric: Metric = cls(**arguments)
    return metric


def _input_path(network: str, protocol: Protocol) -> str | None:
    if network == INCEPTION:
        return protocol.features.input
    return protocol.lpips.input if network.startswith("lpips") else None
