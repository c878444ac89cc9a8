"""Batch: what travels from dataset to metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from tokbench.errors import MissingField
from tokbench.tokens import Tokens

if TYPE_CHECKING:
    from tokbench.readers.network import Network


@dataclass(frozen=True)
class Timing:
    """Seconds that one batch spent in encode and in decode, and the MiB that both needed (None: not measured)."""

    encode: float
    decode: float
    peak_mib: float | None = None


@dataclass
class Batch:
    """B images and what a tokenizer made of them.

    index: int64 (B,), positions in the dataset. reference, image: float32 (B, 3, H, W) in [0, 1], both on the 8-bit
    grid k/255, on the CPU. A field that a task does not produce is None, and `need` says so to the metric that asks.

    Features of frozen networks are computed once and kept: those of `reference` in `reference_memo`, which all
    adapters that see these images share, those of `image` in `image_memo`.
    """

    index: Tensor
    reference: Tensor | None = None
    image: Tensor | None = None
    tokens: Tokens | None = None
    timing: Timing | None = None
    reference_memo: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    image_memo: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    def need(self, name: Literal["reference", "image", "tokens", "timing"]) -> Any:
        """The field of that name. Raises MissingField where this stream does not carry it."""
        value = getattr(self, name)
        if value is None:
            raise MissingField(f"needs '{name}', which this adapter and task do not produce")
        return value

    def features(self, network: Network, side: Literal["reference", "image"]) -> dict[str, Tensor]:
        """A network's features (B, ...) of one side's images, by layer; one forward pass serves all metrics."""
        memo = self.reference_memo if side == "reference" else self.image_memo
        if network.name not in memo:
            memo[network.name] = network(self.need(side))
        return memo[network.name]
