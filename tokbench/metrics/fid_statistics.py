"""Statistics files: mean and covariance of the features of a reference set, and everything that they depend on.

Files are `.npz` with `mu` and `sigma` (as for pytorch-fid and clean-fid) and, for sFID, `mu_s` and `sigma_s` (as for
ADM). tokbench adds a string array `tokbench`, a JSON object with network, layers, weights, input path, precision,
protocol, the preparation of the images, their size, their pixels and N. Other programs ignore it. Without it, a file
does not show which convention was used. A known difference between file and run is refused unless the user states it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.data.sources.npz import image_size
from tokbench.errors import NotApplicable, ResultError, UsageError
from tokbench.io.atomic import write_atomically
from tokbench.io.hashing import sha256_of
from tokbench.io.json import loads_strict
from tokbench.io.npz import read_npz
from tokbench.metric_names import INCEPTION
from tokbench.protocol.protocol import Protocol, load_protocol
from tokbench.stats.moments import Moments
from tokbench.validate import Count, Positive, convert

TOLERANCE = 1e-5
"""The largest relative difference of entries that one float32 network can have between two machines."""

KEYS = {False: ("mu", "sigma"), True: ("mu_s", "sigma_s")}
"""Array names, by whether the features are spatial (sFID)."""

MISMATCHES = ("size", "protocol")
"""The properties in which the images of a file may differ from those of a run, if the user states it."""

IS = "NETWORK:INPUT:PRECISION[:SIZE[:PROTOCOL]]"
"""The form in which a user states the origin of a file that does not record it."""

_TEXTS = ("network", "input", "precision", "weights", "data", "dataset", "sampling", "protocol", "protocol_sha256")
_COUNTS = ("count", "width", "height")
_REMEDIES = {
    "network": "make a file of this network with 'tokbench stats make --network'",
    "input": "use a protocol with that features.input, or make a file with this run's protocol",
    "precision": "run with that --precision",
    "weights": "make the file again with these weights",
}


@dataclass(frozen=True)
class FidStatistics:
    """Mean (D,) and covariance (D, D) by layer. None means unknown.

    network, input, precision: how the features were computed. weights: the sha256 of the network's file. count: the
    number of images. sampling: how a limit selected them (`Dataset.sampling`). dataset, protocol: names; data,
    protocol_sha256: hashes of the prepared pixels and of the protocol. width, height: the size of the prepared images
    in pixels. preparation: how the protocol prepared them (`Protocol.reference_preparation`). sha256: the hash of this
    file. stated: the properties that the user stated, since the file does not record them. mismatch: the `MISMATCHES`
    in which it may differ from the run that uses it.
    """

    layers: Mapping[str, Moments]
    network: str | None = None
    input: str | None = None
    precision: str | None = None
    weights: str | None = None
    count: int | None = None
    data: str | None = None
    dataset: str | None = None
    sampling: str | None = None
    protocol: str | None = None
    protocol_sha256: str | None = None
    width: int | None = None
    height: int | None = None
    preparation: Mapping[str, str | bool] | None = None
    path: Path | None = None
    sha256: str = ""
    stated: tuple[str, ...] = ()
    mismatch: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the arrays and the path, as the file records it."""
        facts = {name: getattr(self, name) for name in (*_TEXTS, *_COUNTS)}
        preparation = None if self.preparation is None else dict(self.preparation)
        return facts | {"preparation": preparation, "layers": sorted(self.layers)}

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the prepared images in pixels, or None."""
        return None if self.width is None or self.height is None else (self.width, self.height)

    @property
    def key(self) -> str:
        """A string that differs between two files, or between two statements about one file."""
        return json.dumps([self.sha256, self.to_dict(), self.mismatch], sort_keys=True)

    def moments(self, network: str, input: str | None, precision: str, weights: str, layer: str) -> Moments:
        """Return the mean and covariance of a layer.

        Raises NotApplicable, with a message for the skipped metric, unless network, input path, precision and weights
        are known to agree and the layer exists.
        """
        run = {"network": network, "input": input, "precision": precision, "weights": weights}
        for key, ours in run.items():
            theirs = getattr(self, key)
            if ours is None:
                continue  # the network has only one input path
            if theirs is None and key != "weights":  # files of other programs never record the weights' hash
                raise NotApplicable(
                    f"{self.name} does not record its {key}; if you know that it is {ours}, state it with "
                    f"--reference-is {network}:{input or 'any'}:{precision}, and append the images' size and "
                    "protocol if you know them, as in :256:adm"
                )
            if theirs is not None and theirs != ours:
                raise NotApplicable(
                    f"{self.name} was made with {key} {_short(theirs)}, but this run uses {_short(ours)}; "
                    f"{_REMEDIES[key]}"
                )
        if layer not in self.layers:
            raise NotApplicable(f"{self.name} has no layer {layer}; it has {', '.join(sorted(self.layers))}")
        return self.layers[layer]

    def check(self, protocol: Protocol, shape: tuple[int, int] | None = None) -> None:
        """Check that the file's images have the size and preparation of a run's images.

        shape: height and width in pixels, None while they are unknown. Raises NotApplicable where they are known to
        differ and the user did not state that.
        """
        for what, reason in self.differences(protocol, shape).items():
            if what not in self.mismatch:
                raise NotApplicable(f"{self.name} {reason}, or accept the difference with --reference-mismatch {what}")

    def differences(self, protocol: Protocol, shape: tuple[int, ...] | None = None) -> dict[str, str]:
        """Return the `MISMATCHES` in which the file differs from a run's images, each with both values and the
        remedy."""
        reasons = {}
        if shape and self.size and self.size != shape[::-1]:
            width, height = self.size
            reasons["size"] = (
                f"was made from images of {width}x{height} px, but this run's are {shape[1]}x{shape[0]} px; use images "
                f"of that size (--size {width})"
            )
        if differ := self._prepared_otherwise(protocol):
            reasons["protocol"] = (
                f"was made with protocol {self.protocol or 'unknown'} {differ}; use that protocol (--protocol)"
            )
        return reasons

    def _prepared_otherwise(self, protocol: Protocol) -> str | None:
        if self.protocol_sha256 == protocol.sha256:
            return None
        if self.preparation is None:
            if self.protocol_sha256 is None:
                return None  # nothing is known, which tables mention
            return f"({self.protocol_sha256[:8]}), but this run uses {protocol.name} ({protocol.sha256[:8]})"
        ours = protocol.reference_preparation
        keys = [key for key in {**self.preparation, **ours} if self.preparation.get(key) != ours.get(key)]
        sides = [
            ", ".join(f"{key} {preparation.get(key, '-')}" for key in keys).lower()
            for preparation in (self.preparation, ours)
        ]
        return f"({sides[0]}), but this run prepares references with {protocol.name} ({sides[1]})" if keys else None

    def describe(self, protocol: Protocol, shape: tuple[int, ...] | None) -> dict[str, Any]:
        """Return what a result records about its reference: the file, what is known of its images, what the user
        stated, and how they differ from the run's images."""
        names = {name: _plain(getattr(self, name)) for name in ("dataset", "protocol")}
        facts = {name: getattr(self, name) for name in _COUNTS}
        original = {"original": True} if (self.preparation or {}).get("reference") == "original" else {}
        return {
            "file": self.name,
            "sha256": self.sha256,
            **facts,
            **names,
            **original,
            "stated": list(self.stated),
            "mismatch": list(self.differences(protocol, shape)),
        }

    @property
    def name(self) -> str:
        return self.path.name if self.path else "the statistics"

    def assume(self, text: str | None) -> FidStatistics:
        """Return the statistics with the properties that the user states in the form `IS`, with `any` for an unknown
        one.

        Raises UsageError where the file records another value.
        """
        if text is None:
            return self
        given = _statement(text)
        rules = given.pop("protocol", None)
        for name, value in given.items():
            known = getattr(self, name)
            if known is not None and known != value:
                raise UsageError(f"{self.name} records that its {name} is {_text(known)}, not {_text(value)}")
        stated = [name for name in given if getattr(self, name) is None]
        changes = {name: given[name] for name in stated if name != "size"}
        if "size" in stated:
            changes["width"], changes["height"] = given["size"]
        if rules is not None:
            if self.protocol_sha256 is None and self.preparation is None:
                stated.append("protocol")
                changes |= {
                    "protocol": rules.name,
                    "protocol_sha256": rules.sha256,
                    "preparation": rules.reference_preparation,
                }
            elif self._prepared_otherwise(rules):
                raise UsageError(f"{self.name} records that its protocol is {self.protocol}, not {rules.name}")
        return replace(self, **changes, stated=(*self.stated, *stated))

    def allow_mismatch(self, text: str | None) -> FidStatistics:
        """Return the statistics with the `MISMATCHES` that the user accepts, separated by commas. Raises UsageError for
        others."""
        if text is None:
            return self
        named = [part.strip() for part in text.split(",")]
        if unknown := [part for part in named if part not in MISMATCHES]:
            raise UsageError(
                f"--reference-mismatch {', '.join(unknown)}: only {' and '.join(MISMATCHES)} can differ; network, "
                "input path, precision and weights must agree"
            )
        return replace(self, mismatch=tuple(what for what in MISMATCHES if what in named))

    def save(self, path: Path) -> None:
        """Write an .npz that tokbench, pytorch-fid, clean-fid and (with both kinds of features) ADM's code can read.

        Raises UsageError where there are several pooled layers.
        """
        pooled = [layer for layer in self.layers if layer != "sfid"]
        if len(pooled) > 1:
            raise UsageError(f"a file can hold only one pooled layer, not {', '.join(sorted(pooled))}")
        arrays: dict[str, np.ndarray] = {"tokbench": np.array(json.dumps(self.to_dict(), sort_keys=True))}
        for layer, (mean, covariance) in self.layers.items():
            first, second = KEYS[layer == "sfid"]
            arrays |= {first: mean, second: covariance}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())


