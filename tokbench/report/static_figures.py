"""Static figures of docs/: reconstructions side by side, quality over bits, token pruning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from tokbench.data.dataset import open_dataset
from tokbench.errors import TokbenchError
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import plain_step
from tokbench.metrics.batch import DerivedCache
from tokbench.protocol.protocol import TOKBENCH
from tokbench.protocol.rounding import to_uint8
from tokbench.pruning.classifier.result import ClassifierRow
from tokbench.pruning.result import Speedup, load_all
from tokbench.pruning.table import groups as reduced_groups
from tokbench.pruning.table import shared
from tokbench.results.floors import FLOOR
from tokbench.results.leaderboard import groups, read_all
from tokbench.results.result import Result
from tokbench.tokenizers.base import Generator
from tokbench.tokenizers.registry import load_adapter
from tokbench.training.zoo import trainable_adapters

SIZE, SCALE, LABEL, COUNT = 64, 2, 230, 8
CODECS = ("jpeg", "webp", "avif", "jpeg2000", "jxl")
_STYLES: dict[str, Any] = {"webp": "--", "avif": ":", "jpeg2000": "-.", "jxl": (0, (6, 1, 1, 1, 1, 1)), "pca": "--"}
"""Line styles of curves; the others are solid."""


def sheet(root: Path, target: Path) -> None:
    """Draw rows of the same photos: the originals, then the reconstructions of each adapter by increasing bits."""
    dataset = open_dataset("samples", TOKBENCH, SIZE)
    reader = dataset.batches(len(dataset))
    images = next(iter(reader))
    photos = [place for place, name in enumerate(images.names) if "page" not in name][::3][:COUNT]
    chosen = type(images)(images.index[photos], [images.names[p] for p in photos], images.reference[photos])
    rows: list[tuple[float, str, torch.Tensor]] = []
    for name in trainable_adapters(root):
        try:
            adapter = load_adapter(name, root=root)
        except TokbenchError:  # classifiers, and adapters that are not trained
            continue
        if isinstance(adapter.model, Generator):
            continue
        batch = reconstruct(adapter.model, chosen, plain_step(adapter.model), RunSettings("cpu", COUNT), DerivedCache())
        assert batch.tokens is not None
        bits = float(batch.tokens.bits.mean())
        rows.append((bits, f"{name}\n{bits:,.0f} bits", batch.rounded("image")))
    rows.sort(key=lambda row: row[:2])
    labelled_rows([("original", chosen.reference), *(row[1:] for row in rows)]).save(target, quality=90, method=6)


def labelled_rows(rows: Sequence[tuple[str, torch.Tensor]]) -> Image.Image:
    """Draw rows of images (N, 3, H, W) in [0, 1] with a label each."""
    side = SIZE * SCALE
    canvas = Image.new("RGB", (LABEL + COUNT * (side + 4), len(rows) * (side + 4)), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for number, (label, images) in enumerate(rows):
        top = number * (side + 4)
        pen.text((8, top + side // 2 - 18), label, fill="black", font=font)
        for place, pixels in enumerate(to_uint8(images).permute(0, 2, 3, 1).numpy()):
            picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(picture, (LABEL + place * (side + 4), top))
    return canvas


def rates(root: Path, target: Path) -> None:
    """Plot PSNR and LPIPS over bits per image, for all results on the validation images of Tiny ImageNet."""
    pyplot = plotting()
    tables = groups(read_all(root / "results"))
    rows = [one for name, table in tables.items() if name.startswith("tiny-imagenet.n2000-") for one in table]
    floors = {one.adapter.partition(".")[0] for one in rows if one.provenance["adapter"].get(FLOOR)}
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for axis, number, title in zip(axes, ("psnr", "lpips"), ("PSNR, dB ↑", "LPIPS ↓"), strict=True):
        found = curves(rows, number)
        learned = [label for label in found if label not in CODECS and label not in floors]
        for label, points in found.items():
            points = sorted(points)
            codec = label in CODECS
            place = learned.index(label) if label in learned else 0
            color = "grey" if codec else "black" if label in floors else f"C{place % 10}"
            axis.plot(
                [bits for bits, _ in points], [value for _, value in points], label=label, markersize=4, linewidth=1,
                marker="x" if codec else "+" if label in floors else "osD^v"[place // 10], color=color,
                linestyle=_STYLES.get(label, "-"),
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_xlabel("bits per image of 64x64 px")
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=7, fontsize=8, frameon=False)
    figure.savefig(target, metadata={"Date": None})


def plotting() -> Any:
    """Return pyplot, configured to write reproducible SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {
        "svg.hashsalt": "tokbench",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
    }
    from matplotlib import pyplot

    return pyplot


