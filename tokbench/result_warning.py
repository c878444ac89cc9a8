"""Warnings of a result: what a reader must know before trusting its numbers, counted where it concerns images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ResultWarning:
    """One warning of a result. The numbers stay as they are; this says why they may not mean what they seem to.

    kind: one word; a result has one warning of a kind, and that of a later run replaces that of an earlier one. text:
    what is wrong, without the adapter's name, as in "4 of 40 images are ...". count, of: how many images it concerns,
    of how many; None where it does not concern single images.
    """

    kind: str
    text: str
    count: int | None = None
    of: int | None = None

    def facts(self) -> dict[str, Any]:
        """The JSON object."""
        counts = {"count": self.count, "of": self.of}
        return {"kind": self.kind, "text": self.text} | {key: n for key, n in counts.items() if n is not None}


def read(entries: Sequence[dict[str, Any]]) -> list[ResultWarning]:
    """The warnings of a result's JSON, already checked."""
    return [ResultWarning(one["kind"], one["text"], one.get("count"), one.get("of")) for one in entries]


def check(entries: Any, must: Callable[[bool, str, str, Any], None]) -> None:
    """Calls `must(holds, field, what it must be, value)` for everything that the warnings of a result must be."""
    must(isinstance(entries, list), "'warnings'", "a list", entries)
    for one in entries:
        texts = isinstance(one, dict) and all(isinstance(one.get(key), str) and one[key] for key in ("kind", "text"))
        must(texts, "an entry of 'warnings'", "an object with kind and text", one)
        for key in ("count", "of"):
            n = one.get(key)
            count = n is None or (isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 63)
            must(count, f"warning '{one['kind']}': {key}", "a count", n)


def joined(earlier: Sequence[ResultWarning], later: Sequence[ResultWarning]) -> list[ResultWarning]:
    """Those of two runs that are filed as one result: of each kind that of the later run, where both have one."""
    return list({one.kind: one for one in (*earlier, *later)}.values())
