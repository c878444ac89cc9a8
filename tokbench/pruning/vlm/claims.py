"""The papers' claims about methods for vision-language models."""

from __future__ import annotations

from functools import partial

from tokbench.pruning.claims import Claim

_claim = partial(Claim, number="accuracy")

CLAIMS = (
    _claim("Diversity beats attention when few tokens are kept.", "divprune", "topk_cls", most=0.1),
    _claim("Diversity beats random tokens.", "divprune", "random"),
    _claim("Max-sum diversity beats k-center.", "todre", "todre_k_center"),
    _claim("Both stages of ToDRE beat its second stage alone.", "todre", "todre_stage2"),
    _claim("Both stages of ToDRE beat its first stage alone.", "todre", "todre_stage1"),
    _claim("Both stages of CATP beat its first stage alone.", "catp", "catp_stage1"),
    _claim("Both stages of CATP beat its second stage alone.", "catp", "catp_stage2"),
    _claim("The difference of two layers' attention beats one layer's.", "catp", "catp_single_layer"),
    _claim("A shared budget of the demonstrations beats own budgets.", "catp", "catp_own_budgets"),
    _claim("Recycling removed tokens helps.", "vflowopt_untuned", "vflowopt_drop"),
    _claim("Tuning the parameters helps.", "vflowopt", "vflowopt_untuned"),
)
