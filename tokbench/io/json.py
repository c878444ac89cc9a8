"""JSON from strangers, read without what would hide a fault."""

from __future__ import annotations

import json
from typing import Any


def loads_strict(text: str | bytes, nan: bool = False) -> Any:
    """What the JSON holds. Raises ValueError for anything that is none, for a key that comes twice in one object, for
    nesting too deep to read and, unless `nan`, for NaN and infinities."""
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=None if nan else _refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {key!r:.80} comes twice")
        made[key] = value
    return made


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
