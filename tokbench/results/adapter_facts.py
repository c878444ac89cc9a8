"""Differences between two results in the code and weights of their adapters."""

from __future__ import annotations

from typing import Any

_UNKNOWN = ("modules", "packages")
"""Keys that results of earlier versions do not contain."""

_NAMED = (*_UNKNOWN, "files")
"""Keys whose values are objects that are compared name by name."""

_IGNORED = ("source", "fitted", "unused_tensors", "weights_in_part", "taxonomy")
"""Keys that do not identify an adapter, because the hashes of its code and parameters do."""


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return descriptions of the differences between the adapter entries of two results."""
    if not any(key in before for key in _UNKNOWN):
        now = {key: value for key, value in now.items() if key not in _UNKNOWN}
    changes = []
    for key in sorted((before.keys() | now.keys()) - set(_IGNORED)):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if key in _NAMED:
            old, new = old or {}, new or {}
            for name in sorted(old.keys() | new.keys()):
                if old.get(name) != new.get(name):
                    versions = f" {old.get(name, 'absent')} -> {new.get(name, 'absent')}" if key == "packages" else ""
                    changes.append(f"{key[:-1]} {name}{versions}")
        else:
            short = not isinstance(old, dict | list) and not isinstance(new, dict | list) and "sha256" not in key
            changes.append(f"{key} {old} -> {new}" if short and key != "fingerprint" else key)
    return changes
