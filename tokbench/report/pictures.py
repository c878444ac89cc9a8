"""The page's pictures: the same images through every adapter, where each does worst, and what was read in them.

Files are small WebP. What an adapter made is kept with a key of its weights and code, and is not made again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tokbench import worst
from tokbench.batch import Batch, Memo
from tokbench.dataset import Dataset, open_dataset
from tokbench.errors import TokbenchError
from tokbench.files import write_atomically
from tokbench.leaderboard import column_of
from tokbench.metrics.psnr import PSNR
from tokbench.plugins import Loaded, load_adapter, slug
from tokbench.protocol import load_protocol
from tokbench.provenance import describe_adapter
from tokbench.reconstruction import reconstruct
from tokbench.result import Result
from tokbench.tokenizer import Generator

SHOWN, SIZE = 8, 256
"""Images that every adapter is shown with, of the embedded photos, and their side."""
WORST = 3
"""Of each number."""
BY = ("psnr", "ssim", "lpips")
CASES = 6
"""Words or faces of a sheet."""
AMPLIFIED = 4
"""Errors are shown so many times as large as they are, from black."""

Progress = Callable[[str, int, int], None]


@dataclass
class Pictures:
    """What the page is told of its pictures; files are relative to it."""

    images: list[dict[str, Any]] = field(default_factory=list)
    adapters: list[str] = field(default_factory=list)
    made: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    worst: dict[str, dict[str, list[dict[str, str]]]] = field(default_factory=dict)
    sheets: list[dict[str, Any]] = field(default_factory=list)


def pictures(results: Sequence[Result], out: Path, root: Path | None, progress: Progress) -> Pictures:
    """Make what is missing below `out`/pictures. Adapters that cannot be loaded here, and data sets that are not here,
    are left out."""
    told = Pictures()
    dataset = open_dataset("samples", load_protocol("tokbench"), SIZE, None, root)
    places = _spread(dataset)
    for position, image in _originals(dataset, places):
        name = dataset.names[position]
        file = _written(image, out / "pictures" / "original" / f"{slug(name)}.webp", out)
        told.images.append({"name": name, "file": file, "width": SIZE, "height": SIZE})
    names = list(dict.fromkeys(result.adapter for result in results))
    for done, name in enumerate(names):
        try:
            adapter = load_adapter(name, root=root)
            if isinstance(adapter.model, Generator):
                continue
            told.made[name] = _shown(adapter, dataset, places, out)
            told.adapters.append(name)
            own = [result for result in results if result.adapter == name and result.task == "reconstruct"]
            if found := _worst(adapter, own, out, root):
                told.worst[name] = found
        except TokbenchError:
            continue
        progress("pictures", done + 1, len(names))
    told.sheets = _sheets(results, out, root)
    return told


def _spread(dataset: Dataset) -> list[int]:
    """Evenly over the data set; photos first, then pages of text."""
    places: list[int] = np.linspace(0, len(dataset) - 1, SHOWN).round().astype(int).tolist()
    return sorted(places, key=lambda place: "page" in dataset.names[place])


def _originals(dataset: Dataset, places: Sequence[int]) -> list[tuple[int, torch.Tensor]]:
    spans = [range(place, place + 1) for place in places]
    return [(int(images.index[0]), images.reference) for images in dataset.batches(1, lambda _: spans)]


def _through(adapter: Loaded, dataset: Dataset, places: Sequence[int]) -> list[tuple[int, Batch]]:
    adapter.model.prepare(dataset.names, dataset.source.names)
    if adapter.model.module is not None:
        adapter.model.module.eval()
    spans = [range(place, place + 1) for place in places]
    return [
        (int(images.index[0]), reconstruct(adapter.model, images, Memo(), device="cpu", batch_size=16, seed=0))
        for images in dataset.batches(1, lambda _: spans)
    ]


def _shown(adapter: Loaded, dataset: Dataset, places: Sequence[int], out: Path) -> dict[str, dict[str, str]]:
    folder = out / "pictures" / slug(adapter.name)
    about = [describe_adapter(adapter), [dataset.prepared(place).digest for place in places]]
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    index = folder / "index.json"
    if index.is_file() and (kept := json.loads(index.read_text("utf-8"))).get("key") == key:
        files: dict[str, dict[str, str]] = kept["files"]
        return files
    found = {}
    for place, batch in _through(adapter, dataset, places):
        name = dataset.names[place]
        metric = PSNR()
        metric.update(batch)
        value = metric.compute()["psnr"]
        image, reference = batch.rounded("image"), batch.rounded("reference")
        found[name] = {
            "file": _written(image, folder / f"{slug(name)}.webp", out),
            "error": _written(AMPLIFIED * (image - reference).abs(), folder / f"{slug(name)}.error.webp", out),
            "told": "exact" if np.isnan(value) else f"PSNR {value:.2f} dB",
        }
    write_atomically(index, json.dumps({"key": key, "files": found}).encode())
    return found


def _written(image: torch.Tensor, path: Path, out: Path) -> str:
    """One image (1, 3, H, W) in [0, 1] as WebP; its place relative to the page."""
    pixels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", quality=88)
    write_atomically(path, buffer.getvalue())
    return path.relative_to(out).as_posix()


def _worst(adapter: Loaded, results: Sequence[Result], out: Path, root: Path | None) -> dict[str, list[dict[str, str]]]:
    """By number: the images with the worst values, of the first data set of its results that is here."""
    for result in results:
        numbers = [number for number in BY if number in result.per_image]
        if not numbers:
            continue
        try:
            dataset = _dataset_of(result, root)
        except TokbenchError:
            continue
        chosen: dict[str, list[tuple[int, float]]] = {}
        for number in numbers:
            values, index = result.per_image[number], result.per_image["index"]
            order = np.argsort(values if column_of(number)[1].more else -values, kind="stable")
            chosen[number] = [(int(index[at]), float(values[at])) for at in order[:WORST] if not np.isnan(values[at])]
        places = sorted({place for own in chosen.values() for place, _ in own})
        folder = out / "pictures" / slug(adapter.name) / "worst"
        files = {}
        for place, batch in _through(adapter, dataset, places):
            stem = slug(f"{dataset.name}-{dataset.names[place]}")
            files[place] = {
                "name": f"{dataset.name}, {dataset.names[place]}",
                "original": _written(batch.rounded("reference"), folder / f"{stem}.original.webp", out),
                "file": _written(batch.rounded("image"), folder / f"{stem}.webp", out),
            }
        return {
            column_of(number)[1].title: [
                files[place] | {"told": f"{value:.{column_of(number)[1].digits}f}"}
                for place, value in own
                if place in files
            ]
            for number, own in chosen.items()
            if own
        }
    return {}


def _dataset_of(result: Result, root: Path | None) -> Dataset:
    """The images of a result. Raises DataError where they are not here."""
    told = result.provenance
    size = told["data"]["width"] if told["data"]["width"] == told["data"]["height"] else None
    return open_dataset(result.dataset, load_protocol(told["protocol"]["name"]), size, told["data"]["limit"], root)


def _sheets(results: Sequence[Result], out: Path, root: Path | None) -> list[dict[str, Any]]:
    """The worst words and faces of results that hold readings, of data sets that are here."""
    made = []
    for result in results:
        for kind in result.readings:
            try:
                dataset = _dataset_of(result, root)
                shown = worst.cases(result, kind)[:CASES]
                sheet = worst.picture(
                    shown, load_adapter(result.adapter, root=root), dataset, seed=result.provenance["seed"]
                )
            except TokbenchError:
                continue
            path = out / "pictures" / slug(result.adapter) / f"{slug(f'{result.group}-{kind}')}.webp"
            buffer = io.BytesIO()
            sheet.save(buffer, format="WEBP", quality=85)
            write_atomically(path, buffer.getvalue())
            title = f"{result.adapter}: {kind.replace('_', ' ')} ({result.group})"
            made.append(
                {"title": title, "file": path.relative_to(out).as_posix(), "width": sheet.width, "height": sheet.height}
            )
    return made
