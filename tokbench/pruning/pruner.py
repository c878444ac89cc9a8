"""What every token-reduction method is: a plan of how many tokens stay, and a way to choose or blend them."""

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
from tokbench.pruning.flops import Counts, dense, flops, of_kept
from tokbench.pruning.vit import Attended, Kernel, Sizes, Vit, attend, identity, recognise
from tokbench.timing import timed

Training = Literal["none", "rates", "weights"]
"""What of a method is trained: nothing, only how many tokens each block keeps, or the network's weights."""


def stages(depth: int) -> tuple[int, ...]:
    """The blocks in which tokens go: the fourth, seventh and tenth of twelve (EViT), at a quarter, half and three
    quarters of any depth."""
    return tuple(sorted({depth // 4, depth // 2, 3 * depth // 4}))


def staged(sizes: Sizes, keep: float, extra: int = 0) -> list[int]:
    """Patch tokens that each block leaves where every stage keeps ceil(`keep` n) of its n and adds `extra` ones."""
    left, kept = sizes.patches, []
    for block in range(sizes.depth):
        if block in stages(sizes.depth) and (fewer := math.ceil(keep * left)) < left:
            left = min(fewer + extra, left)
        kept.append(left)
    return kept


def budget(sizes: Sizes, keep: float) -> int:
    """FLOPs that stand for `keep`: those of three stages that keep so much each. Methods with other places for their
    cuts are planned to come as near to it as they can, so that one `keep` is one cost for all."""
    return flops(sizes, of_kept(sizes, staged(sizes, keep)))


def nearest(sizes: Sizes, keep: float, plans: Sequence[Sequence[int]]) -> list[int]:
    """Of several plans the one whose FLOPs are nearest to those that stand for `keep`; the larger of two equals."""
    aim = budget(sizes, keep)
    gaps = [(abs(flops(sizes, of_kept(sizes, plan)) - aim), -sum(plan), place) for place, plan in enumerate(plans)]
    return list(plans[min(gaps)[2]])


@dataclass
class PruningState:
    """One reduced transformer while its `with` block lasts.

    kept: patch tokens that each block is to leave. counts: tokens that entered attention and MLP of each block in the
    last pass, as recorded. sizes: how many patches each token stands for, (B, N) with the prefix, None while each is
    one. seeds: one number an image, for methods that draw; None: its place in the batch. selector_seconds: spent on
    choosing and blending in the last pass, where `timing` is on (it synchronises, so it is off when a whole is timed).
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
    """What a method carries from block to block."""

    @property
    def prefix(self) -> int:
        return self.vit.sizes.prefix

    @property
    def planned(self) -> Counts:
        return self.counts or dense(self.vit.sizes)

    def begin(self) -> None:
        self.counts, self.sizes, self.selector_seconds, self.memory = [], None, 0.0, {}

    def seeds_of(self, tokens: Tensor) -> Tensor:
        """int64 (B,). Raises UsageError where `seeds` is for another number of images."""
        if self.seeds is None:
            return torch.arange(len(tokens), device=tokens.device)
        if len(self.seeds) != len(tokens):
            raise UsageError(f"there are {len(self.seeds)} seeds for {len(tokens)} images; set them for each batch")
        return self.seeds.to(tokens.device)

    def sizes_of(self, tokens: Tensor) -> Tensor:
        """How many patches each token stands for, (B, N)."""
        return tokens.new_ones(tokens.shape[:2]) if self.sizes is None else self.sizes


class Pruner(ABC):
    """A token-reduction method.

    title, source: its name in tables and its paper. training: what of it is trained. needs_cls: whether it looks at
    what the CLS token attends to. proportional: whether attention adds the log of a token's size to its logits (ToMe).
    after: whether tokens go after a block, not between its attention and its MLP. rounds: whether its counts can be
    other than trained. least: patch tokens that it needs.
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
        """Patch tokens that each block leaves. `keep` in (0, 1)."""
        return staged(sizes, keep)

    @abstractmethod
    def reduce(self, tokens: Tensor, seen: Attended, count: int, run: PruningState) -> Tensor:
        """Tokens (B, P + n, D), their first P not to be touched, to (B, P + count, D).

        A method that blends tokens sets `run.sizes`, (B, P + count), too.
        """

    def flops(self, sizes: Sizes, counts: Counts) -> int:
        """Operations of layers that it adds to the network, for token counts as recorded; choosing is not counted."""
        return 0

    @contextmanager
    def applied_to(
        self, model: nn.Module, keep: float, *, kernel: Kernel = "sdpa", round_to: int = 1
    ) -> Iterator[PruningState]:
        """Inside the `with` block `model` reduces its tokens; after it, also after an exception, it is as before.

        keep: in (0, 1]; at 1 nothing is reduced. round_to: counts of tokens, prefix included, are rounded up to a
        multiple of it, where a method can leave so many (ToMe takes at most half away). Raises UsageError for a model
        that is not recognised or has no CLS token where one is needed, and for a keep out of range or that leaves too
        few tokens.
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
        """The plan in whole multiples. Raises UsageError as `applied_to` does."""
        sizes = vit.sizes
        if not 0 < keep <= 1:
            raise UsageError(f"keep must lie in (0, 1], it is {keep:g}")
        if round_to < 1:
            raise UsageError(f"round_to must be at least 1, it is {round_to}")
        if round_to > 1 and not self.rounds:
            raise UsageError(f"{self.title} leaves as many tokens as it was trained for; they are not rounded")
        if self.needs_cls and not sizes.cls:
            raise UsageError(
                f"{self.title} looks at the CLS token's attention and {type(vit.model).__name__} has no CLS token; "
                "take a method that does without (tome, divprune, topk_attention, random, strided)"
            )
        if keep == 1:
            return [sizes.patches] * sizes.depth
        kept, before = [], sizes.patches
        for place, count in enumerate(self.plan(sizes, keep)):
            whole = -(-(count + sizes.prefix) // round_to) * round_to - sizes.prefix
            if min(count, whole) < self.least:
                raise UsageError(
                    f"keep {keep:g} leaves {count} of {sizes.patches} tokens after block {place}; {self.title} needs "
                    f"{self.least}: keep more"
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
        """A block of timm's, operation by operation, and the reduction in it."""
        if attn_mask is not None or is_causal:
            raise UsageError("attention masks and token reduction do not go together")
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
    """The first `prefix` tokens of (B, N, D) and those at `chosen` (B, k), which counts from behind the prefix."""
    places = (chosen + prefix)[..., None].expand(-1, -1, tokens.shape[2])
    return torch.cat([tokens[:, :prefix], tokens.gather(1, places)], 1)


def best(scores: Tensor, count: int) -> Tensor:
    """Places of the `count` highest of scores (B, n), in the order of the tokens, (B, count); of equals the first."""
    return scores.argsort(dim=1, descending=True, stable=True)[:, :count].sort(1).values
