"""Quality, time and memory of adapters against the size of the images, from results of one dataset at several sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokbench.results.result import Result

QUALITY = ("bpp", "psnr", "ssim", "ms_ssim", "lpips")
"""The numbers that are shown beside time and memory, where they were measured."""

_SPEEDS = {"encode_images_per_second": "encode_ms", "decode_images_per_second": "decode_ms"}


@dataclass(frozen=True)
class AtSize:
    """One adapter at one size.

    width, height: of the images in pixels. numbers: QUALITY by name. encode_ms, decode_ms: milliseconds per megapixel.
    peak_mib: peak memory of a batch in MiB. None where a number was not measured.
    """

    row: str
    width: int
    height: int
    num_images: int
    numbers: dict[str, float | None]
    encode_ms: float | None
    decode_ms: float | None
    peak_mib: float | None


def at_sizes(results: Sequence[Result], dataset: str, protocol: str = "tokbench") -> list[AtSize]:
    """Return the reconstructions of one dataset at all sizes, for adapters with at least two, by adapter and size.

    All sizes of an adapter have the same number of images: the one with most sizes, and of several, the largest.
    Results of degraded images are left out. protocol: the name of the protocol of the results.
    """
    found: dict[str, dict[int, dict[tuple[int, int], Result]]] = {}
    for result in results:
        data, rules = result.provenance["data"], result.provenance["protocol"]
        wanted = result.dataset == dataset and result.task == "reconstruct" and rules["name"] == protocol
        if wanted and "width" in data and "degrade" not in rules:
            sizes = found.setdefault(result.row, {}).setdefault(result.num_images, {})
            sizes[data["width"], data["height"]] = result
    return [
        _at_size(result, width, height)
        for _, counts in sorted(found.items())
        for sizes in [max(counts.items(), key=lambda item: (len(item[1]), item[0]))[1]]
        if len(sizes) > 1
        for (width, height), result in sorted(sizes.items())
    ]


def _at_size(result: Result, width: int, height: int) -> AtSize:
    def value(name: str) -> float | None:
        return result.metrics.get(name, {}).get("value")

    megapixels = width * height / 1e6
    times = {name: 1000 / speed / megapixels if (speed := value(number)) else None for number, name in _SPEEDS.items()}
    quality = {name: value(name) for name in QUALITY}
    return AtSize(result.row, width, height, result.num_images, quality, peak_mib=value("peak_memory_mib"), **times)
