"""Batch: what travels from dataset to metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from tokbench.errors import MissingField
from tokbench.protocol.protocol import Rounding
from tokbench.protocol.rounding import levels, to_uint8
from tokbench.protocol.rounding import quantize as rounded
from tokbench.tokenizers.tokens import Tokens

if TYPE_CHECKING:
    from tokbench.data.stream import AnnotatedImage
    from tokbench.extractors.network import FeatureExtractor
    from tokbench.metrics.feature_cache import ReferenceFeatures

Side = Literal["reference", "image", "original"]


@dataclass(frozen=True)
class Timing:
    """Seconds that one batch spent in encode (`sampled`: in drawing its tokens) and in decode, the MiB that both needed
    (None: not measured), and how many images they took at once (None: as many as were asked for)."""

    encode: float
    decode: float
    peak_mib: float | None = None
    batch_size: int | None = None
    sampled: bool = False


@dataclass
class DerivedCache:
    """What has been made of one set of images: roundings, what networks saw in them, and `looks`: what several runs of
    one tokenizer share. Each is made once."""

    rounded: dict[Rounding, Tensor] = field(default_factory=dict)
    levels: dict[Rounding, Tensor] = field(default_factory=dict)
    features: dict[tuple[str, int], dict[str, Tensor]] = field(default_factory=dict)
    looks: dict[tuple[int, ...], Any] = field(default_factory=dict)
    thumbnails: np.ndarray | None = None
    lock: RLock = field(default_factory=RLock, repr=False)
    """Roundings are made by one metric at a time: those that need no network run beside those that do."""


@dataclass
class Batch:
    """B images and what a tokenizer made of them.

    index: int64 (B,), positions in the dataset. reference, image: float32 (B, 3, H, W) in [0, 1] on the CPU, not yet
    rounded: a metric asks for them with `rounded` and its protocol's rounding. original: the whole image files, each
    (1, 3, h, w), where the protocol compares with them. marked: the image files as they are and what is known of their
    words and faces. decoded: what was measured of the decoded values before they were clamped
    (`tokbench.tokenizers.decoded`). A field that a task does not produce is None, and `need` says so to the metric that
    asks.

    Whatever is made of `reference` is kept in `reference_memo`, which all adapters that see these images share; what is
    made of `image`, in `image_memo`. `references` keeps the features of all references of the run by their `digests`.
    """

    index: Tensor
    reference: Tensor | None = None
    image: Tensor | None = None
    tokens: Tokens | None = None
    timing: Timing | None = None
    original: list[Tensor] | None = None
    digests: list[str] | None = None
    references: ReferenceFeatures | None = None
    marked: list[AnnotatedImage] | None = None
    decoded: dict[str, np.ndarray] | None = None
    reference_memo: DerivedCache = field(default_factory=DerivedCache)
    image_memo: DerivedCache = field(default_factory=DerivedCache)

    def __len__(self) -> int:
        return len(self.index)

    def require(self, name: Literal["reference", "image", "tokens", "timing", "original", "marked"]) -> Any:
        """The field of that name. Raises MissingField where this stream does not carry it."""
        value = getattr(self, name)
        if value is None and name == "marked":
            raise MissingField("needs a dataset that tells what words and faces are where (tokbench list datasets)")
        if value is None:
            raise MissingField(f"needs '{name}', which this adapter and task do not produce")
        return value

    def rounded(self, side: Literal["reference", "image"], rounding: Rounding = "nearest") -> Tensor:
        """One side's images (B, 3, H, W) on the 8-bit grid, or as they are for `none`. Made once: do not write to it.

        Raises MissingField where this stream does not carry them.
        """
        images: Tensor = self.require(side)
        memo = self.reference_memo if side == "reference" else self.image_memo
        with memo.lock:
            if rounding not in memo.rounded:
                made = rounded(images, rounding)
                # Where two roundings agree (an 8-bit original), networks need look only once.
                same = (other for other in memo.rounded.values() if torch.equal(other, made))
                memo.rounded[rounding] = next(same, made)
            return memo.rounded[rounding]

    def levels(self, side: Literal["reference", "image"], rounding: Rounding = "nearest") -> Tensor:
        """The same as levels 0..255, (B, 3, H, W): uint8, or float64 for `none`. Made once: do not write to it."""
        memo = self.reference_memo if side == "reference" else self.image_memo
        with memo.lock:
            if rounding not in memo.levels:
                images = self.rounded(side, rounding)
                memo.levels[rounding] = levels(images) if rounding == "none" else to_uint8(images)
            return memo.levels[rounding]

    def thumbnails(self, side: Literal["reference", "image"], make: Callable[[Tensor], np.ndarray]) -> np.ndarray:
        """What `make` makes of one side's images: of the references once, for all adapters that see them."""
        memo = self.reference_memo if side == "reference" else self.image_memo
        with memo.lock:
            if memo.thumbnails is None:
                memo.thumbnails = make(self.require(side))
            return memo.thumbnails

    def features(self, network: FeatureExtractor, side: Side, rounding: Rounding = "nearest") -> dict[str, Tensor]:
        """A network's features (B, ...) of one side's images, by layer; one forward pass serves all metrics."""
        apart = side == "original" and not self._uncropped()
        memo = self.image_memo if side == "image" else self.reference_memo
        if apart:
            images: list[Tensor] = self.require("original")
            key = f"{network.key}/{rounding}", id(images)
        else:
            wanted = self.rounded("image" if side == "image" else "reference", rounding)
            key = network.key, id(wanted)  # the memo holds `wanted`, so its id stays its own

        def look(some: slice) -> dict[str, Tensor]:
            return _one_by_one(network, images[some], rounding) if apart else network(wanted[some])

        if side == "image" or self.references is None or self.digests is None or network.stays:
            if key not in memo.features:
                memo.features[key] = look(slice(None))
            return memo.features[key]
        kept = f"{network.key}/{side}/{rounding}", 0
        if kept not in memo.features:  # `references` must be told of every rounding, if the pixels are the same or not
            found = self.references.features(network, side, rounding, self.index, self.digests, look)
            memo.features[kept] = memo.features[key] = found
        return memo.features[kept]

    def _uncropped(self) -> bool:
        """Whether the whole files are just the references: images that had the size already."""
        whole, reference = self.require("original"), self.require("reference")
        alike = all(image.shape[1:] == reference.shape[1:] for image in whole)
        return alike and torch.equal(torch.cat(whole), reference)


def _one_by_one(network: FeatureExtractor, images: list[Tensor], rounding: Rounding) -> dict[str, Tensor]:
    """Each image has its own size, so each is a forward pass of its own."""
    each = [network(rounded(image, rounding), chunk=1) for image in images]
    return {layer: torch.cat([one[layer] for one in each]) for layer in each[0]}
