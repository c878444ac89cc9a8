"""What a result says of the code and weights of its adapter: whether it is well formed, and what two of them say
differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_UNKNOWN = ("modules", "packages")
"""What results of earlier versions do not say of their adapter."""

_NAMED = (*_UNKNOWN, "files")
"""What is compared by name."""

_ASIDE = ("source", "fitted", "unused_tensors", "weights_in_part")
"""What is said of an adapter and makes no other one of it: the hashes of code and parameters do."""


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What two results say differently of an adapter."""
    if not any(key in before for key in _UNKNOWN):
        now = {key: value for key, value in now.items() if key not in _UNKNOWN}
    found = []
    for key in sorted((before.keys() | now.keys()) - set(_ASIDE)):
        one, other = before.get(key), now.get(key)
        if one == other:
            continue
        if key in _NAMED:
            one, other = one or {}, other or {}
            unlike = [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
            shown = {name: f" {one.get(name, 'absent')} -> {other.get(name, 'absent')}" for name in unlike}
            found += [f"{key[:-1]} {name}{shown[name] if key == 'packages' else ''}" for name in unlike]
        else:
            short = not isinstance(one, dict | list) and not isinstance(other, dict | list) and "sha256" not in key
            found.append(f"{key} {one} -> {other}" if short and key != "fingerprint" else key)
    return found


def check_adapter(told: dict[str, Any], must: Callable[[bool, str, str, Any], None]) -> None:
    """Call `must` with whether each of these facts is of the right type, its name, what it must be, and its value."""
    for key in _NAMED:
        named = told.get(key, {})
        texts = isinstance(named, dict) and all(isinstance(text, str) for text in named.values())
        must(texts, f"provenance.adapter.{key}", "an object of texts", named)
    for key in ("config_sha256", "other_parameters_sha256"):
        must(isinstance(told.get(key, ""), str), f"provenance.adapter.{key}", "a text", told.get(key))
    unused = told.get("unused_tensors", {})
    counts = isinstance(unused, dict) and all(map(_is_count, unused.values()))
    must(counts, "provenance.adapter.unused_tensors", "an object of counts", unused)
    part = told.get("weights_in_part", {"missing": 0, "unexpected": 0, "first": []})
    whole = (
        isinstance(part, dict)
        and _is_count(part.get("missing"))
        and _is_count(part.get("unexpected"))
        and isinstance(part.get("first"), list)
        and all(isinstance(name, str) for name in part["first"])
    )
    must(whole, "provenance.adapter.weights_in_part", "two counts and names", part)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
