"""The registry of methods that remove visual tokens of a vision-language model."""

from __future__ import annotations

from collections.abc import Callable

from tokbench.pruning.vlm.catp import CATP
from tokbench.pruning.vlm.divprune import DivPrune
from tokbench.pruning.vlm.fastv import FastV
from tokbench.pruning.vlm.pruner import VlmPruner
from tokbench.pruning.vlm.random import Random
from tokbench.pruning.vlm.resolution import LowerResolution
from tokbench.pruning.vlm.strided import Strided
from tokbench.pruning.vlm.todre import ToDRE
from tokbench.pruning.vlm.topk_cls import TopKCls
from tokbench.pruning.vlm.vflowopt import VFlowOpt

CONTROLS = ("random", "lower_resolution")
"""The controls that every table contains."""

METHODS: dict[str, Callable[[], VlmPruner]] = {
    "random": Random,
    "lower_resolution": LowerResolution,
    "strided": Strided,
    "topk_cls": TopKCls,
    "fastv": FastV,
    "divprune": DivPrune,
    "todre": ToDRE,
    "todre_k_center": lambda: ToDRE("k_center"),
    "todre_stage1": lambda: ToDRE(second=False),
    "todre_stage2": lambda: ToDRE(first=False),
    "catp": CATP,
    "catp_stage1": lambda: CATP(second=False),
    "catp_stage2": lambda: CATP(first=False),
    "catp_single_layer": lambda: CATP(difference=False),
    "catp_own_budgets": lambda: CATP(shared=False),
    "vflowopt": lambda: VFlowOpt(tuned=True),
    "vflowopt_untuned": VFlowOpt,
    "vflowopt_drop": lambda: VFlowOpt(recycle=False),
}
"""All methods by name. Names with a suffix are ablations of the method before the suffix."""
