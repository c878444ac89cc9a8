"""Scores of a recognized word: TokBench's exact match and 1 - NED (Wu et al. 2025, arXiv:2505.18142), and the CER.

Texts are compared code point by code point: case, accents and spaces count, and nothing is stripped or normalised. A
word that was not recognized counts as the empty text.
"""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein


def exact(truth: str, read: str) -> bool:
    """Return whether the two texts are equal. The mean over words is T-ACC."""
    return truth == read


def errors(truth: str, read: str) -> int:
    """Return the Levenshtein distance: the smallest number of insertions, deletions and substitutions of one
    character."""
    return Levenshtein.distance(truth, read)


def similarity(truth: str, read: str) -> float:
    """Return 1 - distance / longer length, in [0, 1]; 1 for two empty texts. The mean over words is T-NED
    (ICDAR 2019)."""
    longer = max(len(truth), len(read))
    return 1 - errors(truth, read) / longer if longer else 1.0
