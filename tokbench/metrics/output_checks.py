"""Output checks: damage that leaves a plausible number behind, counted over all images. They give warnings, no numbers.

Every limit below lies between what honest tokenizers do (docs/faults.md has the table) and what the damage does.
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
"""Cells a side of the thumbnails from which images are compared with one another."""

_ROWS = 64
"""Rows of an image, evenly spaced, that thumbnails and digests are made of: all of them cost more and say no more."""

FLAT = 1
"""Levels between the smallest and the largest value of a channel, up to which an image is of one colour."""

APART = 32.0
"""Levels by which some cell of two thumbnails must differ for two images to show something else."""

COPIES = 0.001
"""Share of copies up to which they say nothing: folders of real photos hold some."""

NEARER = 0.25
"""An image fits something else much better where its mean squared error is less than this share."""

FAR = 12.0
"""Root mean squared error of a thumbnail, in levels, up to which two images show the same; beyond it a better fit is
looked for."""

TURNED = 24.0
"""The same, of a reconstruction that was turned back. Weak tokenizers are further off, and fit nothing by chance."""

SHIFT, SAME_SIGN, EXPLAINED = 5.0, 0.8, 0.5
"""Levels by which half of the images are brighter (or darker), the share of images that are, and the share of their
thumbnails' squared error that it explains, all of which it takes: weak tokenizers lose brightness among much else."""

STRAY = 0.12
"""Mean share of an image's values that are clamped by more than MARGIN, beyond what linear decoders do on text."""

MISPAIRED = 2
"""Reconstructions that are nearer to another original: two at least, since what is exchanged comes in pairs."""

UNRELATED, _ENOUGH = 0.43, 64
"""Share of the other originals that are nearer than the own one, on average, from which on they have nothing to do with
each other (one half is chance), and the images that it takes to tell."""

_POOL, _SOME = 4096, 512
"""Images among whose originals a nearer one is looked for, and those whose ranks are compared."""


