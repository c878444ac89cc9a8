"""The images of each table in which the most pairs of its rows differ most, which the compare view shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from tokbench.results import leaderboard
from tokbench.results.result import Result

SHOWN = 6
"""Images per table. Reconstructions of all images by all adapters would be too large for a page."""

BY = ("psnr", "ssim", "lpips")
"""The metrics by which images are chosen."""

MIN_ROWS = 2
"""A single row differs from no other."""


def differing_images(results: Sequence[Result]) -> dict[str, list[int]]:
    """Return the positions of the chosen images of each table of reconstructions, by its name.

    For every pair of rows with the same images and every metric, the image with the largest difference has one vote.
    """
    found = {}
    for name, rows in leaderboard.groups(results).items():
        if rows[0].task == "reconstruct" and (chosen := _chosen(rows)):
            found[name] = chosen
    return found


def _chosen(rows: Sequence[Result]) -> list[int]:
    votes: Counter[int] = Counter()
    for number in BY:
        having = [row for row in rows if number in row.per_image and row.adapter != "identity"]
        if len(having) < MIN_ROWS:
            continue
        index = having[0].per_image["index"]
        columns = [row.per_image[number] for row in having if np.array_equal(row.per_image["index"], index)]
        for first, second in combinations(columns, 2):
            gaps = np.abs(second - first)
            if not np.isnan(gaps).all() and np.nanmax(gaps) > 0:
                votes[int(index[np.nanargmax(gaps)])] += 1
    return sorted(place for place, _ in sorted(votes.items(), key=lambda pair: (-pair[1], pair[0]))[:SHOWN])
