"""Metrics of images on the frames of clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.metrics.distribution import OnSubsets
from tokbench.metrics.frechet import Frechet
from tokbench.metrics.output_checks import OutputChecks
from tokbench.metrics.perceptual import LPIPS
from tokbench.metrics.psnr import PSNR
from tokbench.metrics.sample_store import SampleStore
from tokbench.metrics.ssim import SSIM
from tokbench.protocol.protocol import TOKBENCH, Protocol, Psnr
from tokbench.stats.bootstrap import UNBOUNDED

if TYPE_CHECKING:
    from tokbench.extractors.lpips import LPIPSNetwork
    from tokbench.metrics.feature_cache import ReferenceFeatures


def frames_of(batch: Batch) -> Batch:
    """Return the frames of a batch of B clips (B, T, 3, H, W) as a batch of B * T images, clip by clip.

    Values derived from the frames are stored in the caches of the clips, so that all metrics share them.
    """
    image = batch.require("image")
    reference = None if batch.reference is None else batch.reference.flatten(0, 1)
    index = batch.index.repeat_interleave(image.shape[1])
    return Batch(
        index,
        reference,
        image.flatten(0, 1),
        reference_memo=batch.reference_memo.part("frames"),
        image_memo=batch.image_memo.part("frames"),
    )


def middle_frames(batch: Batch) -> Batch:
    """Return the middle frames of a batch of clips as a batch of images."""
    at = batch.require("image").shape[1] // 2
    image, reference = (None if one is None else one[:, at].contiguous() for one in (batch.image, batch.reference))
    return replace(
        batch,
        image=image,
        reference=reference,
        references=None,
        reference_memo=batch.reference_memo.part("middle"),
        image_memo=batch.image_memo.part("middle"),
    )


class MiddleFrameChecks(OutputChecks):
    """The output checks of images, on the middle frame of every clip."""

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return super().per_sample(middle_frames(batch))


class _FrameMean(PerImageMetric):
    """The mean over the frames of each clip of a per-image metric, as one value per clip.

    Frames without a value, such as the PSNR of an exact frame, are left out. Intervals come from resampling clips,
    because the frames of a clip are not independent.
    """

    name: ClassVar[str]

    def __init__(self, inner: PerImageMetric, number: str) -> None:
        super().__init__()
        self._inner, self._number = inner, number

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        values = self._inner.per_sample(frames_of(batch))[self._number].reshape(len(batch), -1)
        defined = ~np.isnan(values)
        counts = defined.sum(1)
        means = np.where(defined, values, 0).sum(1) / np.maximum(counts, 1)
        return {self.name: np.where(counts > 0, means, np.nan)}

    def provenance(self) -> dict[str, str]:
        return self._inner.provenance()


class FramePSNR(_FrameMean):
    """`frame_psnr`: the mean PSNR of the frames of a clip in dB. Exact frames are left out."""

    name = "frame_psnr"

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__(PSNR(_per_image_psnr(protocol)), "psnr")


class ClipPSNR(PerImageMetric):
    """`clip_psnr`: the PSNR of the mean squared error over all frames of a clip in dB. Exact clips are left out."""

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__()
        self._inner = PSNR(_per_image_psnr(protocol))

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"clip_psnr": self._inner.per_sample(batch)["psnr"]}


def _per_image_psnr(protocol: Protocol) -> Protocol:
    """Return the protocol with one PSNR value per image; pooling over the dataset has no meaning for frames."""
    return protocol.with_changes(
        protocol.name, psnr=Psnr(epsilon=protocol.psnr.epsilon, rounding=protocol.psnr.rounding)
    )


class FrameSSIM(_FrameMean):
    """`frame_ssim`: the mean SSIM of the frames of a clip."""

    name = "frame_ssim"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __init__(self, protocol: Protocol = TOKBENCH) -> None:
        super().__init__(SSIM(protocol), "ssim")


class FrameLPIPS(_FrameMean):
    """`frame_lpips`: the mean LPIPS of the frames of a clip."""

    name = "frame_lpips"
    bounds: ClassVar[tuple[float, float]] = (0.0, UNBOUNDED[1])

    def __init__(self, network: LPIPSNetwork, protocol: Protocol = TOKBENCH) -> None:
        super().__init__(LPIPS("lpips", network, protocol), "lpips")


class FrameFrechet(Frechet):
    """`frame_fid_768`: the Fréchet distance between all frames of the references and all frames of the outputs.

    Features are stored per clip, and halves are halves of the clips, because the frames of a clip are not independent.
    """

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        return {name: _per_clip(values, batch) for name, values in super().per_sample(frames_of(batch)).items()}

    def stores(self) -> dict[str, SampleStore]:
        return super().stores() | {"references": self.references}

    def stores_of(self, chunk: int) -> list[str]:
        return [*super().stores_of(chunk), "references"]

    def share_references(self, references: ReferenceFeatures) -> None:
        """Keep the frames' features in this metric: the shared ones are those of whole items."""

    def missing_references(self, references: ReferenceFeatures, index: np.ndarray, digests: Sequence[str]) -> bool:
        return False

    def update_reference(self, batch: Batch) -> None:
        features = frames_of(batch).features(self._network, "reference", self._rounding)[self._layer].numpy()
        self.references.add(batch.index, {self._layer: _per_clip(features, batch)})

    def _all_features(self) -> tuple[np.ndarray, np.ndarray]:
        reference, image = super()._all_features()
        self._frames = image.shape[1]
        return reference.reshape(-1, reference.shape[-1]), image.reshape(-1, image.shape[-1])

    def _on_subsets(self, reference: np.ndarray, image: np.ndarray, most: int) -> OnSubsets:
        on_frames = super()._on_subsets(reference, image, most * self._frames)
        return lambda one, other: on_frames(self._positions(one), self._positions(other))

    def _positions(self, clips: np.ndarray) -> np.ndarray:
        """Return the positions (B, n * T) of the frames of clips (B, n)."""
        frames = clips[..., None] * self._frames + np.arange(self._frames)
        return frames.reshape(*clips.shape[:-1], -1)

    def _fits(self) -> bool:
        return True


def _per_clip(values: np.ndarray, batch: Batch) -> np.ndarray:
    return values.reshape(len(batch), -1, *values.shape[1:])
