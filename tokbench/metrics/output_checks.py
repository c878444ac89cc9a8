"""Output checks detect damaged outputs that still give plausible numbers. They are counted over all images and give
warnings, not numbers.

Every limit lies between the values of undamaged tokenizers (docs/faults.md has the table) and those of the damage.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch
from tokbench.results.warning import ResultWarning
from tokbench.tokenizers.decoded import MARGIN, READINGS
from tokbench.tokenizers.spec import TokenizerSpec

CELLS = 8
"""Cells per side of the thumbnails with which images are compared."""

_ROWS = 64
"""The number of evenly spaced rows per image from which thumbnails and digests are computed. More rows take more time
and give the same findings."""

FLAT = 1
"""The largest difference, in levels, between the smallest and the largest value of each channel of a single-coloured
image."""

APART = 32.0
"""The difference, in levels, that some cell of two thumbnails must exceed for two images to count as different."""

COPIES = 0.001
"""The share of copies up to which no warning is given, since folders of real photos contain some."""

NEARER = 0.25
"""A fit is much better where its mean squared error is less than this share."""

FAR = 12.0
"""The largest root mean squared error of a thumbnail, in levels, at which two images count as equal. Beyond it, better
fits are searched for."""

TURNED = 24.0
"""The largest root mean squared error, in levels, of a reconstruction after the rotation was undone. Weak tokenizers
have larger errors and do not fit by chance."""

SHIFT, SAME_SIGN, EXPLAINED = 5.0, 0.8, 0.5
"""A brightness warning needs all three: half of the images are brighter (or darker) by more than SHIFT levels, a share
of at least SAME_SIGN is, and this explains a share of more than EXPLAINED of their thumbnails' squared error. Weak
tokenizers lose brightness, too, but that explains little of their error."""

STRAY = 0.12
"""The mean share of an image's values that may be clamped by more than MARGIN. It exceeds that of linear decoders on
text."""

MISPAIRED = 2
"""The smallest number of reconstructions nearer to another original. Exchanged images come in pairs."""

UNRELATED, _MIN_RANKED = 0.43, 64
"""The mean share of other originals nearer than the own one from which reconstructions count as unrelated (one half is
chance), and the smallest number of images for this test."""

_POOL, _MAX_RANKED = 4096, 512
"""The number of images in which a nearer original is searched for, and the number of images whose ranks are
compared."""


class OutputChecks(Metric):
    """Stores measurements of each image and turns them into warnings at the end.

    paired: whether each image belongs to one reference. degraded: whether the tokenizer gets degraded images; these
    can be brighter or darker than their references, so brightness is not checked.
    """

    def __init__(self, spec: TokenizerSpec, paired: bool, degraded: bool = False) -> None:
        super().__init__()
        self._range, self._paired, self._degraded = spec.range, paired, degraded

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return columns of the image, `flat`, `digest` and `thumbnail`, those of `Batch.decoded`, and of the reference
        its thumbnail `reference` and the first 60 bits of its digest, `original`."""
        pixels = batch.levels("image")
        columns = {
            "flat": _flat(pixels),
            "digest": np.array(
                [zlib.crc32(image) for image in _row_sample(pixels).contiguous().numpy()], dtype=np.uint32
            ),
            "thumbnail": batch.thumbnails("image", thumbnails),
        }
        if batch.decoded is not None:
            columns |= batch.decoded
        if self._paired:
            columns["reference"] = batch.thumbnails("reference", thumbnails)
            if batch.digests:
                columns["original"] = np.array([int(digest[:15], 16) for digest in batch.digests], dtype=np.int64)
        return columns

    def compute(self) -> dict[str, float]:
        return {}

    def warnings(self) -> list[ResultWarning]:
        """Return the warnings about all images; empty where nothing is wrong."""
        if not len(self.rows):
            return []
        checks = [self._constant(), self._copies(), self._outside()]
        if self._paired:
            wrong_range = self._wrong_range()
            unlike = None if wrong_range or self._degraded else self._brightness()
            checks += [wrong_range, unlike, self._rotated(), self._mispaired()]
        return [warning for warning in checks if warning]

    def _counted(self, kind: str, count: int, text: str) -> ResultWarning:
        return ResultWarning(kind, f"{count:,} of {len(self.rows):,} {text}", count, len(self.rows))

    def _thumbnail_difference(
        self, one: Sequence[int] | np.ndarray, other: Sequence[int] | np.ndarray, column: str
    ) -> np.ndarray:
        """Return the largest difference, in levels, between cells of the thumbnails of pairs of images."""
        ours, theirs = self.rows.column("thumbnail")[one], self.rows.column(column)[other]
        return np.abs(ours.astype(np.int16) - theirs).max((1, 2, 3), initial=0)

    def _constant(self) -> ResultWarning | None:
        flat = np.flatnonzero(self.rows.column("flat"))
        if self._paired:  # the reconstruction of an empty page may be white
            flat = flat[self._thumbnail_difference(flat, flat, "reference") > APART]
        if not len(flat):
            return None
        text = "images have a single colour, unlike their originals" if self._paired else "samples have a single colour"
        return self._counted("constant", len(flat), text)

    def _copies(self) -> ResultWarning | None:
        flat, digests = self.rows.column("flat"), self.rows.column("digest")
        first: dict[int, int] = {}
        pairs = [
            (position, first.setdefault(int(digests[position]), position))
            for position in np.flatnonzero(~flat).tolist()
        ]
        pairs = [(position, earlier) for position, earlier in pairs if position != earlier]
        if not pairs:
            return None
        later, earlier = np.array(pairs).T
        same = self._thumbnail_difference(later, earlier, "thumbnail") <= 1  # 32-bit digests can agree by chance
        if self._paired:
            references = self.rows.column("reference").astype(np.int16)
            same &= np.abs(references[later] - references[earlier]).max((1, 2, 3)) > APART
            if "original" in self.rows.names:
                originals = self.rows.column("original")
                same &= originals[later] != originals[earlier]
        count = int(same.sum())
        if count <= COPIES * len(self.rows):
            return None
        if self._paired:
            return self._counted("copies", count, "reconstructions are copies of others whose originals differ")
        return self._counted("copies", count, "samples are copies of others")

    def _outside(self) -> ResultWarning | None:
        if "outside" not in self.rows.names:
            return None
        outside = self.rows.column("outside")
        if (mean := float(outside.mean())) <= STRAY:
            return None
        low, high = self._range
        return ResultWarning(
            "clamped",
            f"{mean:.1%} of the decoded values lie outside the declared range [{low:g}, {high:g}] by more than "
            f"{MARGIN:.0%} of its width and are clamped; is the spec's range right?",
            int((outside > STRAY).sum()),
            len(outside),
        )

    def _wrong_range(self) -> ResultWarning | None:
        if "readings" not in self.rows.names:
            return None
        errors = self.rows.column("readings")
        errors = errors[~np.isnan(errors[:, 0])].astype(np.float64)
        if not len(errors):
            return None
        means = errors.mean(0)
        best = 1 + int(means[1:].argmin())
        mostly = (errors[:, best] < errors[:, 0]).mean() > SAME_SIGN
        if not mostly or means[best] >= NEARER * means[0] or means[0] <= _NEGLIGIBLE:
            return None
        low, high = self._range
        reading = READINGS[best - 1]
        return ResultWarning(
            "range",
            f"decoded values of the first {len(errors):,} images are much nearer to the originals {reading.how} "
            f"({_decibels(means[best])}) than in the declared range [{low:g}, {high:g}] ({_decibels(means[0])}); "
            f"{reading.ask}",
        )

    def _differences(self) -> np.ndarray:
        """Return thumbnails minus those of the references, in levels: float32 (N, 3, h, w)."""
        return self.rows.column("thumbnail").astype(np.float32) - self.rows.column("reference")

    def _brightness(self) -> ResultWarning | None:
        differences = self._differences()[~self.rows.column("flat")]
        if not len(differences):
            return None
        shifts = differences.mean((1, 2, 3))
        typical, error = float(np.median(shifts)), float(np.median(np.square(differences).mean((1, 2, 3))))
        count = int((np.sign(shifts) == np.sign(typical)).sum())
        if abs(typical) <= SHIFT or count < SAME_SIGN * len(shifts) or typical**2 <= EXPLAINED * error:
            return None
        return self._counted(
            "brightness",
            count,
            f"images are {'brighter' if typical > 0 else 'darker'} than their originals, half of them by more than "
            f"{abs(typical):.1f} of 255 levels; are both read and written in one range and colour space?",
        )

    def _errors(self) -> np.ndarray:
        """Return the mean squared error (N,) of each thumbnail."""
        return np.square(self._differences()).mean((1, 2, 3))

    def _rotated(self) -> ResultWarning | None:
        errors = self._errors()
        suspects = np.flatnonzero(errors > FAR**2)
        ours, theirs = (self.rows.column(name)[suspects].astype(np.float32) for name in ("thumbnail", "reference"))
        best = np.min([np.square(rotated - theirs).mean((1, 2, 3)) for rotated in orientations(ours)], axis=0)
        if not (count := int(((best < NEARER * errors[suspects]) & (best < TURNED**2)).sum())):
            return None
        return self._counted(
            "orientation",
            count,
            "reconstructions fit their originals only after a rotation or a mirroring; is an EXIF rotation applied to "
            "one side only?",
        )

    def _mispaired(self) -> ResultWarning | None:
        errors, flat = self._errors(), self.rows.column("flat")
        ours, theirs = (_vectors(self.rows.column(name)) for name in ("thumbnail", "reference"))
        count = 0
        for start in range(0, len(theirs), _POOL):
            pool = slice(start, start + _POOL)
            suspects = start + np.flatnonzero((errors[pool] > FAR**2) & ~flat[pool])
            distances = _distances(ours[suspects], theirs[pool])
            nearest = distances.argmin(1)
            # Pages of text are similar, so the other original must also be far from its own reconstruction.
            far = np.minimum(errors[suspects], errors[start + nearest])
            nearest_distances = distances[np.arange(len(suspects)), nearest]
            count += int(((nearest_distances < NEARER * far) & (nearest_distances < FAR**2)).sum())
        if count >= MISPAIRED:
            return self._counted(
                "pairing",
                count,
                "reconstructions are much nearer to another original than to their own; are they paired correctly?",
            )
        if len(theirs) < _MIN_RANKED:
            return None
        selected = np.linspace(0, len(theirs) - 1, min(len(theirs), _MAX_RANKED)).astype(int)
        distances = _distances(ours[selected], theirs[selected])
        rank = float((distances < distances.diagonal()[:, None]).sum(1).mean()) / (len(selected) - 1)
        if rank < UNRELATED:
            return None
        return ResultWarning(
            "pairing",
            f"reconstructions are no nearer to their own originals than to others (of {len(selected)} images, "
            f"{rank:.0%} of the others are nearer on average); are they paired correctly?",
        )


