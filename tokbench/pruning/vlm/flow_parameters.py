"""Parameters of VFlowOpt, and the budget that they must meet."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FlowParameters:
    """Parameters for one keep.

    first: share of visual tokens that enter the decoder. second, third: shares of the tokens before that remain after
    one third and two thirds of the layers. threshold: tokens that receive more attention than this times the mean
    determine the relevance of the others. cell: side of the cells of recycled tokens, in tokens. entropy: weight of
    the entropy of a patch.
    """

    first: float
    second: float
    third: float
    threshold: float = 1.0
    cell: float = 8.0
    entropy: float = 0.0


def thirds(depth: int) -> tuple[int, int]:
    """Return the layers before which tokens are removed: 9 and 18 of 28 in the paper."""
    return round(depth * 9 / 28), round(depth * 18 / 28)


def third_share(depth: int, keep: float, first: float, second: float) -> float:
    """Return the third share with which the layers have `keep` of all visual tokens on average."""
    early, late = thirds(depth)
    return (keep * depth / first - early - (late - early) * second) / ((depth - late) * second)


def untuned(depth: int, keep: float, side: int) -> FlowParameters:
    """Return parameters without a search: the shares of layers that the authors release for keep 0.1, and cells of the
    same size relative to the image, whose grid has `side` tokens (27 in their model)."""
    early, late = thirds(depth)
    second, third = 1.0, 0.6
    first = keep * depth / (early + (late - early) * second + (depth - late) * second * third)
    return FlowParameters(min(first, 1.0), second, third, cell=17.4 * side / 27)