def pruning(root: Path, target: Path) -> None:
    """Plot top-1 over measured speed-up and over the reduction of FLOPs.

    A third panel shows the speed-up at the smallest batch size over the reduction of FLOPs. For
    an undertrained network, the agreement with the full network is shown instead of top-1.
    """
    tables = reduced_groups(load_all(root / "results"))
    # Only times of one device and network are comparable, so the table with the most rows is drawn.
    found = max(tables.values(), key=lambda members: sum(len(one.rows) for one in members), default=[])
    timed = [{pace.batch for pace in row.pace} for one in found for row in one.rows.values()]
    if not timed or not (batches := set.intersection(*timed)):
        return
    pyplot, large, small = plotting(), max(batches), min(batches)
    short = any(one.about["short"] for one in found)
    number, named = "agreement" if short else "top1", shared(found)
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 5), layout="constrained")
    for place, one in enumerate(found):
        rows = [row for _, row in sorted(one.rows.items(), reverse=True)]
        fewer = [row.whole_gflops / row.gflops for row in rows]
        accuracy = [100 * getattr(row, number).value for row in rows]
        # The family name of the benchmarked network is omitted from labels.
        label = named.get(one.about["method"], one.about["title"]).replace(
            f"{one.about['model'].partition('.')[0]}.", ""
        )
        style = {"label": label, "color": f"C{place % 10}", "linewidth": 1, "markersize": 4}
        style |= {"marker": "os^v"[place // 10], "linestyle": "-" if one.about["training"] == "none" else "--"}
        faster, slow = _speedups(rows, large), _speedups(rows, small)
        for axis, across, up, speedups in (
            (axes[0], [pace.value for pace in faster], accuracy, faster),
            (axes[1], fewer, accuracy, []),
            (axes[2], fewer, [pace.value for pace in slow], slow),
        ):
            axis.plot(across, up, **style)
            none = [(x, y) for x, y, pace in zip(across, up, speedups, strict=False) if not pace.measured]
            axis.scatter(*zip(*none, strict=True), s=70, facecolors="none", edgecolors="grey") if none else None
    axes[0].axvline(1, color="grey", linewidth=0.8)
    axes[2].axline((1, 1), slope=1, color="grey", linewidth=0.8)
    axes[2].axhline(1, color="grey", linewidth=0.8)
    axes[0].set_xlabel(f"measured speed-up at batch size {large} (circled: none measured)")
    for axis in axes[1:]:
        axis.set_xlabel("reduction of FLOPs (factor)")
    for axis in axes[:2]:
        axis.set_ylabel("agreement with the full network, %" if short else "top-1, %")
    axes[2].set_ylabel(f"measured speed-up at batch size {small} (slanted line: as FLOPs)")
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    figure.savefig(target, metadata={"Date": None})


def _speedups(rows: Sequence[ClassifierRow], batch: int) -> list[Speedup]:
    """Return the speed-ups of rows at one batch size."""
    return [next(pace for pace in row.pace if pace.batch == batch).speedup for row in rows]


def curves(rows: Sequence[Result], number: str) -> dict[str, list[tuple[float, float]]]:
    """Return the points (bits, value) of each line.

    Codecs are lines over qualities, floors lines over the variants of a family, and tokenizers lines over truncation
    lengths.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        bits, value = (row.metrics.get(key, {}).get("value") for key in ("bits_per_image", number))
        family = row.adapter.partition(".")[0]
        if bits is None or value is None or family in ("identity", "toy") or row.task == "perturb":
            continue
        joined = family in (*CODECS, "resize") or row.provenance["adapter"].get(FLOOR)
        found.setdefault(family if joined else row.adapter, []).append((bits, value))
    return found


def draw(root: Path, names: Sequence[str] = ()) -> list[Path]:
    """Draw all figures, or the named ones, into `root`/docs; equal results give identical files."""
    written = []
    for name in names or PICTURES:
        plot, file = PICTURES[name]
        plot(root, root / "docs" / file)
        written.append(root / "docs" / file)
    return written


PICTURES: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "sheet": (sheet, "zoo-sheet.webp"),
    "rates": (rates, "zoo-rates.svg"),
    "pruning": (pruning, "pruning.svg"),
}