_NEGLIGIBLE = (3 / 255) ** 2
"""The mean squared error of images in [0, 1] below which no other interpretation of decoded values is reported."""


def thumbnails(images: Tensor) -> np.ndarray:
    """Return the mean levels of 8 x 8 cells of images (B, 3, H, W) in [0, 1]: uint8 (B, 3, 8, 8), fewer cells for a
    tiny image.

    Up to seven rows and columns at the lower and right edge belong to no cell.
    """
    height, width = (min(CELLS, side) for side in images.shape[2:])
    rows = _row_sample(images)
    rows = rows[:, :, : rows.shape[2] // height * height, : rows.shape[3] // width * width]
    means = rows.unflatten(2, (height, -1)).mean(3).unflatten(3, (width, -1)).mean(4)
    return means.mul(255).round().clamp(0, 255).to(torch.uint8).numpy()


def _row_sample(images: Tensor) -> Tensor:
    step = max(1, images.shape[2] // _ROWS)
    return images[:, :, step // 2 :: step]


def orientations(images: np.ndarray) -> list[np.ndarray]:
    """Return the seven other orientations of square images (..., h, w), or the three of the same shape for other
    images."""
    flipped = images[..., ::-1, :], images[..., ::-1], images[..., ::-1, ::-1]
    if images.shape[-1] != images.shape[-2]:
        return list(flipped)
    return [*flipped, *(other.swapaxes(-1, -2) for other in (images, *flipped))]


def _flat(pixels: Tensor) -> np.ndarray:
    """Return bool (B,): which of the images (B, 3, H, W), uint8, have a single colour, up to FLAT levels per
    channel."""

    def flat(images: Tensor) -> Tensor:
        least, most = images.flatten(2).aminmax(dim=2)
        return ((most.int() - least.int()) <= FLAT).all(1)

    rows, columns = (slice(None, None, max(1, side // 16)) for side in pixels.shape[2:])
    result = flat(pixels[:, :, rows, columns])
    if result.any():  # only these images are checked pixel by pixel
        result[result.clone()] = flat(pixels[result])
    return result.numpy()


def _vectors(thumbs: np.ndarray) -> np.ndarray:
    return thumbs.reshape(len(thumbs), -1).astype(np.float32)


def _distances(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return mean squared distances (n, m) between vectors (n, D) and vectors (m, D)."""
    squares = np.square(ours).sum(1)[:, None] + np.square(theirs).sum(1)
    return (squares - 2 * ours @ theirs.T) / ours.shape[1]


def _decibels(error: float) -> str:
    """Return the PSNR of a mean squared error of images in [0, 1] as text."""
    return "exactly" if error == 0 else f"{-10 * np.log10(error):.1f} dB"
