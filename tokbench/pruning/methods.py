"""The registry of token-reduction methods."""

from __future__ import annotations

from collections.abc import Callable

from tokbench.pruning.diffrate import DiffRate, UniformRate
from tokbench.pruning.divprune import DivPrune
from tokbench.pruning.evit import EViT
from tokbench.pruning.pruner import Pruner
from tokbench.pruning.random import Random
from tokbench.pruning.sit_slim import SiTSlim
from tokbench.pruning.strided import Strided
from tokbench.pruning.token_transforming import TokenTransforming
from tokbench.pruning.tome import ToMe
from tokbench.pruning.topk_attention import TopKAttention
from tokbench.pruning.zero_tprune import ZeroTPrune

METHODS: dict[str, Callable[[], Pruner]] = {
    "random": Random,
    "strided": Strided,
    "topk_attention": TopKAttention,
    "evit": EViT,
    "evit_drop": lambda: EViT(fuse=False),
    "tome": ToMe,
    "divprune": DivPrune,
    "zero_tprune": ZeroTPrune,
    "token_transforming": TokenTransforming,
    "diffrate_uniform": UniformRate,
}
"""Methods that work with any supported transformer without training."""

TRAINED: dict[str, type[Pruner]] = {"diffrate": DiffRate, "sit_slim": SiTSlim}
"""Methods that must be trained for one transformer and one `keep`."""
