"""Slots: the stream of N samples of each generator, beside reference images that they are not paired with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from tokbench.dataset import Dataset
from tokbench.errors import UsageError
from tokbench.halves import pairs
from tokbench.protocol import Protocol
from tokbench.stream import Bound, Images, ImageStream, Seen, Share, StreamSummary, everything, spans


@dataclass
class Slots(ImageStream):
    """N positions, each of which gets one sample.

    reference: the images whose distribution is compared with that of the samples, or None where a statistics file
    replaces them; then `name` is that of the file and `key` its hash. After a pass `shape` is that of the samples.
    """

    name: str
    protocol: Protocol
    count: int
    reference: Dataset | None = None
    shape: tuple[int, int] | None = None
    seen: Seen = field(default_factory=Seen, repr=False)
    key: str = ""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UsageError("--limit must be at least 1")

    def __len__(self) -> int:
        return self.count

    @property
    def names(self) -> list[str]:
        return [_name(position) for position in range(self.count)]

    @property
    def side(self) -> int | None:
        return self.reference.size if self.reference is not None else None

    @property
    def unpaired(self) -> Dataset | None:
        return self.reference

    def batches(self, batch_size: int, share: Share = everything) -> Turns:
        """All positions, `batch_size` at a time; `share` chooses among the spans."""
        return Turns(self, spans(self.count, batch_size, share))

    def bind(self, model: Bound) -> None:
        """Samples are of no image, so there is nothing to tell a model."""

    def refuse_empty(self) -> None:
        """References are read before the samples are drawn, and refused then."""

    def summary(self) -> StreamSummary:
        """Of the samples' number, and of the references that were read."""
        if self.reference is None:
            return StreamSummary(self.key, self.count, pairs=pairs(self.count), limited=self.count)
        read = self.reference.summary()
        available = len(self.reference)
        return StreamSummary(
            read.sha256,
            self.count,
            references=read.count,
            pairs=pairs(max(self.count, available)),
            available=available,
            limited=self.count if self.count != available else None,
            own_size=read.own_size,
            enlarged=read.enlarged,
            left_out=read.left_out,
            bad=read.bad,
        )


class Turns:
    """Spans of positions, one after the other."""

    def __init__(self, slots: Slots, spans: Sequence[range]) -> None:
        self._slots, self._spans = slots, spans
        self.total, self.done = sum(len(span) for span in spans), 0

    def __iter__(self) -> Iterator[Images]:
        for span in self._spans:
            self.done += len(span)
            names = [_name(position) for position in span]
            yield Images(torch.tensor(list(span)), names, digests=names, shape=self._slots.shape)

    def ahead(self) -> None:
        """There is nothing to decode before its time."""


def _name(position: int) -> str:
    return f"{position:08d}"
