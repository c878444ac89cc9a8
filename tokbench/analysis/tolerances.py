"""What a number may move by without having changed, and how users set that for themselves."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokbench.errors import UsageError
from tokbench.metric_names import base_metric, is_single_cell
from tokbench.metrics.annotated import CURVE
from tokbench.results.metric_specs import METRICS, metric_of
from tokbench.stats.naming import INFINITY

SETTINGS = "tokbench.toml"


@dataclass(frozen=True)
class Tolerance:
    """Differences up to `absolute` or up to `relative` times the committed value are none."""

    absolute: float = 0.0
    relative: float = 0.0

    def holds(self, gap: float, value: float) -> bool:
        """Whether a gap is within it; a gap of NaN is not."""
        return abs(gap) <= max(self.absolute, self.relative * abs(value))


_CLOSE = {"f_sim": 1e-4, "f_distance": 3e-4}
"""Of numbers of faces that are no shares, by how their names begin."""


def _marked() -> Iterator[tuple[str, Tolerance]]:
    """Of words and faces: counts are exact, similarities those of float32 networks. Where a network hesitates between
    two readings, rounding decides, so that of shares one word in 500 may move. Between two CPUs none of 796 words did;
    face distances of a network moved by 3e-5, similarities by 7e-6."""
    for entry in METRICS.values():
        for number in entry.numbers if entry.reader else ():
            if CURVE in number:
                continue
            if number.removesuffix(entry.suffix) in ("words", "words_filtered", "faces"):
                yield number, Tolerance()
            else:
                close = (value for name, value in _CLOSE.items() if number.startswith(name))
                yield number, Tolerance(absolute=next(close, 2e-3))


# What another CPU, thread count or minor library version may move a number by. Float32 networks agree to about 1e-6
# relative, and means over images moved by 3e-7 dB and 2e-7 from one CPU to another. A distance between near sets is a
# small difference of large traces, and some pixels of a decoder round to another level: FD-EfficientNet of 108 images
# moved by 5e-5 of itself from one CPU to another, by 3e-7 from one thread to two, and by nothing for codecs.
TOLERANCES: dict[str, Tolerance] = {
    "psnr": Tolerance(absolute=1e-3),
    "exact": Tolerance(),
    "ssim": Tolerance(absolute=1e-5),
    "ms_ssim": Tolerance(absolute=1e-5),
    "lpips": Tolerance(absolute=1e-5),
    "lpips_vgg": Tolerance(absolute=1e-5),
    **{name: Tolerance(absolute=1e-5, relative=5e-4) for name, entry in METRICS.items() if "frechet" in entry.path},
    "kid": Tolerance(absolute=2e-6),
    "kid_768": Tolerance(absolute=2e-6),
    "inception_score": Tolerance(relative=1e-4),
    "codebook_usage": Tolerance(absolute=1e-4),
    "perplexity": Tolerance(relative=1e-3),
    "codebook_entropy": Tolerance(absolute=1e-3),
    # One code in some thousands may fall on the other side of a boundary, and a pair of codes be merged sooner.
    "order0_bits_per_image": Tolerance(relative=1e-3),
    "bpe_bits_per_image": Tolerance(relative=5e-3),
    "bpe_tokens_per_image": Tolerance(relative=5e-3),
    "order0_model_bytes": Tolerance(relative=1e-2),
    "bpe_model_bytes": Tolerance(relative=1e-2),
    # Shares: so much is one sample in some hundreds.
    **{
        number: Tolerance(absolute=2e-3)
        for entry in METRICS.values()
        if entry.path.startswith("precision_recall")
        for number in entry.numbers
    },
    "tokens_per_image": Tolerance(),
    "bits_per_image": Tolerance(relative=1e-4),
    "bpp": Tolerance(relative=1e-4),
    "compression_ratio": Tolerance(relative=1e-4),
    **dict(_marked()),
}


def tolerance_of(number: str, tolerances: Mapping[str, Tolerance] = TOLERANCES) -> Tolerance | None:
    """That of the number itself where there is one, else of `rfid` for `rfid_infinity` and `pfid`, of `codebook_usage`
    for `codebook_usage.sem`; None for others."""
    base = number.partition(".")[0]
    names = (base, base.removesuffix(INFINITY), base_metric(number) or base)
    return next((tolerances[name] for name in names if name in tolerances), None)


def is_part(number: str) -> bool:
    """Whether it is one cell of a grid, or one bin of words' or faces' sizes: the mean over those is a number, too."""
    metric = number.partition(".")[0]
    return is_single_cell(number) or (
        "." in number and any(metric in entry.numbers for entry in METRICS.values() if entry.reader)
    )


def read_tolerances(path: Path | None) -> dict[str, Tolerance]:
    """The default tolerances, changed as `[check.tolerance]` of a tokbench.toml says: `psnr = 0.01`, `rfid = "1%"`.

    A number that is judged by another one's tolerance (`pfid`, `rfid_infinity`) may have its own. Raises UsageError for
    an unknown number, a value that is neither, or a table that would be passed over.
    """
    if path is None:
        return TOLERANCES
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: TOML, UTF-8
        raise UsageError(f"{path} cannot be read ({error})") from error
    asked = _section(path, told)
    for number in sorted(asked):
        if not _settable(number):
            near = difflib.get_close_matches(number, TOLERANCES, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ", as in psnr or rfid"
            raise UsageError(f"{path}: tokbench check compares no number '{number}'{hint}")
    return TOLERANCES | {number: _tolerance(path, number, value) for number, value in asked.items()}


def _section(path: Path, told: dict[str, Any]) -> dict[str, Any]:
    """The table of tolerances. Raises UsageError for a table or key elsewhere that would be passed over."""
    known = "tolerances are set in one table, [check.tolerance], as in psnr = 0.01"
    section = told.get("check", {})
    stray = [f"[{name}]" if isinstance(value, dict) else name for name, value in told.items() if _stray(name, value)]
    if isinstance(section, dict):
        stray += [f"[check] {name}" for name in section if name != "tolerance"]
    if stray:
        raise UsageError(f"{path}: there is no {', '.join(stray)}; {known}")
    asked = section.get("tolerance", {}) if isinstance(section, dict) else None
    if not isinstance(asked, dict):
        raise UsageError(f"{path}: {known}")
    return asked


def _stray(name: str, value: Any) -> bool:
    """Whether a key outside any table is none that could be another tool's: a table, or a number's name. (The file of a
    TorchScript folder has the same name, and keys without a table.)"""
    return name != "check" and (isinstance(value, dict) or _settable(name))


def _settable(number: str) -> bool:
    """Whether a check judges a number of that name, so that a tolerance for it has an effect."""
    metric = metric_of(number)
    if metric is None or "." in number:
        return False
    extrapolated = number.endswith(INFINITY)
    return tolerance_of(number) is not None and (not extrapolated or "frechet" in METRICS[metric].path)


def _tolerance(path: Path, number: str, value: Any) -> Tolerance:
    try:
        if isinstance(value, bool):  # Python counts true as 1
            raise TypeError("a truth value")
        if isinstance(value, str) and value.endswith("%"):
            made = Tolerance(relative=float(value[:-1]) / 100)
        else:
            made = Tolerance(absolute=float(value))
    except (TypeError, ValueError) as error:
        raise UsageError(f'{path}: {number} = {value!r}; give a number, or a share such as "1%"') from error
    if not (0 <= made.absolute < math.inf and 0 <= made.relative < math.inf):
        raise UsageError(f"{path}: {number} = {value!r}; a tolerance is not negative")
    return made
