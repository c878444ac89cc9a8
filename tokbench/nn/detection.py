"""Matching of predicted and true boxes, and the losses of detectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou, sigmoid_focal_loss

ALPHA, GAMMA = 0.25, 2.0
"""The constants of the focal loss (arXiv:1708.02002)."""

CLASS, L1, GIOU = 1.0, 5.0, 2.0
"""The weights of the terms of the loss, and CLASS twice in the costs of the matching, as in Deformable DETR."""


def corners(boxes: Tensor) -> Tensor:
    """Convert boxes (..., 4) from centre, width and height to left, top, right and bottom."""
    return box_convert(boxes, "cxcywh", "xyxy")


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, truths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions of predictions and of true boxes that belong together at the least cost, (m,) each.

    logits: (Q, C) before the sigmoid. boxes: (Q, 4), centre, width, height. truths: (m, 5), class and corners.
    """
    kinds, probability = truths[:, 0].long(), logits.float().sigmoid()
    positive = ALPHA * (1 - probability) ** GAMMA * -(probability + 1e-8).log()
    negative = (1 - ALPHA) * probability**GAMMA * -(1 - probability + 1e-8).log()
    own = box_convert(truths[:, 1:], "xyxy", "cxcywh")
    cost = 2 * CLASS * (positive - negative)[:, kinds] + L1 * torch.cdist(boxes.float(), own, p=1)
    cost = cost - GIOU * generalized_box_iou(corners(boxes.float()), truths[:, 1:])
    rows, columns = linear_sum_assignment(cost.cpu().numpy())
    return torch.from_numpy(rows).to(logits.device), torch.from_numpy(columns).to(logits.device)


def detection_loss(logits: Tensor, boxes: Tensor, truths: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the terms `class`, `l1` and `giou` of one set of predictions, each divided by the number of true boxes.

    logits: (B, Q, C). boxes: (B, Q, 4), centre, width, height. truths: one (m, 5) per image, class and corners.
    """
    count = max(1, sum(map(len, truths)))
    targets, found, wanted = torch.zeros_like(logits), list[Tensor](), list[Tensor]()
    for place, own in enumerate(truths):
        if len(own):
            rows, columns = match(logits[place], boxes[place], own)
            targets[place, rows, own[columns, 0].long()] = 1
            found.append(boxes[place, rows])
            wanted.append(own[columns, 1:])
    terms = {"class": CLASS * sigmoid_focal_loss(logits.float(), targets.float(), ALPHA, GAMMA, "sum") / count}
    predicted = torch.cat(found).float() if found else boxes.new_zeros(0, 4)
    true = torch.cat(wanted) if wanted else boxes.new_zeros(0, 4)
    terms["l1"] = L1 * F.l1_loss(predicted, box_convert(true, "xyxy", "cxcywh"), reduction="sum") / count
    overlap = torch.diag(generalized_box_iou(corners(predicted), true))
    terms["giou"] = GIOU * (1 - overlap).sum() / count
    return terms


def foreground_targets(truths: Sequence[Tensor], sides: Sequence[int], size: int) -> Tensor:
    """Return which positions of a pyramid lie in an object of their level's size, 0 or 1, float32 (B, N).

    A position belongs to an object if it lies in its box and if the farthest edge of the box is within the range of the
    level: up to two steps for the finest level, from there to twice as far for the next, and so on without an end for
    the coarsest. truths: one (m, 5) per image, class and corners in shares of the side. sides: positions per side, the
    finest level first. size: side of the images in pixels.
    """
    parts = []
    for level, side in enumerate(sides):
        step = size / side
        centres = (torch.arange(side, device=truths[0].device) + 0.5) / side
        x, y = centres.repeat(side), centres.repeat_interleave(side)
        low, high = (0.0 if level == 0 else step), (2 * step if level < len(sides) - 1 else torch.inf)
        inside = []
        for own in truths:
            left, top, right, bottom = own[:, 1:].T[:, :, None]
            edges = torch.stack([x - left, y - top, right - x, bottom - y]) * size
            farthest = edges.amax(0)
            hit = (edges.amin(0) > 0) & (farthest > low) & (farthest <= high)
            inside.append(hit.any(0).float())
        parts.append(torch.stack(inside))
    return torch.cat(parts, dim=1)
