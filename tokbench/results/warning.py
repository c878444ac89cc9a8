"""Warnings of a result: what a reader must know before trusting its numbers, counted where it concerns images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from tokbench.validate import Count

_Filled = Annotated[str, Meta(min_length=1)]


@dataclass(frozen=True)
class ResultWarning:
    """One warning of a result. The numbers stay as they are; this says why they may not mean what they seem to.

    kind: one word; a result has one warning of a kind, and that of a later run replaces that of an earlier one. text:
    what is wrong, without the adapter's name, as in "4 of 40 images are ...". count, of: how many images it concerns,
    of how many; None where it does not concern single images.
    """

    kind: _Filled
    text: _Filled
    count: Count | None = None
    of: Count | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        counts = {"count": self.count, "of": self.of}
        return {"kind": self.kind, "text": self.text} | {key: n for key, n in counts.items() if n is not None}


FEW = 20
"""Images below which a warning says how few they are."""


def few_images(
    count: int, metrics: Mapping[str, Mapping[str, Any]], references: int | None = None
) -> ResultWarning | None:
    """A warning of numbers from few images: of all where there are few, else of those that have a value for few.

    references: how many images samples are compared with; None where each image belongs to one. None where nothing is
    from few images. Bins of words or faces say in the table how many they hold.
    """
    said = []
    if count < FEW:
        what = "a single image has no interval" if count == 1 else "intervals are wide and distances mean little"
        said.append(f"from {count} image{'s' * (count != 1)}: {what}")
    else:
        own = {name: one["n"] for name, one in metrics.items() if "." not in name and 0 < one.get("n", count) < FEW}
        said += [f"{name} is from {n} image{'s' * (n != 1)} of {count:,}" for name, n in own.items()]
    if references is not None and references < FEW:
        said.append(f"compared with {references} reference image{'s' * (references != 1)}")
    return ResultWarning("few_images", "; ".join(said), min(count, references or count), None) if said else None


def joined(
    earlier: Sequence[ResultWarning], later: Sequence[ResultWarning], few: ResultWarning | None
) -> list[ResultWarning]:
    """Those of two runs that are filed as one result: of each kind that of the later run, where both have one.

    few: what `few_images` says of the numbers of both.
    """
    kept = {one.kind: one for one in (*earlier, *later) if one.kind != "few_images"}
    return [*kept.values(), *([few] if few else [])]
