"""Pictures of the worst tile borders: original, the image of the decoder itself, and that of the tiled variant."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tokbench.data.dataset import Dataset
from tokbench.errors import NotApplicable, ResultError
from tokbench.evaluation.reconstruct import RunSettings
from tokbench.evaluation.tasks import parse_task
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.metrics.decoder_fidelity import excess_at, lines_of
from tokbench.report.worst_crops import WorstCrop, draw_sheet
from tokbench.results.result import Result
from tokbench.tokenizers.registry import LoadedAdapter

SIDE, ALONG = 132, 44
"""The size of a crop in pixels: its width and height. The border is in its middle."""


def picture(
    result: Result, count: int, adapter: LoadedAdapter, dataset: Dataset, device: str = "cpu", seed: int = 0
) -> Image.Image:
    """Draw one row per image, for the images with the largest `seam_excess`, at the worst place of the worst border.

    Raises ResultError if the result has no seams, or if the dataset lacks an image.
    """
    values = result.per_image.get("seam_excess")
    if values is None or np.isnan(values).all():
        raise ResultError(f"{result.adapter} on {result.group}: no tile borders; evaluate tiles with --metrics seams")
    order = np.argsort(-values, kind="stable")[: min(count, int((~np.isnan(values)).sum()))]
    positions = {name: position for position, name in enumerate(dataset.names)}
    names = [str(result.per_image["name"][at]) for at in order]
    if missing := [name for name in names if name not in positions]:
        raise ResultError(f"{dataset.name} has no image {missing[0]}; give the evaluated images with --data")
    adapter.model.bind_dataset(dataset.names, dataset.source.names)
    if adapter.model.module is not None:
        adapter.model.module.eval().to(device)
    task = parse_task(result.task)
    (step,) = task.steps(adapter.model)
    if step.refusal:
        raise NotApplicable(step.refusal)
    rows = []
    spans = [range(positions[name], positions[name] + 1) for name in names]
    for images in dataset.batches(1, lambda _: spans):
        batch = task.run(step, adapter.model, images, RunSettings(device, 1, seed), DerivedCache())
        rows.append(_worst_of(batch, images.names[0]))
    return draw_sheet(rows, ("original", "whole", "variant", ""))


def _worst_of(batch: Batch, name: str) -> tuple[WorstCrop, list[np.ndarray]]:
    """Return the worst place of a decoded batch of one image, and crops of its three versions."""
    whole = batch.against_baseline()
    versions = [batch.levels("reference"), whole.levels("reference"), batch.levels("image")]
    levels = versions[2].double()
    lines = lines_of(levels, batch.require("seams"))
    excess, axis, at = max((float(excess_at(levels, axis, at)[0]), axis, at) for axis, at in lines)
    x1, y1, x2, y2 = _worst_box(levels, axis, at)
    crops = [image[0, :, y1:y2, x1:x2].permute(1, 2, 0).numpy() for image in versions]
    where = f"{'row' if axis == 2 else 'column'} {at}"
    case = WorstCrop(name, (x1, y1, x2, y2), -excess, (where, f"excess {excess:.1f} levels"))
    return case, crops


def _worst_box(levels: Tensor, axis: int, at: int) -> tuple[int, int, int, int]:
    """Return the box (x1, y1, x2, y2) with the border in its middle, where the jump along the border is largest."""
    height, width = levels.shape[2:]
    jump = (levels.select(axis, at) - levels.select(axis, at - 1)).abs().mean(1)[0]
    length = min(SIDE if axis == 2 else ALONG, len(jump))
    sums = torch.cat([jump.new_zeros(1), jump.cumsum(0)])
    start = int((sums[length:] - sums[:-length]).argmax())
    across, limit = (ALONG, height) if axis == 2 else (SIDE, width)
    first = max(0, min(at - across // 2, limit - across))
    last = min(limit, first + across)
    return (start, first, start + length, last) if axis == 2 else (first, start, last, start + length)
