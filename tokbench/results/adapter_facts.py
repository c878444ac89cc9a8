"""Differences between two results in the code and weights of their adapters."""

from __future__ import annotations

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
