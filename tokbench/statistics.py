"""Statistics files: mean and covariance of a reference's features, with all that they depend on.

Written and read as `.npz` with `mu` and `sigma` (pytorch-fid, clean-fid) and, for sFID, `mu_s` and `sigma_s` (ADM).
tokbench adds one string array `tokbench`, a JSON object that names network, layers, weights, input path, precision,
protocol, pixels and N. Other programs ignore it; without it, nothing in such a file says which convention made it.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.errors import NotApplicable, ResultError, UsageError
from tokbench.files import write_atomically
from tokbench.weights import INCEPTION, sha256_of

Moments = tuple[np.ndarray, np.ndarray]
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
        with np.load(path, allow_pickle=False) as arrays:
            told = json.loads(str(arrays["tokbench"])) if "tokbench" in arrays else {}
            pairs = {
                spatial: (arrays[mean].astype(np.float64), arrays[covariance].astype(np.float64))
                for spatial, (mean, covariance) in KEYS.items()
                if mean in arrays and covariance in arrays
            }
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ResultError(f"{path} is not a readable .npz of statistics ({str(error)[:120]})") from error
    if not pairs:
        raise ResultError(f"{path} holds neither mu and sigma nor mu_s and sigma_s")
    layers: dict[str, Moments] = {}
    named = [layer for layer in told.get("layers", []) if layer != "sfid"]
    for spatial, (mean, covariance) in pairs.items():
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ResultError(f"{path}: a mean of {mean.shape} and a covariance of {covariance.shape} do not fit")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ResultError(f"{path} holds NaN or infinite statistics; make it again")
        layers["sfid" if spatial else named[0] if named else str(len(mean))] = (mean, covariance)
    known = {key: told[key] for key in Statistics.__dataclass_fields__ if key in told and key != "layers"}
    return Statistics(layers, **known, path=path, sha256=sha256_of(path))


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
