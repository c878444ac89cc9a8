"""Statistics files: mean and covariance of a reference's features, with all that they depend on.

Written and read as `.npz` with `mu` and `sigma` (pytorch-fid, clean-fid) and, for sFID, `mu_s` and `sigma_s` (ADM).
tokbench adds one string array `tokbench`, a JSON object that names network, layers, weights, input path, precision,
protocol, pixels and N. Other programs ignore it; without it, nothing in such a file says which convention made it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.errors import NotApplicable, ResultError, UsageError
from tokbench.files import write_atomically
from tokbench.moments import Moments
from tokbench.unpack import read_arrays
from tokbench.weights import INCEPTION, sha256_of

TOLERANCE = 1e-5
"""Largest relative difference of entries of which one float32 network on two machines is capable."""

KEYS = {False: ("mu", "sigma"), True: ("mu_s", "sigma_s")}
"""Array names by whether they are spatial (sFID)."""


@dataclass(frozen=True)
class Statistics:
    """Mean (D,) and covariance (D, D) by layer. What is None is not known.

    network, input, precision: what made the features. weights: the network file's sha256. count: how many images.
    dataset, protocol: names; data, protocol_sha256: hashes of the prepared pixels and of the protocol. sha256: of this
    file.
    """

    layers: Mapping[str, Moments]
    network: str | None = None
    input: str | None = None
    precision: str | None = None
    weights: str | None = None
    count: int | None = None
    data: str | None = None
    dataset: str | None = None
    protocol: str | None = None
    protocol_sha256: str | None = None
    path: Path | None = None
    sha256: str = ""

    def facts(self) -> dict[str, Any]:
        """All but the arrays and the place, as the file says it."""
        names = ("network", "input", "precision", "weights", "count", "data", "dataset", "protocol", "protocol_sha256")
        return {name: getattr(self, name) for name in names} | {"layers": sorted(self.layers)}

    def moments(self, network: str, input: str | None, precision: str, weights: str, layer: str) -> Moments:
        """The mean and covariance to compare a layer's features with.

        Raises NotApplicable, which skips the metric with its message, unless network, input path, precision and weights
        are known to agree and the layer is there.
        """
        told = {"network": network, "input": input, "precision": precision, "weights": weights}
        for key, ours in told.items():
            theirs = getattr(self, key)
            if ours is None:
                continue  # a network that has one input path only
            if theirs is None and key != "weights":  # a file by another program never names its weights' hash
                raise NotApplicable(
                    f"{self.name} does not say which {key} made it; where you know that it was {ours}, say so with "
                    f"--reference-is {network}:{input or 'any'}:{precision}"
                )
            if theirs is not None and theirs != ours:
                raise NotApplicable(f"{self.name} was made with {key} {_short(theirs)}, this run uses {_short(ours)}")
        if layer not in self.layers:
            raise NotApplicable(f"{self.name} holds no layer {layer}; it holds {', '.join(sorted(self.layers))}")
        return self.layers[layer]

    @property
    def name(self) -> str:
        return self.path.name if self.path else "the statistics"

    def assumed(self, text: str | None) -> Statistics:
        """The same with what the user says of it, `network:input:precision`. Raises UsageError where it disagrees."""
        if text is None:
            return self
        parts = text.split(":")
        if len(parts) != 3:
            raise UsageError(f"--reference-is {text}: give network:input:precision, as in {INCEPTION}:tf1:float32")
        given: dict[str, Any] = dict(zip(("network", "input", "precision"), parts, strict=True))
        for key, value in given.items():
            known = getattr(self, key)
            if known is not None and known != value and value != "any":
                raise UsageError(f"{self.name} says itself that its {key} is {known}, so it cannot be {value}")
        return replace(self, **{key: value for key, value in given.items() if value != "any"})

    def save(self, path: Path) -> None:
        """Write an .npz that this module, pytorch-fid, clean-fid and (with both kinds of features) ADM's code read."""
        pooled = [layer for layer in self.layers if layer != "sfid"]
        if len(pooled) > 1:
            raise UsageError(f"one file holds one pooled layer, not {', '.join(sorted(pooled))}")
        arrays: dict[str, np.ndarray] = {"tokbench": np.array(json.dumps(self.facts(), sort_keys=True))}
        for layer, (mean, covariance) in self.layers.items():
            first, second = KEYS[layer == "sfid"]
            arrays |= {first: mean, second: covariance}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())


