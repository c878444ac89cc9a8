"""Statistics files: mean and covariance of a reference's features, with all that they depend on.

Written and read as `.npz` with `mu` and `sigma` (pytorch-fid, clean-fid) and, for sFID, `mu_s` and `sigma_s` (ADM).
tokbench adds one string array `tokbench`, a JSON object that names network, layers, weights, input path, precision,
protocol and what it did to the images, their size, pixels and N. Other programs ignore it; without it, nothing in such
a file says which convention made it. What is known to differ from a run is refused, unless the user states it.
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
"""Largest relative difference of entries of which one float32 network on two machines is capable."""

KEYS = {False: ("mu", "sigma"), True: ("mu_s", "sigma_s")}
"""Array names by whether they are spatial (sFID)."""

MISMATCHES = ("size", "protocol")
"""In what the images of a file may differ from those of a run, if that is stated."""

IS = "NETWORK:INPUT:PRECISION[:SIZE[:PROTOCOL]]"
"""How a user says what made a file that does not say so itself."""

_TEXTS = ("network", "input", "precision", "weights", "data", "dataset", "protocol", "protocol_sha256")
_COUNTS = ("count", "width", "height")
_REMEDIES = {
    "network": "make a file of this network with 'tokbench stats make --network'",
    "input": "run under a protocol whose features.input that is, or make a file under this one",
    "precision": "run with that --precision",
    "weights": "make the file again with these weights",
}


@dataclass(frozen=True)
class FidStatistics:
    """Mean (D,) and covariance (D, D) by layer. What is None is not known.

    network, input, precision: what made the features. weights: the network file's sha256. count: how many images.
    dataset, protocol: names; data, protocol_sha256: hashes of the prepared pixels and of the protocol. width, height:
    of the prepared images, in pixels. preparation: what the protocol did to them (`Protocol.reference_preparation`).
    sha256: of this file. stated: what the user said of it, since it does not say so itself. mismatch: in which of
    `MISMATCHES` it may differ from the run that uses it.
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
    width: int | None = None
    height: int | None = None
    preparation: Mapping[str, str | bool] | None = None
    path: Path | None = None
    sha256: str = ""
    stated: tuple[str, ...] = ()
    mismatch: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays and the place, as the file says it."""
        told = {name: getattr(self, name) for name in (*_TEXTS, *_COUNTS)}
        preparation = None if self.preparation is None else dict(self.preparation)
        return told | {"preparation": preparation, "layers": sorted(self.layers)}

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the prepared images."""
        return None if self.width is None or self.height is None else (self.width, self.height)

    @property
    def key(self) -> str:
        """What tells a run with this file, and with what is said of it, from others."""
        return json.dumps([self.sha256, self.to_dict(), self.mismatch], sort_keys=True)

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
                    f"--reference-is {network}:{input or 'any'}:{precision}, and if you know them with the images' "
                    "size and protocol, as in :256:adm"
                )
            if theirs is not None and theirs != ours:
                raise NotApplicable(
                    f"{self.name} was made with {key} {_short(theirs)}, this run uses {_short(ours)}; {_REMEDIES[key]}"
                )
        if layer not in self.layers:
            raise NotApplicable(f"{self.name} holds no layer {layer}; it holds {', '.join(sorted(self.layers))}")
        return self.layers[layer]

    def check(self, protocol: Protocol, shape: tuple[int, int] | None = None) -> None:
        """Raises NotApplicable where the file's images are known to be of another size than those of a run, or to be
        prepared in another way, and nobody stated that. shape: height and width, None while they are not known."""
        for what, reason in self.gaps(protocol, shape).items():
            if what not in self.mismatch:
                raise NotApplicable(
                    f"{self.name} {reason}, or, to compare them all the same, state it with --reference-mismatch {what}"
                )

    def gaps(self, protocol: Protocol, shape: tuple[int, int] | None = None) -> dict[str, str]:
        """What of `MISMATCHES` differs from a run's images, with both sides and the remedy."""
        found = {}
        if shape and self.size and self.size != shape[::-1]:
            width, height = self.size
            found["size"] = (
                f"was made from images of {width}x{height} px, this run's are {shape[1]}x{shape[0]} px; give images of "
                f"that size (--size {width})"
            )
        if differ := self._prepared_otherwise(protocol):
            found["protocol"] = (
                f"was made under protocol {self.protocol or 'unknown'} {differ}; run under that one (--protocol)"
            )
        return found

    def _prepared_otherwise(self, protocol: Protocol) -> str | None:
        if self.protocol_sha256 == protocol.sha256:
            return None
        if self.preparation is None:
            if self.protocol_sha256 is None:
                return None  # nothing is known, which tables say
            return f"({self.protocol_sha256[:8]}), this run is under {protocol.name} ({protocol.sha256[:8]})"
        ours = protocol.reference_preparation
        keys = [key for key in {**self.preparation, **ours} if self.preparation.get(key) != ours.get(key)]
        sides = [", ".join(f"{key} {told.get(key, '-')}" for key in keys).lower() for told in (self.preparation, ours)]
        return f"({sides[0]}), this run prepares references under {protocol.name} ({sides[1]})" if keys else None

    def described(self, protocol: Protocol, shape: tuple[int, int] | None) -> dict[str, Any]:
        """What a result says of its reference: file, what is known of its images, what the user stated, and in what
        they differ from the run's."""
        names = {name: _plain(getattr(self, name)) for name in ("dataset", "protocol")}
        told = {name: getattr(self, name) for name in _COUNTS}
        original = {"original": True} if (self.preparation or {}).get("reference") == "original" else {}
        return {
            "file": self.name,
            "sha256": self.sha256,
            **told,
            **names,
            **original,
            "stated": list(self.stated),
            "mismatch": list(self.gaps(protocol, shape)),
        }

    @property
    def name(self) -> str:
        return self.path.name if self.path else "the statistics"

    def assumed(self, text: str | None) -> FidStatistics:
        """The same with what the user says of it, as `IS` has it; `any` for what is not known. Raises UsageError where
        the file says otherwise."""
        if text is None:
            return self
        given = _statement(text)
        rules = given.pop("protocol", None)
        for name, value in given.items():
            known = getattr(self, name)
            if known is not None and known != value:
                raise UsageError(f"{self.name} says itself that its {name} is {_said(known)}, not {_said(value)}")
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
                raise UsageError(f"{self.name} says itself that its protocol is {self.protocol}, not {rules.name}")
        return replace(self, **changes, stated=(*self.stated, *stated))

    def allowing(self, text: str | None) -> FidStatistics:
        """The same, with the mismatches that the user states, of `MISMATCHES`, separated by commas. Raises UsageError
        for others."""
        if text is None:
            return self
        named = [part.strip() for part in text.split(",")]
        if unknown := [part for part in named if part not in MISMATCHES]:
            raise UsageError(
                f"--reference-mismatch {', '.join(unknown)}: it can be {' and '.join(MISMATCHES)}; network, input "
                "path, precision and weights must agree"
            )
        return replace(self, mismatch=tuple(what for what in MISMATCHES if what in named))

    def save(self, path: Path) -> None:
        """Write an .npz that this module, pytorch-fid, clean-fid and (with both kinds of features) ADM's code read."""
        pooled = [layer for layer in self.layers if layer != "sfid"]
        if len(pooled) > 1:
            raise UsageError(f"one file holds one pooled layer, not {', '.join(sorted(pooled))}")
        arrays: dict[str, np.ndarray] = {"tokbench": np.array(json.dumps(self.to_dict(), sort_keys=True))}
        for layer, (mean, covariance) in self.layers.items():
            first, second = KEYS[layer == "sfid"]
            arrays |= {first: mean, second: covariance}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomically(path, buffer.getvalue())


