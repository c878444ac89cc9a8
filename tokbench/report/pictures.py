"""The page's pictures: the same images through every adapter, where each does worst, and what was read in them.

Files are small WebP. What an adapter made is kept with a key of its weights and code, and is not made again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from tokbench.data.dataset import Dataset, open_dataset
from tokbench.errors import TokbenchError
from tokbench.evaluation.provenance import describe_adapter
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import plain_step
from tokbench.io.atomic import write_atomically
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.metrics.psnr import PSNR
from tokbench.paths import slug
from tokbench.protocol.protocol import load_protocol
from tokbench.report import worst_crops as worst
from tokbench.results.columns import column_of
from tokbench.results.result import Result
from tokbench.tokenizers.base import Generator
from tokbench.tokenizers.registry import BUILTIN, LoadedAdapter, adapter_files, load_adapter

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

T = TypeVar("T")


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
    are left out; so are adapters that are neither in the root nor builtin, whatever a result calls itself."""
    told, known = Pictures(), adapter_files(root)
    dataset = open_dataset("samples", load_protocol("tokbench"), SIZE, None, root)
    places = _spread(dataset)
    for position, image in _originals(dataset, places):
        name = dataset.names[position]
        file = _written(image, out / "pictures" / "original" / f"{slug(name)}.webp", out)
        told.images.append({"name": name, "file": file, "width": SIZE, "height": SIZE})
    names = list(dict.fromkeys(result.adapter for result in results))
    for done, name in enumerate(names):
        if name in known or name.partition(".")[0] in BUILTIN:
            with suppress(TokbenchError):
                adapter = load_adapter(name, root=root)
                own = [result for result in results if result.adapter == name and result.task == "reconstruct"]
                if not isinstance(adapter.model, Generator):
                    _of_one(told, adapter, own, dataset, places, out, root)
        progress("pictures", done + 1, len(names))
    return told


def _of_one(
    told: Pictures,
    adapter: LoadedAdapter,
    results: Sequence[Result],
    dataset: Dataset,
    places: Sequence[int],
    out: Path,
    root: Path | None,
) -> None:
    """One adapter's pictures. Raises TokbenchError where it fails on an image."""
    folder, described = out / "pictures" / slug(adapter.name), describe_adapter(adapter)
    digests = [dataset.prepared(place).digest for place in places]
    told.made[adapter.name] = _once(
        folder / "shown.json", [described, digests], lambda: _shown(adapter, dataset, places, folder, out)
    )
    told.adapters.append(adapter.name)
    if found := _worst(adapter, described, results, folder, out, root):
        told.worst[adapter.name] = found
    told.sheets += _sheets(adapter, described, results, folder, out, root)


def _once(index: Path, about: Any, make: Callable[[], T]) -> T:
    """What `make` gives, as JSON keeps it; what it gave for the same `about` before, where that lies in `index`."""
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    with suppress(OSError, ValueError, KeyError, TypeError):  # not there, or damaged: then it is made again
        kept = json.loads(index.read_text("utf-8"))
        if kept["key"] == key:
            before: T = kept["made"]
            return before
    made = make()
    write_atomically(index, json.dumps({"key": key, "made": made}).encode())
    return made


def _spread(dataset: Dataset) -> list[int]:
    """Evenly over the data set; photos first, then pages of text."""
    places: list[int] = np.linspace(0, len(dataset) - 1, SHOWN).round().astype(int).tolist()
    return sorted(places, key=lambda place: "page" in dataset.names[place])


def _originals(dataset: Dataset, places: Sequence[int]) -> list[tuple[int, torch.Tensor]]:
    spans = [range(place, place + 1) for place in places]
    return [(int(images.index[0]), images.reference) for images in dataset.batches(1, lambda _: spans)]


def _through(adapter: LoadedAdapter, dataset: Dataset, places: Sequence[int]) -> list[tuple[int, Batch]]:
    adapter.model.bind_dataset(dataset.names, dataset.source.names)
    if adapter.model.module is not None:
        adapter.model.module.eval()
    spans, step = [range(place, place + 1) for place in places], plain_step(adapter.model)
    return [
        (int(images.index[0]), reconstruct(adapter.model, images, step, RunSettings("cpu", 16), DerivedCache()))
        for images in dataset.batches(1, lambda _: spans)
    ]


