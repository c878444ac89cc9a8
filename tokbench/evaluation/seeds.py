"""The seeds of images, which depend only on the seed of the evaluation and the position of an image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def image_seeds(seed: int, index: Sequence[int], per_image: int) -> list[int]:
    """Return one seed for every tile of every image. It depends only on the evaluation's seed, the image's position and
    the tile."""

    def seed_of(position: int, tile: int) -> int:
        return int.from_bytes(hashlib.sha256(f"{seed}/{position}/{tile}".encode()).digest()[:7], "big")

    return [seed_of(position, tile) for position in index for tile in range(per_image)]
