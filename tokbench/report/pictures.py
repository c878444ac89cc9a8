"""Pictures of the site: reconstructions of the same images by every adapter, worst images, and worst words and faces.

Pictures are small WebP files. They are cached with a key of the adapter's weights and code, and reused.
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

from tokbench.data.dataset import Dataset
from tokbench.data.reading import DEFAULTS
from tokbench.errors import DataError, TokbenchError
from tokbench.evaluation.provenance import describe_adapter
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import plain_step
from tokbench.io.atomic import write_atomically
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.metrics.psnr import PSNR
from tokbench.modalities.open import open_dataset
from tokbench.modalities.registry import MODALITIES
from tokbench.paths import slug
from tokbench.protocol.protocol import load_protocol, recorded_protocol
from tokbench.report import worst_crops
from tokbench.report.differing import differing_images
from tokbench.results.columns import column_of
from tokbench.results.result import Result, side_of
from tokbench.tokenizers.base import Generator
from tokbench.tokenizers.registry import BUILTIN, LoadedAdapter, adapter_files, load_adapter

SHOWN, SIZE = 8, 256
"""Number of embedded photos that are shown for every adapter, and their side in pixels."""
WORST = 3
"""Worst images shown per metric."""
CASES = 6
"""Words or faces per sheet."""
AMPLIFIED = 4
"""Amplification of the error pictures; black is no error."""

Progress = Callable[[str, int, int], None]

_FORMAT = 4
"""Version of the cached index files."""

_DIFFERING = "differing"
"""The folder, and the beginning of the names of index files, of images in which rows of a table differ most."""

T = TypeVar("T")


@dataclass
class Pictures:
    """The pictures of the page; file paths are relative to the page."""

    images: list[dict[str, Any]] = field(default_factory=list)
    adapters: list[str] = field(default_factory=list)
    reconstructions: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    worst: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    sheets: list[dict[str, Any]] = field(default_factory=list)
    differing: dict[str, dict[str, dict[str, dict[str, str]]]] = field(default_factory=dict)
    """By table, adapter and image: the files of the original and of the reconstruction."""


def pictures(results: Sequence[Result], out: Path, root: Path | None, progress: Progress) -> Pictures:
    """Make the missing pictures in `out`/pictures and return all of them.

    Adapters that cannot be loaded and datasets that are not available are skipped. For safety, so are adapters that are
    neither in the root nor built in, because the name in a result file could be a path.
    """
    found, known = Pictures(), adapter_files(root)
    dataset = open_dataset("samples", load_protocol("tokbench"), SIZE, None, root)
    places = _spread(dataset)
    for position, image in _originals(dataset, places):
        name = dataset.names[position]
        file = _written(image, out / "pictures" / "original" / f"{slug(name)}.webp", out)
        found.images.append({"name": name, "file": file, "width": SIZE, "height": SIZE})
    names, differing = list(dict.fromkeys(result.adapter for result in results)), differing_images(results)
    for done, name in enumerate(names):
        if name in known or name.partition(".")[0] in BUILTIN:
            with suppress(TokbenchError):
                adapter = load_adapter(name, root=root)
                own = [result for result in results if result.adapter == name and result.task == "reconstruct"]
                if "image" not in adapter.model.spec.modalities:
                    _add_worst(found, adapter, describe_adapter(adapter), own, out, root)
                elif not isinstance(adapter.model, Generator):
                    _add_adapter(found, adapter, own, dataset, places, out, root)
                    for table, chosen in differing.items():
                        _add_differing(found, adapter, own, (table, chosen), out, root)
        progress("pictures", done + 1, len(names))
    return found


def existing(results: Sequence[Result], out: Path) -> Pictures:
    """Return the pictures in `out`/pictures that earlier calls of `pictures` made for these adapters.

    No adapter and no dataset is loaded, so it is not checked whether the pictures belong to the current weights.
    """
    found, images = Pictures(), dict[str, Path]()
    for name in dict.fromkeys(result.adapter for result in results):
        folder = out / "pictures" / slug(name)
        if worst := _content(folder / "worst.json"):
            found.worst[name] = worst
        if not (shown := _content(folder / "shown.json")):
            continue
        images |= {image: out / "pictures" / "original" / f"{slug(image)}.webp" for image in shown}
        found.adapters.append(name)
        found.reconstructions[name] = shown
        for result in results:
            if result.adapter == name:
                if chosen := _content(folder / f"{_DIFFERING}-{slug(result.group)}.json"):
                    found.differing.setdefault(result.group, {})[name] = chosen
                sheets = (_content(folder / f"{slug(f'{result.group}-{kind}')}.json") for kind in result.readings)
                found.sheets += filter(None, sheets)
    for name, path in images.items():
        if path.is_file():
            file = path.relative_to(out).as_posix()
            found.images.append({"name": name, "file": file, "width": SIZE, "height": SIZE})
    return found


def _content(index: Path) -> Any:
    """Return the content of an index file that `_cached` wrote, or None if it is missing or damaged."""
    try:
        return json.loads(index.read_text("utf-8"))["content"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _add_adapter(
    found: Pictures,
    adapter: LoadedAdapter,
    results: Sequence[Result],
    dataset: Dataset,
    places: Sequence[int],
    out: Path,
    root: Path | None,
) -> None:
    """Add the pictures of one adapter. Raises TokbenchError if it fails on an image."""
    folder, described = out / "pictures" / slug(adapter.name), describe_adapter(adapter)
    digests = [dataset.prepared(place).digest for place in places]
    found.reconstructions[adapter.name] = _cached(
        folder / "shown.json", [described, digests], lambda: _shown(adapter, dataset, places, folder, out)
    )
    found.adapters.append(adapter.name)
    _add_worst(found, adapter, described, results, out, root)
    found.sheets += _sheets(adapter, described, results, folder, out, root)


def _add_worst(
    found: Pictures,
    adapter: LoadedAdapter,
    described: dict[str, Any],
    results: Sequence[Result],
    out: Path,
    root: Path | None,
) -> None:
    """Add the worst items of one adapter. Raises TokbenchError if it fails on an item."""
    if worst := _worst(adapter, described, results, out / "pictures" / slug(adapter.name), out, root):
        found.worst[adapter.name] = worst


def _cached(index: Path, about: Any, make: Callable[[], T]) -> T:
    """Return the result of `make`, or the one stored in the file `index` if it has the same key `about`."""
    key = hashlib.sha256(json.dumps([_FORMAT, about], sort_keys=True).encode()).hexdigest()
    with suppress(OSError, ValueError, KeyError, TypeError):  # a missing or damaged file is replaced
        kept = json.loads(index.read_text("utf-8"))
        if kept["key"] == key:
            before: T = kept["content"]
            return before
    content = make()
    write_atomically(index, json.dumps({"key": key, "content": content}).encode())
    return content


def _spread(dataset: Dataset) -> list[int]:
    """Return positions spread evenly over the dataset; photos first, then pages of text."""
    places: list[int] = np.linspace(0, len(dataset) - 1, SHOWN).round().astype(int).tolist()
    return sorted(places, key=lambda place: "page" in dataset.names[place])


def _originals(dataset: Dataset, places: Sequence[int]) -> list[tuple[int, torch.Tensor]]:
    """Return (position, image (1, 3, H, W)) for some positions."""
    spans = [range(place, place + 1) for place in places]
    return [(int(images.index[0]), images.reference) for images in dataset.batches(1, lambda _: spans)]


def _reconstructed(adapter: LoadedAdapter, dataset: Dataset, places: Sequence[int]) -> list[tuple[int, Batch]]:
    """Return (position, reconstructed batch of one image) for some positions."""
    dataset.bind(adapter.model)
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
    """Write the reconstruction and error picture of each shown image; return files and captions by image name."""
    found = {}
    for place, batch in _reconstructed(adapter, dataset, places):
        name = dataset.names[place]
        metric = PSNR()
        metric.update(batch)
        value = metric.compute()["psnr"]
        image, reference = batch.rounded("image"), batch.rounded("reference")
        found[name] = {
            "file": _written(image, folder / f"{slug(name)}.webp", out),
            "error": _written(AMPLIFIED * (image - reference).abs(), folder / f"{slug(name)}.error.webp", out),
            "caption": "exact" if np.isnan(value) else f"PSNR {value:.2f} dB",
        }
    return found


def _written(image: torch.Tensor, path: Path, out: Path) -> str:
    """Write an image (1, 3, H, W) in [0, 1] as WebP; return its path relative to the page."""
    pixels = (image[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return _saved(Image.fromarray(pixels), path, out)


def _saved(image: Image.Image, path: Path, out: Path) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=88)
    write_atomically(path, buffer.getvalue())
    return path.relative_to(out).as_posix()


Worst = dict[str, list[dict[str, Any]]]


def _worst(
    adapter: LoadedAdapter,
    described: dict[str, Any],
    results: Sequence[Result],
    folder: Path,
    out: Path,
    root: Path | None,
) -> Worst:
    """Return the images with the worst values by metric, for the first of its results whose dataset is available."""
    for result in results:
        modality = MODALITIES[result.provenance["data"].get("modality", "image")]
        if not (numbers := [number for number in modality.ranked_by if number in result.per_image]):
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
        return _cached(folder / "worst.json", about, make)
    return {}


def _add_differing(
    found: Pictures,
    adapter: LoadedAdapter,
    results: Sequence[Result],
    chosen: tuple[str, Sequence[int]],
    out: Path,
    root: Path | None,
) -> None:
    """Add the pictures of one adapter of the images that its table chose, if the adapter and the dataset are in it."""
    table, places = chosen
    for result in results:
        if result.group == table:
            with suppress(TokbenchError):
                dataset, described = _dataset_of(result, root), describe_adapter(adapter)
                folder = out / "pictures" / slug(adapter.name)
                about = [described, result.provenance["data"]["sha256"], list(places)]
                make = partial(_differing_of, adapter, dataset, places, folder, out)
                files = _cached(folder / f"{_DIFFERING}-{slug(table)}.json", about, make)
                found.differing.setdefault(table, {})[adapter.name] = files


def _differing_of(
    adapter: LoadedAdapter, dataset: Dataset, places: Sequence[int], folder: Path, out: Path
) -> dict[str, dict[str, str]]:
    files = {}
    for place, batch in _reconstructed(adapter, dataset, places):
        stem = slug(f"{dataset.name}-{dataset.names[place]}")
        original = out / "pictures" / "original" / slug(dataset.name) / f"{stem}.webp"
        files[dataset.names[place]] = {
            "original": _written(batch.rounded("reference"), original, out),
            "file": _written(batch.rounded("image"), folder / _DIFFERING / f"{stem}.webp", out),
        }
    return files


def _worst_of(
    adapter: LoadedAdapter, dataset: Dataset, chosen: dict[str, list[tuple[int, float]]], folder: Path, out: Path
) -> Worst:
    modality = MODALITIES[dataset.modality]
    places, files = sorted({place for own in chosen.values() for place, _ in own}), {}
    for place, batch in _reconstructed(adapter, dataset, places):
        stem = folder / "worst" / slug(f"{dataset.name}-{dataset.names[place]}")
        item: dict[str, Any] = {"name": f"{dataset.name}, {dataset.names[place]}"}
        reference, image = batch.rounded("reference"), batch.rounded("image")
        for key, values, suffix in (("original", reference, ".original"), ("file", image, "")):
            picture = modality.picture(values)
            item |= {"height": picture.shape[2], "width": picture.shape[3]}
            item[key] = _written(picture, stem.with_name(f"{stem.name}{suffix}.webp"), out)
            if recording := modality.recording(values[0], dataset.side):
                sound = stem.with_name(f"{stem.name}{suffix}.wav")
                write_atomically(sound, recording)
                item[f"{key}_sound"] = sound.relative_to(out).as_posix()
        files[place] = item
    found = {}
    for number, own in chosen.items():
        column = column_of(number)[1]
        shown = [files[place] | {"caption": f"{value:.{column.digits}f}"} for place, value in own if place in files]
        if shown:
            found[column.title] = shown
    return found


def _dataset_of(result: Result, root: Path | None) -> Dataset:
    """Open the images of a result. Raises DataError if they are not available, or if an adapter restored them first."""
    if "restore" in result.provenance:
        raise DataError(f"{result.adapter} on {result.group}: pictures of restored input are not made")
    data, protocol = result.provenance["data"], recorded_protocol(result.provenance["protocol"])
    reading = DEFAULTS.recorded(result.provenance)
    return open_dataset(result.dataset, protocol, side_of(data), data["limit"], root, reading)


def _sheets(
    adapter: LoadedAdapter,
    described: dict[str, Any],
    results: Sequence[Result],
    folder: Path,
    out: Path,
    root: Path | None,
) -> list[dict[str, Any]]:
    """Return the sheets of the worst words and faces, for results with recognition data and available datasets."""
    sheets = []
    for result in results:
        for kind in result.readings:
            try:
                dataset, shown = _dataset_of(result, root), worst_crops.cases(result, kind)[:CASES]
            except TokbenchError:
                continue
            stem = slug(f"{result.group}-{kind}")
            title = f"{adapter.name}: {kind.replace('_', ' ')} ({result.group})"
            about = [described, result.provenance["data"]["sha256"], [asdict(case) for case in shown]]

            def make(
                dataset: Dataset = dataset,
                shown: list[worst_crops.WorstCrop] = shown,
                seed: int = result.provenance["seed"],
                path: Path = folder / f"{stem}.webp",
                title: str = title,
            ) -> dict[str, Any]:
                sheet = worst_crops.picture(shown, adapter, dataset, seed=seed)
                file = _saved(sheet, path, out)
                captions = [f"{case.image}: {', '.join(case.lines)}" for case in shown]
                return {
                    "title": title,
                    "file": file,
                    "width": sheet.width,
                    "height": sheet.height,
                    "captions": captions,
                }

            sheets.append(_cached(folder / f"{stem}.json", about, make))
    return sheets
