"""What a result file must hold: a damaged one, or one made to harm, is refused with the field that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokbench.errors import ResultError
from tokbench.results import warning
from tokbench.results.adapter_facts import check_adapter

RUN = ("seed", "precision", "device")
"""What else of a run is the same for all numbers of one result."""

FIELDS: dict[str, type] = {
    "adapter": str,
    "dataset": str,
    "task": str,
    "num_images": int,
    "metrics": dict,
    "skipped": dict,
    "bad_images": list,
    "provenance": dict,
}

LARGEST = 1e300
"""No number is larger; sums of such numbers stay finite."""

_DEEPEST = 20
"""Levels of a result's JSON, several times what there are."""


def check(facts: Any, path: Path) -> None:
    """Raises ResultError where a JSON object is not a result: a field missing or of the wrong type."""
    if not isinstance(facts, dict):
        raise ResultError(f"{path} does not hold one JSON object")
    _check_leaves(facts, path)

    def must(holds: bool, field: str, be: str, value: Any) -> None:
        if not holds:
            raise ResultError(f"{path}: {field} must be {be}, it is {value!r:.80}")

    for name, kind in FIELDS.items():
        must(isinstance(facts.get(name), kind), f"'{name}'", f"a {kind.__name__}", facts.get(name))
    must(isinstance(facts.get("error"), str | None), "'error'", "text", facts.get("error"))
    for name in ("adapter", "dataset", "task"):
        must(_is_name(facts[name]), f"'{name}'", "a plain file name", facts[name])
    must(_is_count(facts["num_images"]), "'num_images'", "a count", facts["num_images"])
    for number, entry in facts["metrics"].items():
        value = entry.get("value", "") if isinstance(entry, dict) else ""
        if not (value is None or _is_number(value)):
            raise ResultError(f"{path}: metric '{number}' must hold a number or null as its value")
        low, high = entry.get("low"), entry.get("high")
        ends = (low is None and high is None) or (_is_number(low) and _is_number(high))
        must(ends, f"metric '{number}': low and high", "two numbers or null", [low, high])
        must(_is_count(entry.get("n", 0)), f"metric '{number}': n", "a count", entry.get("n"))
    for name, reason in facts["skipped"].items():
        must(isinstance(reason, str), f"skipped '{name}'", "text", reason)
    for bad in facts["bad_images"]:
        texts = isinstance(bad, dict) and isinstance(bad.get("name"), str) and isinstance(bad.get("reason"), str)
        must(texts, "an entry of 'bad_images'", "an object with name and reason", bad)
    warning.check(facts.get("warnings", []), must)
    _check_provenance(facts["provenance"], path, must)


def _check_provenance(told: dict[str, Any], path: Path, must: Callable[[bool, str, str, Any], None]) -> None:
    if absent := [key for key in (*RUN, "metrics") if key not in told]:
        raise ResultError(f"{path}: provenance must hold {', '.join(absent)}")
    must(_is_whole(told["seed"]), "provenance.seed", "an integer", told["seed"])
    for part, keys in _PARTS.items():
        if part in ("reference", "versions") and part not in told:
            continue  # not every result has them
        if not isinstance(told.get(part), dict) or not all(key in told[part] for key in keys):
            raise ResultError(f"{path}: provenance.{part} must hold {', '.join(keys)}")
        for key, (holds, be) in keys.items():
            must(holds(told[part][key]), f"provenance.{part}.{key}", be, told[part][key])
    for key, (holds, be) in _REFERENCE.items():
        value = told.get("reference", {}).get(key)
        must(value is None or holds(value), f"provenance.reference.{key}", be, value)
    compared = told["protocol"].get("reference", "")
    must(isinstance(compared, str), "provenance.protocol.reference", "text", compared)
    for key in ("precision", "device"):
        must(isinstance(told[key], str), f"provenance.{key}", "text", told[key])
    must(isinstance(told["metrics"], dict), "provenance.metrics", "an object", told["metrics"])
    for number, ways in told["metrics"].items():
        texts = isinstance(ways, dict) and all(isinstance(text, str) for text in ways.values())
        must(texts, f"provenance.metrics.{number}", "an object of texts", ways)
    check_adapter(told["adapter"], must)
    source = told["adapter"].get("source", "")
    must(isinstance(source, str), "provenance.adapter.source", "text", source)
    published = told["protocol"].get("published", {})
    counts = isinstance(published, dict) and all(map(_is_count, published.values()))
    must(counts, "provenance.protocol.published", "an object of counts", published)
    available = told["data"].get("available", 0 if not published.get("num_images") else None)
    must(_is_count(available), "provenance.data.available", "a count", available)
    left = told["data"].get("left_out", {})
    counts = isinstance(left, dict) and all(map(_is_count, left.values()))
    must(counts, "provenance.data.left_out", "an object of counts", left)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def _is_name(value: Any) -> bool:
    """Whether it can be a part of a file's name: results are filed under what they say of themselves."""
    plain = isinstance(value, str) and value not in ("", ".", "..") and len(value.encode(errors="replace")) <= 200
    return plain and value.isprintable() and "/" not in value and "\\" not in value


def _check_leaves(facts: dict[str, Any], path: Path) -> None:
    """What holds of every part, known or not, since all is written again: shallow, finite, Unicode."""
    waiting: list[tuple[Any, int]] = [(facts, 0)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, dict | list):
            if depth > _DEEPEST:
                raise ResultError(f"{path} is nested deeper than {_DEEPEST} levels")
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            waiting += [(part, depth + 1) for part in parts]
        elif isinstance(value, float) and not abs(value) <= LARGEST:
            raise ResultError(f"{path} holds a number that is not finite")
        elif isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise ResultError(f"{path} holds text that is not Unicode: {value!a:.80}")


_Test = tuple[Callable[[Any], bool], str]
_TEXT: _Test = (lambda value: isinstance(value, str), "text")
_NAME: _Test = (_is_name, "a plain name")
_SIDE: _Test = (lambda value: _is_count(value) and value > 0, "a positive integer")
_MAYBE: _Test = (lambda value: value is None or _is_count(value), "a count or null")
_PARTS: dict[str, dict[str, _Test]] = {
    "data": {"sha256": _NAME, "width": _SIDE, "height": _SIDE, "own_size": _MAYBE, "limit": _MAYBE},
    "protocol": {"name": _NAME, "sha256": _NAME},
    "adapter": {"kind": _TEXT},
    "reference": {"file": _TEXT, "sha256": _NAME},
    "versions": {},
}
"""What provenance must hold. Hashes are parts of file names, too."""

_TEXTS: _Test = (lambda value: isinstance(value, list) and all(isinstance(text, str) for text in value), "texts")
_REFERENCE: dict[str, _Test] = {
    "count": (_is_count, "a count"), "width": _SIDE, "height": _SIDE, "dataset": _TEXT, "protocol": _TEXT,
    "original": (lambda value: isinstance(value, bool), "true or false"), "stated": _TEXTS, "mismatch": _TEXTS,
}  # fmt: skip
"""What provenance may say of a statistics file; null, or not there, is not known."""