@dataclass(frozen=True)
class _Header:
    """The metadata in a file of tokbench, besides its arrays."""

    layers: list[str] = field(default_factory=list)
    network: str | None = None
    input: str | None = None
    precision: str | None = None
    weights: str | None = None
    count: Count | None = None
    data: str | None = None
    dataset: str | None = None
    sampling: str | None = None
    protocol: str | None = None
    protocol_sha256: str | None = None
    width: Positive | None = None
    height: Positive | None = None
    preparation: dict[str, str | bool] | None = None

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height must both be given, or neither")


def load_statistics(path: Path) -> FidStatistics:
    """Read a statistics file of tokbench, pytorch-fid, clean-fid or ADM. Nothing is unpickled.

    Raises ResultError that names the file and the fault.
    """
    try:
        names = {"tokbench", *(name for both in KEYS.values() for name in both)}
        arrays, digest = read_npz(path, names), sha256_of(path)  # only these names: ADM's files hold images, too
        header = loads_strict(str(arrays["tokbench"]), nan=True) if "tokbench" in arrays else {}
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} is not a readable .npz of statistics ({str(error)[:120]})") from error
    known = asdict(convert(header, _Header, f"{path}: tokbench", ResultError))
    if known["width"] is None and (size := image_size(path)):  # ADM's files hold images of the same set
        known["width"], known["height"] = size
    layers: dict[str, Moments] = {}
    named = [layer for layer in known.pop("layers") if layer != "sfid"]
    for spatial, (first, second) in KEYS.items():
        if first in arrays and second in arrays:
            mean, covariance = _moments(arrays[first], arrays[second], path)
            layers["sfid" if spatial else named[0] if named else str(len(mean))] = (mean, covariance)
    if not layers:
        raise ResultError(f"{path} contains neither mu and sigma nor mu_s and sigma_s")
    return FidStatistics(layers, **known, path=path, sha256=digest)