@dataclass(frozen=True)
class _Facts:
    """What a file of tokbench says of itself beside its arrays."""

    layers: list[str] = field(default_factory=list)
    network: str | None = None
    input: str | None = None
    precision: str | None = None
    weights: str | None = None
    count: Count | None = None
    data: str | None = None
    dataset: str | None = None
    protocol: str | None = None
    protocol_sha256: str | None = None
    width: Positive | None = None
    height: Positive | None = None
    preparation: dict[str, str | bool] | None = None

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise ValueError("width and height must both be there, or neither")


def load_statistics(path: Path) -> FidStatistics:
    """Read a statistics file of tokbench, pytorch-fid, clean-fid or ADM. Nothing is unpickled.

    Raises ResultError, naming file and fault.
    """
    try:
        wanted = {"tokbench", *(name for both in KEYS.values() for name in both)}
        arrays, digest = read_npz(path, wanted), sha256_of(path)  # ADM's files hold images, too
        told = loads_strict(str(arrays["tokbench"]), nan=True) if "tokbench" in arrays else {}
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} is not a readable .npz of statistics ({str(error)[:120]})") from error
    known = asdict(convert(told, _Facts, f"{path}: tokbench", ResultError))
    if known["width"] is None and (beside := image_size(path)):  # ADM's files hold images of the same set
        known["width"], known["height"] = beside
    layers: dict[str, Moments] = {}
    named = [layer for layer in known.pop("layers") if layer != "sfid"]
    for spatial, (first, second) in KEYS.items():
        if first in arrays and second in arrays:
            mean, covariance = _moments(arrays[first], arrays[second], path)
            layers["sfid" if spatial else named[0] if named else str(len(mean))] = (mean, covariance)
    if not layers:
        raise ResultError(f"{path} holds neither mu and sigma nor mu_s and sigma_s")
    return FidStatistics(layers, **known, path=path, sha256=digest)


def _statement(text: str) -> dict[str, Any]:
    """What `IS` says, by name, without what is `any`: texts, the size as (width, height), and a Protocol. Raises
    UsageError."""
    names = ("network", "input", "precision", "size", "protocol")
    parts = text.split(":", len(names) - 1)
    if len(parts) < 3 or not all(parts):
        raise UsageError(f"--reference-is {text}: give {IS}, as in {INCEPTION}:tf1:float32:256:adm")
    given: dict[str, Any] = {name: part for name, part in zip(names, parts, strict=False) if part != "any"}
    if "size" in given:
        if not (sides := re.fullmatch(r"([1-9]\d{0,8})(?:x([1-9]\d{0,8}))?", given["size"])):
            raise UsageError(
                f"--reference-is {text}: '{given['size']}' is no size; give 256, or 256x192 (width, height)"
            )
        given["size"] = (int(sides[1]), int(sides[2] or sides[1]))
    if "protocol" in given:
        given["protocol"] = load_protocol(given["protocol"])
    return given


def _said(value: Any) -> str:
    return f"{value[0]}x{value[1]} px" if isinstance(value, tuple) else str(value)


def _plain(text: str | None) -> str | None:
    """A name that a file tells, if it can stand in a table."""
    return text if text and text.isprintable() and len(text) <= 200 else None


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
