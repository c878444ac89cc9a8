"""Batch: the data that metrics are updated with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from tokbench.errors import MissingField
from tokbench.metric_names.spec import Field
from tokbench.protocol.protocol import Rounding
from tokbench.protocol.rounding import levels, to_uint8
from tokbench.protocol.rounding import quantize as rounded
from tokbench.tokenizers.tiled_decode import Seams
from tokbench.tokenizers.tokens import Tokens

if TYPE_CHECKING:
    from tokbench.data.stream import AnnotatedImage
    from tokbench.extractors.network import FeatureExtractor
    from tokbench.metrics.feature_cache import ReferenceFeatures

Side = Literal["reference", "image", "original"]

_OF_DATASETS = {
    "marked": "annotated words or faces",
    "labels": "labels of several classes",
    "captions": "captions",
}
"""What a dataset must have for a batch to have the field of that name."""


@dataclass(frozen=True)
class Timing:
    """The time and memory of one batch.

    encode: seconds in encode, or, where `sampled`, in drawing tokens. decode: seconds in decode. peak_mib: peak memory
    of both in MiB, or None where it was not measured. batch_size: images per model call, or None where it is the
    requested number.
    """

    encode: float
    decode: float
    peak_mib: float | None = None
    batch_size: int | None = None
    sampled: bool = False


@dataclass
class DerivedCache:
    """Values derived from one set of images, each computed once: rounded images, levels, features of networks,
    thumbnails; `parts`, the caches of parts of the items, such as frames; `perturbations`, which the cells of one
    tokenizer's grid share; `encodings` (tokens and the seconds of encode) and `baselines`, which the variants of one
    decoder share; `images` that were made of these, such as those decoded from changed tokens, with the values derived
    from them."""

    rounded: dict[Rounding, Tensor] = field(default_factory=dict)
    levels: dict[Rounding, Tensor] = field(default_factory=dict)
    parts: dict[str, DerivedCache] = field(default_factory=dict)
    features: dict[tuple[str, int], dict[str, Tensor]] = field(default_factory=dict)
    perturbations: dict[tuple[int, ...], Callable[[float, int], Tokens]] = field(default_factory=dict)
    encodings: dict[tuple[int, ...], tuple[Tokens, float]] = field(default_factory=dict)
    baselines: dict[int, tuple[Tensor, DerivedCache]] = field(default_factory=dict)
    images: dict[tuple[str, int], tuple[Tensor, DerivedCache]] = field(default_factory=dict)
    thumbnails: np.ndarray | None = None
    lock: RLock = field(default_factory=RLock, repr=False)
    """Protects the values, since metrics without a network run in parallel to those with one."""

    def part(self, name: str) -> DerivedCache:
        """Return the cache of the values derived from one part of every item, by the name of the part."""
        with self.lock:
            return self.parts.setdefault(name, DerivedCache())


@dataclass
class Batch:
    """B images and the output of a tokenizer for them.

    index: int64 (B,), positions in the dataset. reference, image: float32 (B, 3, H, W) in [0, 1] on the CPU, not yet
    rounded; metrics get them from `rounded` with their protocol's rounding. original: the whole image files, each (1,
    3, h, w), where the protocol compares with them. marked: the decoded image files with the annotations of their words
    and faces. decoded: measurements of the decoded values before they were clamped (`tokbench.tokenizers.decoded`).
    captions, labels: a caption and a label, int64 (B,), of each image; the label of a sample is the class that it was
    drawn for. baseline: the images (B, 3, H, W) that the
    decoder itself makes of the same tokens, where `image` is that of a variant of the decoder. seams: where the tiles
    of the variant begin and end. tiles: the number of pieces in which the model got each image. extra: further tensors
    of the items by name (`tokbench.data.stream.ImageBatch`). degraded: the images (B, 3, H, W) that the tokenizer got
    instead of the references. Items of other modalities have their own shape instead of (3, H, W). A field that a task
    does not produce is None, and `require` raises MissingField for it.

    Values derived from `reference` are stored in `reference_memo`, which all adapters share for these images; values
    derived from `image` in `image_memo`, from `baseline` in `baseline_memo`. `references` stores the features of all
    references of the run by their `digests`.
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
    captions: list[str] | None = None
    labels: Tensor | None = None
    baseline: Tensor | None = None
    seams: Seams | None = None
    tiles: int = 1
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    degraded: Tensor | None = None
    reference_memo: DerivedCache = field(default_factory=DerivedCache)
    image_memo: DerivedCache = field(default_factory=DerivedCache)
    baseline_memo: DerivedCache = field(default_factory=DerivedCache)

    def __len__(self) -> int:
        return len(self.index)

    def first(self, count: int) -> Batch:
        """Return the first `count` images, without the values that were derived from all of them."""
        return replace(
            self,
            index=self.index[:count],
            reference=None if self.reference is None else self.reference[:count],
            image=None if self.image is None else self.image[:count],
            tokens=None if self.tokens is None else self.tokens.select(range(count)),
            original=self.original[:count] if self.original else None,
            digests=self.digests[:count] if self.digests else None,
            marked=self.marked[:count] if self.marked else None,
            captions=self.captions[:count] if self.captions else None,
            labels=None if self.labels is None else self.labels[:count],
            decoded={name: values[:count] for name, values in self.decoded.items()} if self.decoded else None,
            baseline=None if self.baseline is None else self.baseline[:count],
            extra={name: values[:count] for name, values in self.extra.items()},
            degraded=None if self.degraded is None else self.degraded[:count],
            reference_memo=DerivedCache(),
            image_memo=DerivedCache(),
            baseline_memo=DerivedCache(),
        )

    def against_baseline(self) -> Batch:
        """Return the batch with the images of the decoder itself as references. Raises MissingField without them."""
        baseline: Tensor = self.require("baseline")
        return replace(
            self,
            reference=baseline,
            reference_memo=self.baseline_memo,
            digests=None,
            references=None,
            original=None,
            marked=None,
        )

    def require(self, name: Field | Literal["original"]) -> Any:
        """Return the field of that name. Raises MissingField where the batch does not have it."""
        value = getattr(self, name)
        if value is None and name in _OF_DATASETS:
            raise MissingField(f"needs a dataset with {_OF_DATASETS[name]} (tokbench list datasets)")
        if value is None and name in ("baseline", "seams"):
            raise MissingField("needs a variant of the decoder; give --task decode")
        if value is None and name == "degraded":
            raise MissingField("needs degraded input; give --degrade")
        if value is None:
            raise MissingField(f"needs '{name}', which this adapter does not produce in this task")
        return value

    def require_extra(self, name: str) -> Tensor:
        """Return a further tensor (B, ...) of the items. Raises MissingField where the dataset does not have it."""
        if name not in self.extra:
            raise MissingField(f"needs '{name}', which these data do not have (docs/data.md)")
        return self.extra[name]

    def rounded(self, side: Literal["reference", "image"], rounding: Rounding = "nearest") -> Tensor:
        """Return one side's images (B, 3, H, W) on the 8-bit grid, or unchanged for `none`. The tensor is cached: do
        not modify it.

        Raises MissingField where the batch does not have them.
        """
        images: Tensor = self.require(side)
        memo = self.reference_memo if side == "reference" else self.image_memo
        with memo.lock:
            if rounding not in memo.rounded:
                result = rounded(images, rounding)
                # Where two roundings agree (for an 8-bit original), one forward pass serves both.
                same = (other for other in memo.rounded.values() if torch.equal(other, result))
                memo.rounded[rounding] = next(same, result)
            return memo.rounded[rounding]

    def levels(self, side: Literal["reference", "image"], rounding: Rounding = "nearest") -> Tensor:
        """Return one side's images as levels 0..255, (B, 3, H, W): uint8, or float64 for `none`. The tensor is cached:
        do not modify it."""
        memo = self.reference_memo if side == "reference" else self.image_memo
        with memo.lock:
            if rounding not in memo.levels:
                images = self.rounded(side, rounding)
                memo.levels[rounding] = levels(images) if rounding == "none" else to_uint8(images)
            return memo.levels[rounding]

    def thumbnails(self, side: Literal["reference", "image"], make: Callable[[Tensor], np.ndarray]) -> np.ndarray:
        """Return `make` of one side's images. The thumbnails of references are computed once for all adapters."""
        memo = self.reference_memo if side == "reference" else self.image_memo
        with memo.lock:
            if memo.thumbnails is None:
                memo.thumbnails = make(self.require(side))
            return memo.thumbnails

    def features(self, network: FeatureExtractor, side: Side, rounding: Rounding = "nearest") -> dict[str, Tensor]:
        """Return a network's features (B, ...) of one side's images, by layer. One forward pass serves all metrics."""
        own_sizes = side == "original" and not self._uncropped()
        memo = self.image_memo if side == "image" else self.reference_memo
        if own_sizes:
            images: list[Tensor] = self.require("original")
            key = f"{network.key}/{rounding}", id(images)
        else:
            rounded_images = self.rounded("image" if side == "image" else "reference", rounding)
            key = network.key, id(rounded_images)  # the memo keeps the tensor, so its id is not reused

        def compute(span: slice) -> dict[str, Tensor]:
            return _one_by_one(network, images[span], rounding) if own_sizes else network(rounded_images[span])

        if side == "image" or self.references is None or self.digests is None or network.stays:
            if key not in memo.features:
                memo.features[key] = compute(slice(None))
            return memo.features[key]
        shared_key = f"{network.key}/{side}/{rounding}", 0
        if shared_key not in memo.features:  # `references` needs every rounding, even where the pixels are equal
            features = self.references.features(network, side, rounding, self.index, self.digests, compute)
            memo.features[shared_key] = memo.features[key] = features
        return memo.features[shared_key]

    def _uncropped(self) -> bool:
        """Return whether the whole files equal the references, as for images that already had the evaluated size."""
        whole, reference = self.require("original"), self.require("reference")
        same_shapes = all(image.shape[1:] == reference.shape[1:] for image in whole)
        return same_shapes and torch.equal(torch.cat(whole), reference)


def _one_by_one(network: FeatureExtractor, images: list[Tensor], rounding: Rounding) -> dict[str, Tensor]:
    """Return features of images of different sizes, each from a forward pass of its own."""
    features = [network(rounded(image, rounding), chunk=1) for image in images]
    return {layer: torch.cat([one_image[layer] for one_image in features]) for layer in features[0]}
