"""How well a word was read: TokBench's exact match and 1 - NED (Wu et al. 2025, arXiv:2505.18142), and the CER.

Texts are compared code point by code point: case, accents and spaces count, nothing is stripped or normalised. What
could not be read is the empty text, never left out.
"""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein


def exact(truth: str, read: str) -> bool:
    """Whether the two are the same. Its mean over words is T-ACC."""
    return truth == read


def errors(truth: str, read: str) -> int:
    """Levenshtein distance: the fewest insertions, deletions and substitutions of a character, at cost 1 each."""
    return Levenshtein.distance(truth, read)


def similarity(truth: str, read: str) -> float:
    """1 - distance / longer length, in [0, 1]; 1 for two empty texts. Its mean over words is T-NED (ICDAR 2019)."""
    longer = max(len(truth), len(read))
    return 1 - errors(truth, read) / longer if longer else 1.0