class OutputChecks(Metric):
    """Keeps what tells of damage of each image, and makes warnings of it when all have been seen.

    paired: whether each image belongs to one reference.
    """

    def __init__(self, spec: TokenizerSpec, paired: bool) -> None:
        super().__init__()
        self._range, self._paired = spec.range, paired

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Columns: `flat`, `digest` and `thumbnail` of the image, `decoded`'s; `reference` (a thumbnail) and `original`
        (the first 60 bits of its digest) of the reference."""
        pixels = batch.levels("image")
        columns = {
            "flat": _flat(pixels),
            "digest": np.array(
                [zlib.crc32(image) for image in _some_rows(pixels).contiguous().numpy()], dtype=np.uint32
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
        """What is wrong with the images, all of them looked at; empty where nothing is."""
        if not len(self.rows):
            return []
        found = [self._constant(), self._copies(), self._outside()]
        if self._paired:
            read = self._reading()
            found += [read, None if read else self._brightness(), self._turned(), self._mispaired()]
        return [one for one in found if one]

    def _counted(self, kind: str, count: int, text: str) -> ResultWarning:
        return ResultWarning(kind, f"{count:,} of {len(self.rows):,} {text}", count, len(self.rows))

    def _apart(self, one: Sequence[int] | np.ndarray, other: Sequence[int] | np.ndarray, column: str) -> np.ndarray:
        """The largest difference in levels between cells of the thumbnails of images, pair by pair."""
        ours, theirs = self.rows.column("thumbnail")[one], self.rows.column(column)[other]
        return np.abs(ours.astype(np.int16) - theirs).max((1, 2, 3), initial=0)

    def _constant(self) -> ResultWarning | None:
        flat = np.flatnonzero(self.rows.column("flat"))
        if self._paired:  # a page without a word on it has a right to come out white
            flat = flat[self._apart(flat, flat, "reference") > APART]
        if not len(flat):
            return None
        text = "images are of one colour where their originals are not" if self._paired else "samples are of one colour"
        return self._counted("constant", len(flat), text)

    def _copies(self) -> ResultWarning | None:
        flat, digests = self.rows.column("flat"), self.rows.column("digest")
        first: dict[int, int] = {}
        pairs = [(at, first.setdefault(int(digests[at]), at)) for at in np.flatnonzero(~flat).tolist()]
        pairs = [(at, earlier) for at, earlier in pairs if at != earlier]
        if not pairs:
            return None
        later, earlier = np.array(pairs).T
        alike = self._apart(later, earlier, "thumbnail") <= 1  # of 32 bits some agree by chance
        if self._paired:
            references = self.rows.column("reference").astype(np.int16)
            alike &= np.abs(references[later] - references[earlier]).max((1, 2, 3)) > APART
            if "original" in self.rows.names:
                originals = self.rows.column("original")
                alike &= originals[later] != originals[earlier]
        count = int(alike.sum())
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

    def _reading(self) -> ResultWarning | None:
        if "readings" not in self.rows.names:
            return None
        errors = self.rows.column("readings")
        errors = errors[~np.isnan(errors[:, 0])].astype(np.float64)
        if not len(errors):
            return None
        means = errors.mean(0)
        best = 1 + int(means[1:].argmin())
        mostly = (errors[:, best] < errors[:, 0]).mean() > SAME_SIGN
        if not mostly or means[best] >= NEARER * means[0] or means[0] <= _FAINT:
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
        """Thumbnails minus those of the references, in levels: float32 (N, 3, h, w)."""
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
        """Mean squared error (N,) of each thumbnail."""
        return np.square(self._differences()).mean((1, 2, 3))

    def _turned(self) -> ResultWarning | None:
        errors = self._errors()
        suspects = np.flatnonzero(errors > FAR**2)
        ours, theirs = (self.rows.column(name)[suspects].astype(np.float32) for name in ("thumbnail", "reference"))
        best = np.min([np.square(turned - theirs).mean((1, 2, 3)) for turned in turns(ours)], axis=0)
        if not (count := int(((best < NEARER * errors[suspects]) & (best < TURNED**2)).sum())):
            return None
        return self._counted(
            "orientation",
            count,
            "reconstructions fit their originals only after a rotation or a mirroring; is an EXIF rotation applied on "
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
            # Pages of text look alike: the other original must be as far from its own reconstruction, too.
            far = np.minimum(errors[suspects], errors[start + nearest])
            found = distances[np.arange(len(suspects)), nearest]
            count += int(((found < NEARER * far) & (found < FAR**2)).sum())
        if count >= MISPAIRED:
            return self._counted(
                "pairing",
                count,
                "reconstructions are much nearer to another original than to their own; are they paired rightly?",
            )
        if len(theirs) < _ENOUGH:
            return None
        some = np.linspace(0, len(theirs) - 1, min(len(theirs), _SOME)).astype(int)
        distances = _distances(ours[some], theirs[some])
        rank = float((distances < distances.diagonal()[:, None]).sum(1).mean()) / (len(some) - 1)
        if rank < UNRELATED:
            return None
        return ResultWarning(
            "pairing",
            f"reconstructions are no nearer to their own originals than to others (of {len(some)} images, "
            f"{rank:.0%} of the others are nearer on average); are they paired rightly?",
        )


_FAINT = (3 / 255) ** 2
"""Mean squared error of images in [0, 1] below which no other reading of the decoded values is worth a word."""


def thumbnails(images: Tensor) -> np.ndarray:
    """Images (B, 3, H, W) in [0, 1] to the mean levels of 8 x 8 cells, uint8 (B, 3, 8, 8); fewer of a tiny image.

    Up to seven rows and columns at the lower and right edge belong to no cell.
    """
    height, width = (min(CELLS, side) for side in images.shape[2:])
    some = _some_rows(images)
    some = some[:, :, : some.shape[2] // height * height, : some.shape[3] // width * width]
    means = some.unflatten(2, (height, -1)).mean(3).unflatten(3, (width, -1)).mean(4)
    return means.mul(255).round().clamp(0, 255).to(torch.uint8).numpy()


def _some_rows(images: Tensor) -> Tensor:
    step = max(1, images.shape[2] // _ROWS)
    return images[:, :, step // 2 :: step]


def turns(images: np.ndarray) -> list[np.ndarray]:
    """The seven other orientations of images (..., h, w); of those that are not square, the three of the same shape."""
    flipped = images[..., ::-1, :], images[..., ::-1], images[..., ::-1, ::-1]
    if images.shape[-1] != images.shape[-2]:
        return list(flipped)
    return [*flipped, *(other.swapaxes(-1, -2) for other in (images, *flipped))]


def _flat(pixels: Tensor) -> np.ndarray:
    """Which of the images (B, 3, H, W), uint8, are of one colour, up to FLAT levels a channel: bool (B,)."""

    def flat(images: Tensor) -> Tensor:
        least, most = images.flatten(2).aminmax(dim=2)
        return ((most.int() - least.int()) <= FLAT).all(1)

    rows, columns = (slice(None, None, max(1, side // 16)) for side in pixels.shape[2:])
    found = flat(pixels[:, :, rows, columns])
    if found.any():  # only then is every pixel worth looking at
        found[found.clone()] = flat(pixels[found])
    return found.numpy()


def _vectors(thumbs: np.ndarray) -> np.ndarray:
    return thumbs.reshape(len(thumbs), -1).astype(np.float32)


def _distances(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Mean squared distances (n, m) of vectors (n, D) from vectors (m, D)."""
    squares = np.square(ours).sum(1)[:, None] + np.square(theirs).sum(1)
    return (squares - 2 * ours @ theirs.T) / ours.shape[1]


def _decibels(error: float) -> str:
    """PSNR of a mean squared error of images in [0, 1]."""
    return "exactly" if error == 0 else f"{-10 * np.log10(error):.1f} dB"
