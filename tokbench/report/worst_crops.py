"""Pictures of the words or faces with the largest drop in score: original, reconstruction and recognized text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tokbench.data.dataset import Dataset
from tokbench.errors import ResultError
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import plain_step
from tokbench.io.atomic import write_atomically
from tokbench.metrics.batch import DerivedCache
from tokbench.metrics.image_format import scored
from tokbench.metrics.text import cut
from tokbench.metrics.text_scores import similarity
from tokbench.results.result import Result
from tokbench.tokenizers.registry import LoadedAdapter

HEIGHT, WIDTH, GAP, FONT = 72, 220, 8, 15
"""Pixels: height and width of a crop's cell (crops keep their aspect ratio), gap between cells, font size."""


@dataclass(frozen=True)
class WorstCrop:
    """One word or face: image name, box (x1, y1, x2, y2), score (lower is worse), and lines of text."""

    image: str
    box: tuple[float, float, float, float]
    score: float
    lines: tuple[str, ...]


def cases(result: Result, kind: str | None = None) -> list[WorstCrop]:
    """Return all words and faces of a result, the worst first.

    Words that were already misread in the resized original come last, because the error is not caused by the tokenizer
    alone. Raises ResultError if there are none.
    """
    found = []
    for name, images in result.readings.items():
        if kind is None or name == kind:
            found += [case for image, read in images for one in read if (case := _case(image, one))]
    if not found:
        held = ", ".join(result.readings) or "no recognition data; evaluate it with --metrics text or --metrics faces"
        raise ResultError(f"{result.adapter} on {result.group}: nothing to show; the result contains {held}")
    return sorted(found, key=lambda case: (case.score, case.image, case.box))


def _case(image: str, one: dict[str, Any]) -> WorstCrop | None:
    """Return the crop of one recognition entry; None if the word was not recognized in the reconstruction."""
    try:
        x1, y1, x2, y2 = (float(edge) for edge in one["box"])
        if "truth" not in one:
            found = one["detected"]
            lost = "no face found in the reconstruction" if found["original"] and not found["image"] else ""
            return WorstCrop(
                image, (x1, y1, x2, y2), float(one["f_sim"]), tuple(filter(None, (f"F-Sim {one['f_sim']:.3f}", lost)))
            )
        if one["image"] is None:
            return None
        score = similarity(one["truth"], one["image"]) + (one["ceiling"] != one["truth"])
        return WorstCrop(image, (x1, y1, x2, y2), score, (f"wrote {one['truth']}", f"read {one['image'] or 'nothing'}"))
    except (KeyError, TypeError, ValueError) as error:
        raise ResultError(f"the recognition data of {image} is invalid ({error}); evaluate the result again") from error


def picture(
    shown: Sequence[WorstCrop], adapter: LoadedAdapter, dataset: Dataset, device: str = "cpu", seed: int = 0
) -> Image.Image:
    """Draw one row per crop: original, resized original (ceiling), reconstruction, and recognized text."""
    at = {name: position for position, name in enumerate(dataset.names)}
    if missing := [case.image for case in shown if case.image not in at]:
        raise ResultError(f"{dataset.name} has no image {missing[0]}; give the evaluated images with --data")
    versions: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    spans = [range(position, position + 1) for position in sorted({at[case.image] for case in shown})]
    adapter.model.bind_dataset(dataset.names, dataset.source.names)
    for images in dataset.batches(1, lambda _: spans):
        batch = reconstruct(
            adapter.model, images, plain_step(adapter.model), RunSettings(device, 1, seed), DerivedCache()
        )
        (marked,) = batch.require("marked")
        height, width = marked.pixels.shape[:2]
        sides = [batch.levels(side)[0].permute(1, 2, 0).numpy() for side in ("reference", "image")]
        ceiling, reconstruction = (scored(side, width, height, dataset.protocol) for side in sides)
        versions[images.names[0]] = marked.pixels, ceiling, reconstruction
    rows = [(case, [cut(version, case.box) for version in versions[case.image]]) for case in shown]
    return draw_sheet(rows, ("original", "resized", "reconstructed", ""))


def draw_sheet(rows: Sequence[tuple[WorstCrop, list[np.ndarray]]], titles: tuple[str, str, str, str]) -> Image.Image:
    """Draw one row per crop: three versions, uint8 (h, w, 3), and its lines of text, below the titles of the
    columns."""
    sheet = Image.new("RGB", (4 * (WIDTH + GAP) + GAP, FONT * 2 + len(rows) * (HEIGHT + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    for column, title in enumerate(titles):
        draw.text((GAP + column * (WIDTH + GAP), GAP), title, "black", font)
    for row, (case, crops) in enumerate(rows):
        top = 2 * FONT + row * (HEIGHT + GAP) + GAP
        for column, crop in enumerate(crops):
            scale = min(HEIGHT / crop.shape[0], WIDTH / crop.shape[1])
            size = (max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
            shown = Image.fromarray(np.ascontiguousarray(crop)).resize(size, Image.Resampling.BICUBIC)
            sheet.paste(shown, (GAP + column * (WIDTH + GAP), top + (HEIGHT - size[1]) // 2))
        left = GAP + 3 * (WIDTH + GAP)
        for line, text in enumerate((*case.lines, case.image[-34:])):
            text = text.encode("latin-1", "backslashreplace").decode("latin-1")  # the font covers only Latin-1
            fits = text if draw.textlength(text, font) <= WIDTH else text[:30] + "…"
            draw.text((left, top + line * (FONT + 6)), fits, "grey" if line == len(case.lines) else "black", font)
    return sheet


def save(sheet: Image.Image, path: Path) -> None:
    """Write a PNG file atomically."""
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())
