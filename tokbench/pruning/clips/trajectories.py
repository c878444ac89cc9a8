"""Trajectories of objects in clips: exact ones from masks, and cheap ones from clusters of colour and place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PLACE = 0.5
"""Weight of coordinates in [-1, 1] against colours in [-1, 1] in the distance of two cells."""

ROUNDS = 5
"""Rounds of k-means in the first frame."""


def from_masks(masks: Tensor, side: int) -> Tensor:
    """Return the number of the object at the centre of each cell, int64 (B, T, side, side), of masks (B, T, S, S)."""
    step = masks.shape[-1] // side
    return masks[..., step // 2 :: step, step // 2 :: step].long()


@torch.no_grad()
def tracked(clips: Tensor, root: int, side: int) -> Tensor:
    """Return the number of the cluster of each cell, int64 (B, T, side, side), of clips (B, T, 3, S, S) in [-1, 1].

    The cells of the first frame are clustered by colour and place into root x root clusters, from a regular grid of
    centres, as superpixels are. In each later frame, a cell joins the nearest cluster of the frame before, and the
    clusters move to the means of their cells. A cluster without cells stays where it was.
    """
    cells = F.adaptive_avg_pool2d(clips.float().flatten(0, 1), side).flatten(2).transpose(1, 2)
    line = PLACE * (2 * (torch.arange(side, device=clips.device) + 0.5) / side - 1)
    places = torch.cartesian_prod(line, line).expand(len(cells), -1, -1)
    points = torch.cat([cells, places], 2).unflatten(0, clips.shape[:2])
    first = (torch.arange(root, device=clips.device) * 2 + 1) * side // (2 * root)
    centres = points[:, 0][:, (first[:, None] * side + first).flatten()]
    for _ in range(ROUNDS):
        centres = _moved(points[:, 0], centres)[1]
    found = []
    for frame in points.unbind(1):
        joined, centres = _moved(frame, centres)
        found.append(joined)
    return torch.stack(found, 1).unflatten(2, (side, side))


def _moved(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest centre of each point, int64 (B, P), and the means of the centres' points, (B, K, 5)."""
    joined = torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(2)
    members = F.one_hot(joined, centres.shape[1]).to(points.dtype)
    counts = members.sum(1)[..., None]
    means = members.transpose(1, 2) @ points / counts.clamp_min(1)
    return joined, torch.where(counts > 0, means, centres)
