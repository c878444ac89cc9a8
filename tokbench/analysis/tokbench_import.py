"""Import of result files written by TokBench's own evaluator: reading, recomputation of scores, and tables.

The files are `output/<set>.json` of eval_text.py and eval_face.py (github.com/wjf5203/TokBench). They contain
`{method: {setting: {"details": {image: {"results": [...]}}}}}`, where each result is a word
`{gt, pred, ratio, accuracy, ned}` (`ned` is 1 - NED) or a face `{ratio, similarity}`. Sets are pooled as in
compute_all_metrics.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tokbench.errors import ResultError
from tokbench.io.json import loads_strict
from tokbench.metrics.text_scores import exact, similarity
from tokbench.results.markdown import table
from tokbench.stats.binned import FACE_BINS, TEXT_BINS, BinnedMean, binned, mean_of_bins

MAX_FILE = 1 << 28
"""Maximum bytes of one file: 256 MiB, about two million words."""

MAX_WORD = 1000
"""Maximum characters of one word. Recognizers output about 30; an edit distance costs the product of both lengths."""

RELEASES = {"words": {"both releases": TEXT_BINS}, "faces": FACE_BINS}
"""Bins by kind and release."""

TITLES = {"t_acc": "T-ACC", "t_ned": "T-NED", "f_sim": "F-Sim"}


@dataclass
class Pooled:
    """One method at one setting (the side that images were scaled to), over all files.

    ratio, images and scores are lists over words or faces: size ratios, image numbers, and scores by name, recomputed
    from the texts. mismatches: number of words whose stored scores differ from the recomputed ones; first: the location
    of the first one. sets: file by set name.
    """

    method: str
    setting: str
    kind: str
    ratio: list[float] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    sets: dict[str, Path] = field(default_factory=dict)
    mismatches: int = 0
    first: str = ""


@dataclass(frozen=True)
class Row:
    """One score of one method in the bins of a release, and the mean over the bins."""

    pooled: Pooled
    release: str
    score: str
    bins: tuple[BinnedMean, ...]
    mean: BinnedMean


def read(paths: Sequence[Path]) -> list[Pooled]:
    """Read all files and pool them; words first, then by setting and method. Raises ResultError with file and field."""
    found: dict[tuple[str, str, str], Pooled] = {}
    for path in paths:
        facts = _load(path)
        for method in _object(facts, path):
            for name in _object(facts, path, method):
                for text in (method, name):
                    if not text.isprintable() or not 0 < len(text) <= 200:
                        _fail(path, (method, name), "named in 1 to 200 printable characters", text)
                _pool(found, facts, path, method, name)
    if not found:
        raise ResultError(f"{', '.join(map(str, paths))}: no methods found")
    return sorted(found.values(), key=lambda one: (one.kind == "faces", one.setting.zfill(9), one.method))


def _pool(found: dict[tuple[str, str, str], Pooled], facts: Any, path: Path, method: str, name: str) -> None:
    """Add one method at one setting of one file to the pooled data in `found`."""
    pooled: Pooled | None = None
    setting, first = name.split("_")[-1], 0  # compute_all_metrics.py also reads `ic13_256` as 256
    for number, image in enumerate(_object(facts, path, method, name, "details")):
        results = _object(facts, path, method, name, "details", image).get("results")
        if not isinstance(results, list):
            _fail(path, (method, name, image, "results"), "a list", results)
        for position, one in enumerate(results):
            where = (method, name, image, f"results[{position}]")
            if not isinstance(one, dict):
                _fail(path, where, "an object", one)
            kind = "faces" if "similarity" in one else "words"
            if pooled is None:
                pooled = found.setdefault((kind, setting, method), Pooled(method, setting, kind))
                if other := pooled.sets.get(path.stem):
                    raise ResultError(f"{path}: '{method}' at {setting} on '{path.stem}' is already in {other}")
                pooled.sets[path.stem], first = path, max(pooled.images, default=-1) + 1
            elif kind != pooled.kind:
                _fail(path, where, f"one of the {pooled.kind}, like the entries before it", one)
            pooled.ratio.append(_number(one, "ratio", 0, 1e6, path, where))
            pooled.images.append(first + number)
            if kind == "faces":
                cosine = _number(one, "similarity", -1.00001, 1.00001, path, where)  # tolerates float32 rounding
                pooled.scores.setdefault("f_sim", []).append(cosine)
            else:
                _word(pooled, one, path, where)
    if pooled is None:
        raise ResultError(f"{path}: {method}/{name} contains no words or faces")


def _word(pooled: Pooled, one: dict[str, Any], path: Path, where: tuple[str, ...]) -> None:
    """Add the recomputed scores of one word, and count a mismatch with the stored ones."""
    for key in ("gt", "pred"):
        if not isinstance(one.get(key), str) or len(one[key]) > MAX_WORD:
            _fail(path, (*where, key), f"a string of at most {MAX_WORD:,} characters", one.get(key))
    recomputed = {"t_acc": float(exact(one["gt"], one["pred"])), "t_ned": similarity(one["gt"], one["pred"])}
    stored = [_number(one, key, 0, 1, path, where) for key in ("accuracy", "ned")]
    for name, value in recomputed.items():
        pooled.scores.setdefault(name, []).append(value)
    if any(abs(before - value) > 1e-6 for before, value in zip(stored, recomputed.values(), strict=True)):
        pooled.mismatches += 1
        pooled.first = pooled.first or f"{path}: {'/'.join(where)[:200]!r}"


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise ValueError(f"over the limit of {MAX_FILE:,} bytes")
        return loads_strict(data, nan=True)  # NaN is rejected later, with the name of its field
    except (OSError, ValueError) as error:  # ValueError: JSON, Unicode, integers of thousands of digits
        raise ResultError(f"{path} is not a readable result file of TokBench ({str(error)[:200]})") from error


def _object(facts: Any, path: Path, *keys: str) -> dict[str, Any]:
    """Return the object under these keys. Raises ResultError if it is not an object."""
    for depth in range(len(keys) + 1):
        if not isinstance(facts, dict):
            _fail(path, keys[:depth], "an object", facts)
        if depth < len(keys):
            facts = facts.get(keys[depth])
    return facts


def _number(one: dict[str, Any], key: str, low: float, high: float, path: Path, where: tuple[str, ...]) -> float:
    value = one.get(key)
    if not isinstance(value, int | float) or not low <= value <= high:
        _fail(path, (*where, key), f"a number from {low:.0f} to {high:,.0f}", value)
    return float(value)


def _fail(path: Path, where: Sequence[str], expected: str, value: Any) -> NoReturn:
    name = repr("/".join(where)[:200]) if where else "its content"
    raise ResultError(f"{path}: {name} must be {expected}, but is {value!r:.80}")


def rows(found: Sequence[Pooled], seed: int = 0) -> list[Row]:
    """Return every score in the bins of every release. Raises ResultError if no setting has bins."""
    table_rows = []
    for one in found:
        for release, by_side in RELEASES[one.kind].items():
            bins = {str(side): three for side, three in by_side.items()}.get(one.setting, ())
            for score, values in one.scores.items() if bins else ():
                given = np.array(values), np.array(one.ratio), bins, seed, np.array(one.images)
                table_rows.append(Row(one, release, score, tuple(binned(*given)), mean_of_bins(*given)))
    if not table_rows:
        names = ", ".join(sorted({one.setting for one in found}))
        raise ResultError(
            f"TokBench has bins for settings {', '.join(map(str, TEXT_BINS))}; these files contain {names}"
        )
    return table_rows


def markdown(found: Sequence[Pooled], table_rows: Sequence[Row]) -> str:
    """Return Markdown tables per kind, setting and release, in percent with two decimals, followed by notes."""
    parts: dict[tuple[str, str, str], dict[str, list[Row]]] = {}
    for row in table_rows:
        part = parts.setdefault((row.pooled.kind, row.pooled.setting, row.release), {})
        part.setdefault(row.pooled.method, []).append(row)
    text = "Reported by TokBench's own evaluator, not measured here. Values in %; n per bin, from small to large.\n"
    for (kind, setting, release), methods in parts.items():
        head, body = ["method", "sets", "n"], []
        for row in next(iter(methods.values())):
            names = [*(f"[{one.bin.low:g}, {one.bin.high:g})" for one in row.bins), "mean"]
            head += [f"{TITLES[row.score]} {name} ↑" for name in names]
        for method, scores in methods.items():
            counts = " / ".join(f"{one.n:,}" for one in scores[0].bins)
            means = [one.mean for row in scores for one in (*row.bins, row.mean)]
            cells = ["-" if math.isnan(mean) else f"{mean:.2%}".removesuffix("%") for mean in means]
            body.append([method, str(len(scores[0].pooled.sets)), counts, *cells])
        text += f"\n## {kind.capitalize()} at {setting} (bins of {release})\n\n{table(head, body)}"
    notes = _notes(found, table_rows)
    return "\n".join([text, *notes, ""]) if notes else text


def _notes(found: Sequence[Pooled], table_rows: Sequence[Row]) -> list[str]:
    """Return notes on score mismatches, settings without bins, and methods with missing sets."""
    notes = []
    if words := [one for one in found if one.kind == "words"]:
        bad, count = sum(one.mismatches for one in words), sum(len(one.ratio) for one in words)
        where = next((f"; the first: {one.first}" for one in words if one.first), "")
        notes.append(f"{bad:,} of {count:,} words have stored scores that differ from the recomputed ones{where}.")
    for one in found:
        if all(row.pooled is not one for row in table_rows):
            notes.append(f"Not shown: '{one.method}' at {one.setting}, for which TokBench has no bins.")
        beside = (other.sets for other in found if (other.kind, other.setting) == (one.kind, one.setting))
        if lacking := set().union(*beside) - one.sets.keys():
            notes.append(f"Not comparable: '{one.method}' at {one.setting} lacks {', '.join(sorted(lacking))}.")
    return notes


def records(table_rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one record per method, setting, release, score and bin; values in [0, 1], 95 % intervals over images."""
    return [
        {
            "status": "reported", "method": row.pooled.method, "setting": row.pooled.setting,
            "sets": " ".join(sorted(row.pooled.sets)), "release": row.release, "score": row.score, "bin": one.bin.name,
            "ratio_from": one.bin.low, "ratio_to": one.bin.high, "n": one.n, "images": one.groups,
            "value": one.mean, "low": one.low, "high": one.high,
        }
        for row in table_rows
        for one in (*row.bins, row.mean)
    ]  # fmt: skip
