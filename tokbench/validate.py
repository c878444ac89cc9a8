"""Checks parsed JSON and TOML against dataclasses with msgspec. Errors name the file and the field."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

T = TypeVar("T")

LARGEST = 1e300
"""The largest magnitude of a number in a file. Sums of such numbers stay finite."""

Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
"""A finite number."""

Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]

Positive = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]


class PlainName(str):
    """Text that can be part of a file name."""

    @staticmethod
    def holds(value: object) -> bool:
        """Return whether a value is printable text of at most 200 bytes that contains no path separator."""
        if not isinstance(value, str) or value in ("", ".", "..") or len(value.encode(errors="replace")) > 200:
            return False
        return value.isprintable() and "/" not in value and "\\" not in value


def convert(value: Any, kind: type[T], where: str, error: type[Exception], hint: str = "") -> T:
    """Convert parsed JSON or TOML to an instance of a dataclass, with strict types: text is never read as a number.

    where: the file, for messages. hint: the remedy, which is appended to the message. Raises `error` with the file, the
    field, the expected type and the value.
    """
    try:
        return msgspec.convert(value, kind, dec_hook=_decode)
    except msgspec.ValidationError as fault:
        raise error(f"{where}{_explain(str(fault), value, kind)}{hint}") from fault
    except RecursionError as fault:
        raise error(f"{where}: the content is nested too deeply{hint}") from fault
    except UnicodeEncodeError as fault:  # a lone surrogate where msgspec expects anything but text
        raise error(f"{where}: the content has text that is not valid Unicode{hint}") from fault


def unknown_keys(value: object, kind: type) -> list[str]:
    """Return the sorted keys of an object that are not fields of a dataclass."""
    return sorted(set(value) - set(kind.__dataclass_fields__)) if isinstance(value, dict) else []  # type: ignore[attr-defined]


def shown(value: object) -> str:
    """Return a value as text of at most 80 characters, for messages."""
    return _SHORT.repr(value)[:80]


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlist = _SHORT.maxdict = 8

_WORDS = {
    "int": "an integer", "float": "a number", "str": "text", "bool": "true or false", "object": "an object",
    "array": "a list", "null": "null",
}  # fmt: skip

_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_EXPECTED = re.compile(r"Expected `([^`]+)`( (?:>=|<=|of length)[^,]*)?")
_MISSING = re.compile(r"Object missing required field `(.+)`")


def _decode(kind: type, value: object) -> object:
    if kind is PlainName:
        if not PlainName.holds(value):
            raise ValueError("must be a plain file name")
        return PlainName(value)
    raise TypeError(f"no decoder for fields of type {kind}")


def _explain(text: str, value: Any, kind: type) -> str:
    """Return msgspec's message in plain words, beginning with the field."""
    fault, _, path = text.rstrip("`").partition(" - at `$")
    steps = _steps(text, path, value, kind)
    field, found = _name(steps), value
    for step in steps:
        found = found[step]
    if missing := _MISSING.match(fault):
        return f": {f'{field}.' if field else ''}{missing[1]} is missing"
    before = f": {field or 'the content'}"
    if expected := _EXPECTED.match(fault):
        words = " or ".join(_WORDS.get(part, part) for part in expected[1].split(" | "))
        fault = f"must be {words}{expected[2] or ''}"
    elif fault.endswith("out of range"):
        fault = f"must be a number between {-LARGEST:g} and {LARGEST:g}"
    elif fault.startswith("Invalid enum value"):
        fault = f"must be one of {', '.join(map(str, _choices(_hint(kind, steps))))}"
    elif not fault.startswith("must be"):
        return f"{before if field else ''}: {fault}"  # the message of a __post_init__
    return f"{before} {fault}, but it is {shown(found)}"


def _steps(text: str, path: str, value: Any, kind: type) -> list[str | int]:
    """Return the keys and indices that lead to the fault.

    msgspec writes `[...]` for any key of a dict. This finds the first key that gives the same message on its own.
    """
    steps: list[str | int] = []
    place = value
    for name, index in _STEP.findall(path):
        step: str | int = name or index
        if index == "...":
            step = next(key for key in place if _fault(_only(value, steps, {key: place[key]}), kind) == text)
        elif index:
            step = int(index)
        steps.append(step)
        place = place[step]
    return steps


def _only(value: Any, steps: list[str | int], part: Any) -> Any:
    """Return a copy of `value` in which the part at `steps` is replaced by `part`."""
    if not steps:
        return part
    copy = value.copy()
    copy[steps[0]] = _only(value[steps[0]], steps[1:], part)
    return copy


def _fault(value: Any, kind: type) -> str:
    try:
        msgspec.convert(value, kind, dec_hook=_decode)
    except msgspec.ValidationError as fault:
        return str(fault)
    except UnicodeEncodeError:  # in a field behind the one in question
        return ""
    return ""


def _name(steps: list[str | int]) -> str:
    text = ""
    for step in steps:
        if isinstance(step, str) and re.fullmatch(r"[\w-]{1,80}", step):
            text += f".{step}" if text else step
        else:
            text += f"[{shown(step)}]"
    return text


def _hint(kind: Any, steps: list[str | int]) -> Any:
    """Return the annotation of a field, also within nested dataclasses."""
    for step in steps:
        kind = next((part for part in (kind, *get_args(kind)) if is_dataclass(part)), None)
        kind = get_type_hints(kind)[step] if kind and isinstance(step, str) else None
    return kind


def _choices(hint: Any) -> Iterator[Any]:
    for inner in get_args(hint):
        if get_origin(hint) is Literal:
            yield inner
        else:
            yield from _choices(inner)
