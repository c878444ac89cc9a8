"""A strict JSON parser for untrusted files."""

from __future__ import annotations

import json
from typing import Any


def loads_strict(text: str | bytes, nan: bool = False) -> Any:
    """Return the parsed JSON value.

    Raises ValueError for invalid JSON, for an object with a repeated key, for nesting that exceeds the recursion limit
    and, unless `nan` is true, for NaN and infinities.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=None if nan else _refuse_constant)
    except RecursionError as error:
        raise ValueError("its nesting is too deep") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key!r:.80} is repeated")
        result[key] = value
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
