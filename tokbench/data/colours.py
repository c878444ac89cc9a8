"""Names of colours: which of eleven basic colours most pixels of an image have.

Each level is first replaced by the middle of the sixteenth of the range that contains it, so that one table holds the
names of all colours. The rule works on hue, saturation and value:

    black        value below 20 %
    white, grey  saturation below 15 %: white from a value of 80 % on, else grey
    red ...      else by hue in degrees: red below 15 and from 345 on, orange to 45, yellow to 70, green to 165,
                 blue to 255 (cyan counts as blue), purple to 310, pink to 345
    brown        orange with a value below 65 %, and red with a value below 35 % of which the hue is 5 or more
    pink         also red with a saturation below 50 % and a value from 65 % on

The borders are conventions of this project, chosen by eye.
"""

from __future__ import annotations

from functools import cache

import numpy as np

NAMES = ("black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
_BORDERS = np.array([15, 45, 70, 165, 255, 310, 345])
_BY_HUE = np.array(
    [NAMES.index(name) for name in ["red", "orange", "yellow", "green", "blue", "purple", "pink", "red"]]
)


def colour_names(pixels: np.ndarray) -> np.ndarray:
    """Return the colour of each pixel, uint8 (..., 3), as a position in NAMES (...)."""
    coarse = (pixels >> 4).astype(np.uint16)
    return _table()[coarse[..., 0] << 8 | coarse[..., 1] << 4 | coarse[..., 2]]


@cache
def _table() -> np.ndarray:
    """Return the name of each colour of 4 bits per channel, (4096,), red in the highest bits."""
    levels = np.stack(np.unravel_index(np.arange(1 << 12), (16, 16, 16)), axis=-1) * 16 + 8
    red, green, blue = levels[..., 0], levels[..., 1], levels[..., 2]
    most, least = levels.max(axis=-1), levels.min(axis=-1)
    span = np.maximum(most - least, 1)
    hue = np.where(most == red, (green - blue) / span % 6, np.where(most == green, (blue - red) / span + 2, 0))
    hue = np.where((most == blue) & (most != red) & (most != green), (red - green) / span + 4, hue) * 60
    value, saturation = most / 255, np.where(most > 0, (most - least) / np.maximum(most, 1), 0)
    found = _BY_HUE[np.searchsorted(_BORDERS, hue, side="right")]
    is_red, is_orange = found == NAMES.index("red"), found == NAMES.index("orange")
    pink = is_red & (saturation < 0.5) & (value >= 0.65)
    brown = (is_orange & (value < 0.65)) | (is_red & (value < 0.35) & (hue >= 5) & (hue < 15))
    found = np.where(pink, NAMES.index("pink"), np.where(brown, NAMES.index("brown"), found))
    found = np.where(saturation < 0.15, np.where(value >= 0.8, NAMES.index("white"), NAMES.index("grey")), found)
    return np.where(value < 0.2, NAMES.index("black"), found)


def main_colour(pixels: np.ndarray) -> str:
    """Return the name of the colour that most pixels, uint8 (h, w, 3), have; of equal ones, the first in NAMES."""
    return NAMES[int(np.bincount(colour_names(pixels).ravel(), minlength=len(NAMES)).argmax())]
