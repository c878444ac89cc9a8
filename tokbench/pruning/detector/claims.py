"""The claims of Focus-DETR about the selection of tokens in one detector.

Claims about trained parts of a detector are those of its ablations, see [ablation] in their TOML files.
"""

from __future__ import annotations

from functools import partial

from tokbench.pruning.claims import Claim

_claim = partial(Claim, number="ap50")

CLAIMS = (
    _claim("Learned foreground scores select better tokens than chance.", "learned", "random"),
    _claim("Learned foreground scores select better tokens than the norm of features.", "learned", "norm"),
)