def _shown(
    adapter: LoadedAdapter, dataset: Dataset, places: Sequence[int], folder: Path, out: Path
) -> dict[str, dict[str, str]]:
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
    return found


def _written(image: torch.Tensor, path: Path, out: Path) -> str:
    """One image (1, 3, H, W) in [0, 1] as WebP; its place relative to the page."""
    pixels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return _saved(Image.fromarray(pixels), path, out)


def _saved(image: Image.Image, path: Path, out: Path) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=88)
    write_atomically(path, buffer.getvalue())
    return path.relative_to(out).as_posix()


Worst = dict[str, list[dict[str, str]]]


def _worst(
    adapter: LoadedAdapter,
    described: dict[str, Any],
    results: Sequence[Result],
    folder: Path,
    out: Path,
    root: Path | None,
) -> Worst:
    """By number: the images with the worst values, of the first data set of its results that is here."""
    for result in results:
        if not (numbers := [number for number in BY if number in result.per_image]):
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
        about = [described, result.group, result.provenance["data"]["sha256"], chosen]
        make = partial(_worst_of, adapter, dataset, chosen, folder, out)
        return _once(folder / "worst.json", about, make)
    return {}


def _worst_of(
    adapter: LoadedAdapter, dataset: Dataset, chosen: dict[str, list[tuple[int, float]]], folder: Path, out: Path
) -> Worst:
    places, files = sorted({place for own in chosen.values() for place, _ in own}), {}
    for place, batch in _through(adapter, dataset, places):
        stem = slug(f"{dataset.name}-{dataset.names[place]}")
        files[place] = {
            "name": f"{dataset.name}, {dataset.names[place]}",
            "original": _written(batch.rounded("reference"), folder / "worst" / f"{stem}.original.webp", out),
            "file": _written(batch.rounded("image"), folder / "worst" / f"{stem}.webp", out),
        }
    found = {}
    for number, own in chosen.items():
        column = column_of(number)[1]
        shown = [files[place] | {"told": f"{value:.{column.digits}f}"} for place, value in own if place in files]
        if shown:
            found[column.title] = shown
    return found


def _dataset_of(result: Result, root: Path | None) -> Dataset:
    """The images of a result. Raises DataError where they are not here."""
    told = result.provenance
    size = told["data"]["width"] if told["data"]["width"] == told["data"]["height"] else None
    return open_dataset(result.dataset, load_protocol(told["protocol"]["name"]), size, told["data"]["limit"], root)


def _sheets(
    adapter: LoadedAdapter,
    described: dict[str, Any],
    results: Sequence[Result],
    folder: Path,
    out: Path,
    root: Path | None,
) -> list[dict[str, Any]]:
    """The worst words and faces of results that hold readings, of data sets that are here."""
    made = []
    for result in results:
        for kind in result.readings:
            try:
                dataset, shown = _dataset_of(result, root), worst.cases(result, kind)[:CASES]
            except TokbenchError:
                continue
            stem = slug(f"{result.group}-{kind}")
            title = f"{adapter.name}: {kind.replace('_', ' ')} ({result.group})"
            about = [described, result.provenance["data"]["sha256"], [asdict(case) for case in shown]]

            def make(
                dataset: Dataset = dataset,
                shown: list[worst.WorstCrop] = shown,
                seed: int = result.provenance["seed"],
                path: Path = folder / f"{stem}.webp",
                title: str = title,
            ) -> dict[str, Any]:
                sheet = worst.picture(shown, adapter, dataset, seed=seed)
                file = _saved(sheet, path, out)
                told = [f"{case.image}: {', '.join(case.told)}" for case in shown]
                return {"title": title, "file": file, "width": sheet.width, "height": sheet.height, "told": told}

            made.append(_once(folder / f"{stem}.json", about, make))
    return made
