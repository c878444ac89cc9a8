"""Base class of token-reduction methods: a plan of token counts, and a function that selects or merges tokens."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from tokbench.errors import UsageError
from tokbench.pruning.flops import Counts, counts_of, dense, flops
from tokbench.pruning.vit import Attended, Kernel, Sizes, Vit, attend, identity, recognise
from tokbench.timing import timed

Training = Literal["none", "rates", "weights"]
"""What a method trains: nothing, only the token counts of the blocks, or the network's weights."""


def stages(depth: int) -> tuple[int, ...]:
    """Return the blocks that reduce tokens, at a quarter, half and three quarters of the depth.

    For twelve blocks these are the fourth, seventh and tenth, as in EViT.
    """
    return tuple(sorted({depth // 4, depth // 2, 3 * depth // 4}))


def staged(sizes: Sizes, keep: float, extra: int = 0) -> list[int]:
    """Return the patch tokens left by each block if every stage keeps ceil(`keep` n) of n tokens and adds `extra`."""
    left, kept = sizes.patches, []
    for block in range(sizes.depth):
        if block in stages(sizes.depth) and (fewer := math.ceil(keep * left)) < left:
            left = min(fewer + extra, left)
        kept.append(left)
    return kept


def budget(sizes: Sizes, keep: float) -> int:
    """Return the FLOPs that `keep` stands for: those of three stages that each keep this share of tokens.

    Methods that reduce tokens in other blocks are planned to match this cost, so that all methods with the same `keep`
    have about the same FLOPs.
    """
    return flops(sizes, counts_of(sizes, staged(sizes, keep)))


def nearest(sizes: Sizes, keep: float, plans: Sequence[Sequence[int]]) -> list[int]:
    """Return the plan whose FLOPs are closest to the budget of `keep`; ties go to the plan with more tokens."""
    target = budget(sizes, keep)
    gaps = [(abs(flops(sizes, counts_of(sizes, plan)) - target), -sum(plan), place) for place, plan in enumerate(plans)]
    return list(plans[min(gaps)[2]])


@dataclass
class PruningState:
    """The state of a reduced transformer inside its `with` block.

    kept: patch tokens that each block should leave. counts: tokens that entered attention and MLP of each block in the
    last pass. sizes: number of patches that each token represents, (B, N) including the prefix; None while all are 1.
    seeds: one number per image for methods that sample; None uses the position in the batch. selector_seconds: time
    spent on selecting and merging tokens in the last pass if `timing` is set (which synchronizes the device, so it is
    off when complete passes are timed).
    """

    vit: Vit
    kernel: Kernel
    kept: list[int]
    counts: list[tuple[int, int]] = field(default_factory=list)
    sizes: Tensor | None = None
    seeds: Tensor | None = None
    timing: bool = False
    selector_seconds: float = 0.0
    memory: dict[str, Any] = field(default_factory=dict)
    """Data that a method passes from block to block."""

    @property
    def prefix(self) -> int:
        return self.vit.sizes.prefix

    @property
    def planned(self) -> Counts:
        return self.counts or dense(self.vit.sizes)

    def begin(self) -> None:
        """Reset the state before a forward pass."""
        self.counts, self.sizes, self.selector_seconds, self.memory = [], None, 0.0, {}

    def seeds_of(self, tokens: Tensor) -> Tensor:
        """Return the seeds, int64 (B,). Raises UsageError if `seeds` has a different number of images."""
        if self.seeds is None:
            return torch.arange(len(tokens), device=tokens.device)
        if len(self.seeds) != len(tokens):
            raise UsageError(f"got {len(self.seeds)} seeds for {len(tokens)} images; set them for each batch")
        return self.seeds.to(tokens.device)

    def sizes_of(self, tokens: Tensor) -> Tensor:
        """Return the number of patches that each token represents, (B, N)."""
        return tokens.new_ones(tokens.shape[:2]) if self.sizes is None else self.sizes


class Pruner(ABC):
    """A token-reduction method.

    title, source: its name in tables and its paper. training: what is trained. needs_cls: whether it uses the attention
    of the CLS token. proportional: whether the log of a token's size is added to the attention logits (ToMe). after:
    whether tokens are reduced after a block instead of between its attention and its MLP. rounds: whether token counts
    may be rounded. least: minimum number of patch tokens.
    """

    title: ClassVar[str]
    source: ClassVar[str]
    training: ClassVar[Training] = "none"
    needs_cls: ClassVar[bool] = False
    proportional: ClassVar[bool] = False
    after: ClassVar[bool] = False
    rounds: ClassVar[bool] = True
    least: ClassVar[int] = 1

    def plan(self, sizes: Sizes, keep: float) -> list[int]:
        """Return the patch tokens left by each block, for `keep` in (0, 1)."""
        return staged(sizes, keep)

    @abstractmethod
    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        """Reduce tokens (B, P + n, D) to (B, P + count, D) without changing the first P.

        A method that merges tokens also sets `run.sizes`, (B, P + count).
        """

    def flops(self, sizes: Sizes, counts: Counts) -> int:
        """Return the FLOPs of layers that the method adds, for recorded token counts, without selecting tokens."""
        return 0

    @contextmanager
    def applied_to(
        self, model: nn.Module, keep: float, *, kernel: Kernel = "sdpa", round_to: int = 1
    ) -> Iterator[PruningState]:
        """Make `model` reduce its tokens inside the `with` block; it is restored afterwards, also after an exception.

        keep: in (0, 1]; at 1 nothing is reduced. round_to: token counts, including the prefix, are rounded up to a
        multiple of it, as far as the method allows (ToMe removes at most half of the tokens). Raises UsageError for an
        unsupported model, a missing CLS token, or a keep that is out of range or leaves too few tokens.
        """
        vit = recognise(model)
        run = PruningState(vit, kernel, self.checked_plan(vit, keep, round_to))
        if any("forward" in vars(block) for block in vit.blocks):
            raise UsageError(f"{type(model).__name__} is already reduced by another 'with' block")
        try:
            for place, block in enumerate(vit.blocks):
                block.forward = partial(self._block, run, place, block)
            yield run
        finally:
            for block in vit.blocks:
                vars(block).pop("forward", None)

    def checked_plan(self, vit: Vit, keep: float, round_to: int = 1) -> list[int]:
        """Return the plan, rounded to multiples of `round_to`. Raises UsageError as `applied_to` does."""
        sizes = vit.sizes
        if not 0 < keep <= 1:
            raise UsageError(f"keep must lie in (0, 1], but is {keep:g}")
        if round_to < 1:
            raise UsageError(f"round_to must be at least 1, but is {round_to}")
        if round_to > 1 and not self.rounds:
            raise UsageError(f"{self.title} is trained for fixed token counts, which cannot be rounded")
        if self.needs_cls and not sizes.cls:
            raise UsageError(
                f"{self.title} needs the attention of a CLS token, and {type(vit.model).__name__} has none; "
                "use a method that works without it (tome, divprune, topk_attention, random, strided)"
            )
        if keep == 1:
            return [sizes.patches] * sizes.depth
        kept, before = [], sizes.patches
        for place, count in enumerate(self.plan(sizes, keep)):
            whole = -(-(count + sizes.prefix) // round_to) * round_to - sizes.prefix
            if min(count, whole) < self.least:
                raise UsageError(
                    f"keep {keep:g} leaves {count} of {sizes.patches} tokens after block {place}, but {self.title} "
                    f"needs {self.least}; use a larger keep"
                )
            before = min(whole, before)
            kept.append(before)
        return kept

    def _block(
        self,
        run: PruningState,
        place: int,
        block: Any,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """The forward pass of a timm block, with the reduction of tokens."""
        if attn_mask is not None or is_causal:
            raise UsageError("attention masks cannot be combined with token reduction")
        if place == 0:
            run.begin()
        attending = x.shape[1]
        bias = run.sizes.log()[:, None, None].to(x.dtype) if self.proportional and run.sizes is not None else None
        update, seen = attend(block.attn, block.norm1(x), run.kernel, bias)
        x = x + identity(block, "drop_path1", identity(block, "ls1", update))
        if not self.after:
            x = self._reduced(run, place, x, seen)
        entering = x.shape[1]
        x = x + identity(block, "drop_path2", identity(block, "ls2", block.mlp(block.norm2(x))))
        if self.after:
            x = self._reduced(run, place, x, seen)
        run.counts.append((attending, entering))
        return x

    def _reduced(self, run: PruningState, place: int, x: Tensor, seen: Attended) -> Tensor:
        """Reduce the tokens of one block to its planned count, and time this if requested."""
        count = run.kept[place]
        if count >= x.shape[1] - run.prefix:
            return x
        reduce: Callable[[], Tensor] = partial(self.reduce, x, seen, count, run)
        if not run.timing:
            return reduce()
        reduced, seconds = timed(reduce, str(x.device))
        run.selector_seconds += seconds
        return reduced


def pick(tokens: Tensor, chosen: Tensor, prefix: int) -> Tensor:
    """Return the first `prefix` tokens of (B, N, D) and those at `chosen` (B, k), which is counted after the prefix."""
    places = (chosen + prefix)[..., None].expand(-1, -1, tokens.shape[2])
    return torch.cat([tokens[:, :prefix], tokens.gather(1, places)], 1)


def best(scores: Tensor, count: int) -> Tensor:
    """Return the sorted indices (B, count) of the `count` highest scores (B, n); ties go to the lower index."""
    return scores.argsort(dim=1, descending=True, stable=True)[:, :count].sort(1).values
