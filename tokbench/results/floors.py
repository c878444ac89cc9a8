"""Floors: what a method without training, such as k-means of patches, reaches with at most the bits of a tokenizer.

An adapter is a floor if its TOML says `floor = true`; its results record this. The floor of a row is the floor adapter
with the highest PSNR on the same images, among those of its kind, discrete or continuous, with at most the row's bits
per image. Kinds are not mixed, because the bits of a continuous tokenizer are those of its number format (float16), not
of what it needs: almost any code would be its floor. The distance of a row is the difference between the point
estimates of both rows; their intervals are not used, since both rows are means over the same images, and the question
is only on which side of the floor a row lies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tokbench.metric_names import kind_of_task
from tokbench.results.result import Result, settings

FLOOR = "floor"
"""The key in a TOML file, and in the adapter's facts in a result, that declares an adapter to be a floor."""
FLOOR_NOTE = (
    "Floor: the method without training that has the highest PSNR on the same images with at most the row's bits per "
    "image, discrete for discrete tokenizers and continuous for continuous ones; - where there is none."
)
"""The explanation of the columns of floors below a table."""

_ROUNDING = 1e-6
"""Relative tolerance when bits are compared, since results store ten digits."""
_TOKENIZERS = ("discrete", "continuous")


@dataclass(frozen=True)
class FloorDistance:
    """The distance of a row from its floor.

    floor: the name of the floor. psnr: PSNR minus that of the floor, in dB. lpips: LPIPS minus that of the floor, None
    where one of both has no LPIPS or where they were computed with different networks.
    """

    floor: str
    psnr: float
    lpips: float | None

    @property
    def below(self) -> bool:
        """Whether the row is worse than its floor in PSNR and in LPIPS. A missing LPIPS or an equal value is not
        worse."""
        return self.psnr < 0 and self.lpips is not None and self.lpips > 0

    def cells(self) -> tuple[str, str, str]:
        """Return the name and both differences as texts for tables."""
        return self.floor, f"{self.psnr:+.2f}", "-" if self.lpips is None else f"{self.lpips:+.4f}"


class Floors:
    """The floors among some results, and the distances of other results from them."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._floors: dict[tuple[str, str, str], list[Result]] = {}
        self._whole: dict[tuple[object, ...], Result] = {}
        for result in results:
            if result.task != "reconstruct":
                continue
            if _is_floor(result):
                self._floors.setdefault(_images(result), []).append(result)
            known = self._whole.setdefault(_setup(result, result.adapter), result)
            if result.num_images > known.num_images:
                self._whole[_setup(result, result.adapter)] = result

    def distance(self, result: Result) -> FloorDistance | None:
        """Return the distance of a trained tokenizer's row, with all or with the first tokens, from its floor.

        It is None for codecs, for floors themselves, for other tasks, for rows without bits or a finite PSNR, and where
        no floor of its kind on the same images has at most the row's bits.
        """
        bits, psnr = _value(result, "bits_per_image"), _value(result, "psnr")
        trained = result.provenance["adapter"]["kind"] in _TOKENIZERS and not _is_floor(result)
        if not trained or kind_of_task(result.task) not in ("reconstruct", "truncate") or bits is None or psnr is None:
            return None
        best: tuple[float, float, str] | None = None
        for floor in self._floors.get(_images(result), ()):
            if floor.provenance["adapter"]["kind"] != result.provenance["adapter"]["kind"]:
                continue
            own_bits, own_psnr = _value(floor, "bits_per_image"), _value(floor, "psnr")
            if own_bits is None or own_psnr is None or own_bits > bits * (1 + _ROUNDING):
                continue
            if best is None or (-own_psnr, own_bits, floor.adapter) < best:
                best, chosen = (-own_psnr, own_bits, floor.adapter), floor
        return None if best is None else FloorDistance(chosen.adapter, psnr + best[0], _lpips_gap(result, chosen))

    def standing(self, result: Result) -> FloorDistance | None:
        """Return the distance that decides whether a comparison with this row has a verdict.

        It is the row's own distance. A row without one, such as one with perturbed tokens or with samples of a
        generator, has that of the reconstructions of its tokenizer on the same dataset with the same protocol and image
        size; if there are several, of those of the most images.
        """
        if own := self.distance(result):
            return own
        tokenizer = str(result.provenance["adapter"].get("tokenizer", result.adapter))
        whole = self._whole.get(_setup(result, tokenizer))
        return None if whole is None else self.distance(whole)


def _is_floor(result: Result) -> bool:
    return bool(result.provenance["adapter"].get(FLOOR))


def _images(result: Result) -> tuple[str, str, str]:
    """Return the key of the images that a result is about: rows with equal keys can be compared."""
    return result.dataset, result.provenance["data"]["sha256"], _input(result)


def _input(result: Result) -> str:
    """Return the key of the protocol and of the restorer of degraded images, if there is one."""
    restorer = result.provenance.get("restore", {}).get("name", "")
    return f"{result.provenance['protocol']['sha256']}{restorer}"


def _setup(result: Result, tokenizer: str) -> tuple[object, ...]:
    """Return the key of a tokenizer's reconstructions, whatever the number of images."""
    data = result.provenance["data"]
    return tokenizer, result.dataset, _input(result), data["width"], data["height"]


def _value(result: Result, number: str) -> float | None:
    value = result.metrics.get(number, {}).get("value")
    return None if value is None else float(value)


def _lpips_gap(result: Result, floor: Result) -> float | None:
    ours, theirs = _value(result, "lpips"), _value(floor, "lpips")
    if ours is None or theirs is None or settings(result, "lpips") != settings(floor, "lpips"):
        return None
    return ours - theirs
