"""The claims of CenterCLIP about methods in one network.

Claims about networks that were trained with a method are those of its ablations, see [ablation] in their TOML files.
"""

from __future__ import annotations

from functools import partial

from tokbench.pruning.claims import Claim

_claim = partial(Claim, number="top1")

CLAIMS = (
    _claim("Medoids beat evenly spaced tokens.", "k_medoids", "uniform"),
    _claim("Medoids beat temporal pooling.", "k_medoids", "pooling"),
    _claim("Spectral clustering beats k-medoids++.", "spectral", "k_medoids"),
)
