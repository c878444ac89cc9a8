"""Warnings of a result: reasons to doubt its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from tokbench.io.counts import count_of
from tokbench.validate import Count

_Filled = Annotated[str, Meta(min_length=1)]


@dataclass(frozen=True)
class ResultWarning:
    """One warning of a result. It does not change the values of metrics.

    kind: one word. A result has at most one warning of each kind; that of a later run replaces that of an earlier one.
    text: the problem, without the adapter's name, as in "4 of 40 images are ...". count, of: number of images that are
    affected, and of all images; None if the warning does not concern single images.
    """

    kind: _Filled
    text: _Filled
    count: Count | None = None
    of: Count | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        counts = {"count": self.count, "of": self.of}
        return {"kind": self.kind, "text": self.text} | {key: n for key, n in counts.items() if n is not None}


FEW = 20
"""A value that was computed from fewer images has a warning."""


def few_images(
    count: int, metrics: Mapping[str, Mapping[str, Any]], references: int | None = None, noun: str = "image"
) -> ResultWarning | None:
    """Return a warning about values from few images, or None.

    If there are few images, it concerns all metrics, else those that are defined for few images. Bins of words and
    faces are excluded, because tables show their sizes. references: number of images that samples are compared with;
    None if each image has its own reference. noun: one item.
    """
    parts = []
    if count < FEW:
        what = f"a single {noun} has no interval" if count == 1 else "intervals are wide and distances mean little"
        parts.append(f"from {count_of(count, noun)}: {what}")
    else:
        counts = {name: one["n"] for name, one in metrics.items() if "." not in name and 0 < one.get("n", count) < FEW}
        parts += [f"{name} is from {count_of(n, noun)} of {count:,}" for name, n in counts.items()]
    if references is not None and references < FEW:
        parts.append(f"compared with {count_of(references, f'reference {noun}')}")
    return ResultWarning("few_images", "; ".join(parts), min(count, references or count), None) if parts else None


def merged(
    earlier: Sequence[ResultWarning], later: Sequence[ResultWarning], few: ResultWarning | None
) -> list[ResultWarning]:
    """Return the warnings of two runs that are merged into one result; of each kind, the warning of the later run.

    few: the result of `few_images` for the merged metrics. It replaces the warnings of this kind.
    """
    kept = {one.kind: one for one in (*earlier, *later) if one.kind != "few_images"}
    return [*kept.values(), *([few] if few else [])]