def _statement(text: str) -> dict[str, Any]:
    """Parse text of the form `IS`. Returns the stated properties by name without those that are `any`: texts, the size
    as (width, height), and a Protocol. Raises UsageError."""
    names = ("network", "input", "precision", "size", "protocol")
    parts = text.split(":", len(names) - 1)
    if len(parts) < 3 or not all(parts):
        raise UsageError(f"--reference-is {text}: give {IS}, as in {INCEPTION}:tf1:float32:256:adm")
    given: dict[str, Any] = {name: part for name, part in zip(names, parts, strict=False) if part != "any"}
    if "size" in given:
        if not (sides := re.fullmatch(r"([1-9]\d{0,8})(?:x([1-9]\d{0,8}))?", given["size"])):
            raise UsageError(
                f"--reference-is {text}: '{given['size']}' is not a size; give 256, or 256x192 (width, height)"
            )
        given["size"] = (int(sides[1]), int(sides[2] or sides[1]))
    if "protocol" in given:
        given["protocol"] = load_protocol(given["protocol"])
    return given


def _text(value: Any) -> str:
    return f"{value[0]}x{value[1]} px" if isinstance(value, tuple) else str(value)


def _plain(text: str | None) -> str | None:
    """Return a name from a file if it can be printed in a table, else None."""
    return text if text and text.isprintable() and len(text) <= 200 else None


def _moments(mean: np.ndarray, covariance: np.ndarray, path: Path) -> Moments:
    """Return both as float64. Raises ResultError where they are not a mean and a covariance."""
    if mean.ndim != 1 or not len(mean) or covariance.shape != (len(mean), len(mean)):
        raise ResultError(f"{path}: a mean {mean.shape} and a covariance {covariance.shape} do not fit")
    if mean.dtype.kind not in "fiu" or covariance.dtype.kind not in "fiu":
        raise ResultError(f"{path}: statistics must be numbers, but they are {mean.dtype} and {covariance.dtype}")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ResultError(f"{path} contains NaN or infinite statistics; make it again")
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if (np.diagonal(covariance) < 0).any() or not np.allclose(covariance, covariance.T, rtol=1e-3, atol=1e-6):
        raise ResultError(
            f"{path}: its covariance is invalid (it has a negative variance or is not symmetric); make it again"
        )
    return mean, covariance


def largest_differences(first: Moments, second: Moments) -> tuple[float, float]:
    """Return the largest difference of two means and of two covariances, each divided by the largest entry of the
    first.

    Raises ResultError where the dimensions differ.
    """
    if first[0].shape != second[0].shape:
        raise ResultError(f"{len(first[0])} and {len(second[0])} dimensions cannot be compared")
    mean, covariance = (
        float(np.abs(ours - theirs).max() / max(float(np.abs(ours).max()), np.finfo(np.float64).tiny))
        for ours, theirs in zip(first, second, strict=True)
    )
    return mean, covariance


def _short(text: str) -> str:
    return f"{text[:12]}..." if len(text) == 64 else text
