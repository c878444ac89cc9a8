"""Statistics of the values that a decoder returns, before they are clamped to the range that the spec declares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MARGIN = 0.02
"""How far outside the range a value must lie to count as clamped, as a share of the range's width (5 of 255 levels).
Every decoder rounds and overshoots a little at edges."""

_SIDE = 16
"""The number of evenly spaced pixels per side from which the error of another interpretation is estimated."""

_MEAN, _STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The channel means and standard deviations of ImageNet, as torchvision publishes them."""

_BLACK, _WHITE = 16 / 255, 235 / 255
"""Black and white in 8-bit video levels (ITU-R BT.601), scaled to [0, 1]."""


@dataclass(frozen=True)
class Reading:
    """Another way to interpret decoded values as an image.

    how: the phrase that completes "decoded values are nearer to the originals ...". ask: the question for the author of
    the adapter. image: a function of the decoded values (B, 3, h, w) and of the same values scaled from the declared
    range to [0, 1]; it returns an image in [0, 1].
    """

    how: str
    ask: str
    image: Callable[[Tensor, Tensor], Tensor]


_IS_IT = "is the spec's range right?"
_LEVELS = "are video levels converted on one side only?"
_GAMMA = "is a gamma curve applied on one side only?"

READINGS = (
    Reading("read in the range [0, 1]", _IS_IT, lambda values, _: values),
    Reading("read in the range [-1, 1]", _IS_IT, lambda values, _: (values + 1) / 2),
    Reading("read in the range [-0.5, 0.5]", _IS_IT, lambda values, _: values + 0.5),
    Reading("read in the range [0, 255]", _IS_IT, lambda values, _: values / 255),
    Reading(
        "with only the upper half of the range stretched over all of it",
        "are they converted from [-1, 1] to [0, 1] twice?",
        lambda _, scaled: 2 * scaled - 1,
    ),
    Reading(
        "with ImageNet's mean and standard deviation undone",
        "does decode leave them normalised?",
        lambda values, _: values * values.new_tensor(_STD)[:, None, None] + values.new_tensor(_MEAN)[:, None, None],
    ),
    Reading("with red and blue exchanged", "are channels in the order BGR?", lambda _, scaled: scaled.flip(1)),
    Reading(
        "stretched from the video levels 16 to 235", _LEVELS, lambda _, scaled: (scaled - _BLACK) / (_WHITE - _BLACK)
    ),
    Reading("compressed to the video levels 16 to 235", _LEVELS, lambda _, scaled: scaled * (_WHITE - _BLACK) + _BLACK),
    Reading("with a gamma of 2.2 applied", _GAMMA, lambda _, scaled: scaled.clamp(0, 1) ** (1 / 2.2)),
    Reading("with a gamma of 2.2 undone", _GAMMA, lambda _, scaled: scaled.clamp(0, 1) ** 2.2),
)
"""Common mistakes: a wrong range, channels in the wrong order, levels converted once too often or not at all."""


class DecodedValues:
    """Measurements of the decoded values of one batch, which is added in parts.

    within: the range that the spec declares. compared: the number of first images (or tiles) for which every other
    interpretation is evaluated, too.
    """

    def __init__(self, within: tuple[float, float], compared: int = 0) -> None:
        self._low, self._high = within
        self._left = compared
        self._outside: list[Tensor] = []
        self._errors: list[Tensor] = []

    def add(self, decoded: Tensor, extremes: tuple[Tensor, Tensor], reference: Tensor | None = None) -> None:
        """Add decoded values (B, 3, H, W).

        extremes: the smallest and the largest value of each image, (B,) each. reference: the references (B, 3, H, W) in
        [0, 1], or None if there are none.
        """
        margin = MARGIN * (self._high - self._low)
        low, high = self._low - margin, self._high + margin
        outside = torch.zeros(len(decoded))
        if (over := ((extremes[0] < low) | (extremes[1] > high)).cpu()).any():
            affected = decoded[over.to(decoded.device)]
            outside[over] = ((affected < low) | (affected > high)).flatten(1).float().mean(1).cpu()
        self._outside.append(outside)
        if reference is None:
            return
        count = min(self._left, len(decoded)) if decoded.dim() == 4 else 0  # the other readings are those of images
        self._left -= count
        errors = torch.full((len(decoded), 1 + len(READINGS)), torch.nan)
        if count:
            errors[:count] = self._compare(decoded[:count], reference[:count])
        self._errors.append(errors)

    def _compare(self, decoded: Tensor, reference: Tensor) -> Tensor:
        """Return the mean squared errors (B, 1 + readings) of the image as declared and in every other
        interpretation."""
        rows, columns = (slice(None, None, max(1, side // _SIDE)) for side in decoded.shape[2:])
        values, expected = decoded[:, :, rows, columns].float().cpu(), reference[:, :, rows, columns]
        scaled = (values - self._low) / (self._high - self._low)
        images = [scaled, *(reading.image(values, scaled) for reading in READINGS)]
        return torch.stack([(image.clamp(0, 1) - expected).square().flatten(1).mean(1) for image in images], 1)

    def columns(self, tiles: int) -> dict[str, np.ndarray]:
        """Return measurements per image, each the mean over its tiles.

        `outside` (B,): the share of values that lie outside the range by more than MARGIN of its width. `readings` (B,
        1 + readings): mean squared errors, NaN for images that were not compared.
        """
        columns = {"outside": self._outside, "readings": self._errors}
        return {
            name: torch.cat(parts).unflatten(0, (-1, tiles)).mean(1).numpy() for name, parts in columns.items() if parts
        }
