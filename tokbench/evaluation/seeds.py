"""The seeds of images: they follow from the run's seed and the place of an image alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def image_seeds(seed: int, index: Sequence[int], per_image: int) -> list[int]:
    """One seed for every tile of every image, from the run's seed and the image's position alone."""

    def one(position: int, tile: int) -> int:
        return int.from_bytes(hashlib.sha256(f"{seed}/{position}/{tile}".encode()).digest()[:7], "big")

    return [one(position, tile) for position in index for tile in range(per_image)]
