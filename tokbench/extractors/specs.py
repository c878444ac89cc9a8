"""EXTRACTORS: the frozen networks of metrics, of tokbench and of other packages. This module does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tokbench.errors import UsageError
from tokbench.metric_names import INCEPTION
from tokbench.metric_names.plugins import PluginRegistry
from tokbench.weights.registry import KNOWN_WEIGHTS, WeightFile


@dataclass(frozen=True)
class ExtractorSpec:
    """One frozen network.

    name: the name by which a MetricSpec refers to it as `network`.
    path: `module:Class` of a FeatureExtractor. The class is called with the weights (LocalWeights, or None if there are
    no weight files), the backend, and `options` as keyword arguments.
    weights: the files that may contain its weights, the published one first. The files of tokbench's own networks are
    listed in `tokbench.weights.registry`.
    """

    name: str
    path: str = ""
    weights: tuple[WeightFile, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def weight_files(self) -> tuple[WeightFile, ...]:
        """The files that may contain its weights; empty if it needs none."""
        return self.weights or KNOWN_WEIGHTS.get(self.name, ())

    def refuse_invalid(self) -> None:
        """Raise UsageError if another package cannot register the spec."""
        if not self.name or ":" not in self.path:
            raise UsageError(f"extractor '{self.name}': path is '{self.path}'; give a name and 'module:Class'")


EXTRACTORS: PluginRegistry[ExtractorSpec] = PluginRegistry(
    "extractor",
    "tokbench.extractors",
    ExtractorSpec,
    [
        ExtractorSpec(INCEPTION, "tokbench.extractors.inception:Inception"),
        ExtractorSpec("efficientnet-lite0", "tokbench.extractors.efficientnet:EfficientNetLite0"),
        ExtractorSpec("lpips-alex", "tokbench.extractors.lpips:LPIPSNetwork", options={"net": "alex"}),
        ExtractorSpec("lpips-vgg", "tokbench.extractors.lpips:LPIPSNetwork", options={"net": "vgg"}),
        ExtractorSpec("dists", "tokbench.extractors.dists:DISTSNetwork"),
        ExtractorSpec(
            "dinov2-vitl14",
            "tokbench.extractors.provided:ProvidedNetwork",
            options={"network": "dinov2-vitl14", "side": 224, "norm": "imagenet"},
        ),
        ExtractorSpec(
            "clip-vitl14-336",
            "tokbench.extractors.provided:ProvidedNetwork",
            options={"network": "clip-vitl14-336", "side": 336, "norm": "clip"},
        ),
        ExtractorSpec("i3d-styleganv", "tokbench.extractors.i3d:I3D", options={"convention": "styleganv"}),
        ExtractorSpec("i3d-tats", "tokbench.extractors.i3d:I3D", options={"convention": "tats"}),
    ],
)

_Class = TypeVar("_Class", bound=type)


def register_extractor(spec: ExtractorSpec, cls: _Class | None = None) -> Callable[[_Class], _Class]:
    """Add a frozen network to this process: `register_extractor(spec, MyNetwork)`, or `@register_extractor(spec)` above
    the class, which is a `tokbench.extractors.network.FeatureExtractor`.

    spec: the spec of the network; its `path` is replaced by the path of the class. Installed packages list their specs
    in the entry-point group `tokbench.extractors` instead. Raises UsageError if the name belongs to another network.
    """

    def register(extractor: _Class) -> _Class:
        EXTRACTORS.register(replace(spec, path=f"{extractor.__module__}:{extractor.__qualname__}"), extractor)
        return extractor

    if cls is not None:
        register(cls)
    return register
