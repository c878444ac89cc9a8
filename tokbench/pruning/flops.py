"""Floating-point operations of a transformer from its token counts; a multiply-add counts as two."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.pruning.vit import Sizes

FORMULA = (
    "2 (4 n D^2 + 2 n^2 D) for the attention and 2 (2 m D h) for the MLP of each block, n and m the tokens that enter "
    "them, h its hidden width; 2 P v D for P patches of v values, 2 D C for C classes. Norms, softmax, activations and "
    "what chooses tokens are not counted"
)

Counts = Sequence[tuple[int, int]]
"""For each block, the numbers of tokens, including the prefix, that enter its attention and its MLP."""


def flops(sizes: Sizes, counts: Counts) -> int:
    """Return the FLOPs of one image, by FORMULA."""
    width = sizes.width
    blocks = sum(2 * (4 * n * width**2 + 2 * n**2 * width) + 2 * (2 * m * width * sizes.hidden) for n, m in counts)
    return blocks + 2 * sizes.patches * sizes.patch_values * width + 2 * width * sizes.classes


def dense(sizes: Sizes) -> list[tuple[int, int]]:
    """Return the counts of a transformer that keeps all tokens."""
    return [(sizes.prefix + sizes.patches,) * 2] * sizes.depth


def counts_of(sizes: Sizes, kept: Sequence[int], after: bool = False) -> list[tuple[int, int]]:
    """Return the counts for the patch tokens left by each block, reduced between attention and MLP or `after` both."""
    counts, entering = [], sizes.patches
    for leaving in kept:
        counts.append((sizes.prefix + entering, sizes.prefix + (entering if after else leaving)))
        entering = leaving
    return counts