def load_statistics(path: Path) -> Statistics:
    """Read a statistics file of tokbench, pytorch-fid, clean-fid or ADM. Nothing is unpickled.

    Raises ResultError, naming file and fault.
    """
    try:
        wanted = {"tokbench", *(name for both in KEYS.values() for name in both)}
        arrays, digest = read_arrays(path, wanted), sha256_of(path)  # ADM's files hold images, too
        told = json.loads(str(arrays["tokbench"])) if "tokbench" in arrays else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(f"{path} is not a readable .npz of statistics ({str(error)[:120]})") from error
    known = _told(told, path)
    layers: dict[str, Moments] = {}
    named = [layer for layer in told.get("layers", []) if layer != "sfid"]
    for spatial, (first, second) in KEYS.items():
        if first in arrays and second in arrays:
            mean, covariance = _moments(arrays[first], arrays[second], path)
            layers["sfid" if spatial else named[0] if named else str(len(mean))] = (mean, covariance)
    if not layers:
        raise ResultError(f"{path} holds neither mu and sigma nor mu_s and sigma_s")
    return Statistics(layers, **known, path=path, sha256=digest)


def _told(told: Any, path: Path) -> dict[str, Any]:
    """What a file of tokbench says of itself, each of its type. Raises ResultError."""
    if not isinstance(told, dict):
        raise ResultError(f"{path}: 'tokbench' must hold a JSON object, it holds {told!r:.80}")
    listed = told.get("layers", [])
    if not isinstance(listed, list) or not all(isinstance(layer, str) for layer in listed):
        raise ResultError(f"{path}: 'layers' must be a list of names, it is {listed!r:.80}")
    known: dict[str, Any] = {}
    for key in ("network", "input", "precision", "weights", "count", "data", "dataset", "protocol", "protocol_sha256"):
        value, kind = told.get(key), int if key == "count" else str
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ResultError(f"{path}: '{key}' must be a {kind.__name__} or null, it is {value!r:.80}")
        known[key] = value
    if known["count"] is not None and not 0 <= known["count"] < 1 << 63:
        raise ResultError(f"{path}: 'count' is no count of images")
    return known


def _moments(mean: np.ndarray, covariance: np.ndarray, path: Path) -> Moments:
    """Both as float64. Raises ResultError where they are no mean and covariance."""
    if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
        raise ResultError(f"{path}: a mean of {mean.shape} and a covariance of {covariance.shape} do not fit")
    if mean.dtype.kind not in "fiu" or covariance.dtype.kind not in "fiu":
        raise ResultError(f"{path}: statistics must be numbers, these are {mean.dtype} and {covariance.dtype}")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ResultError(f"{path} holds NaN or infinite statistics; make it again")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if (np.diagonal(covariance) < 0).any() or not np.allclose(covariance, covariance.T, rtol=1e-3, atol=1e-6):
        raise ResultError(f"{path}: its covariance is not one (a negative variance, or not symmetric); make it again")
    return mean, covariance


def largest_gaps(first: Moments, second: Moments) -> tuple[float, float]:
    """Largest difference of two means and of two covariances, each over the largest entry of the first. Raises
    ResultError where their dimensions differ."""
    if first[0].shape != second[0].shape:
        raise ResultError(f"{len(first[0])} and {len(second[0])} dimensions cannot be compared")
    mean, covariance = (
        float(np.abs(ours - theirs).max() / max(float(np.abs(ours).max()), np.finfo(np.float64).tiny))
        for ours, theirs in zip(first, second, strict=True)
    )
    return mean, covariance


def _short(text: str) -> str:
    return f"{text[:12]}..." if len(text) == 64 else text
