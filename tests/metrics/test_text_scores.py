"""Scores of words against the published formulas, done by hand and by the textbook's table of distances."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.metrics.text_scores import errors, exact, similarity

FEW = settings(max_examples=200, deadline=None, derandomize=True, database=None)
WORDS = st.one_of(st.text(alphabet="abAB é", max_size=8), st.text(max_size=12))


def distance(truth: str, read: str) -> int:
    """Wagner and Fischer 1974: one row of the table after the other."""
    row = list(range(len(read) + 1))
    for i, ours in enumerate(truth, 1):
        above, row = row, [i]
        for j, theirs in enumerate(read, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (ours != theirs)))
    return row[-1]


@pytest.mark.parametrize(
    ("truth", "read", "wrong", "score"),
    [
        ("kitten", "sitting", 3, 1 - 3 / 7),
        ("Exit", "exit", 1, 3 / 4),  # case counts
        ("EXIT", "", 4, 0.0),
        ("", "x", 1, 0.0),
        ("", "", 0, 1.0),
        ("ab", "ba", 2, 0.0),  # a swap is two changes
        ("50 %", "50%", 1, 3 / 4),  # spaces are characters
        ("café", "cafe", 1, 3 / 4),
        ("é", "e\u0301", 2, 0.0),  # one sign in two code points
        ("🙂🙂", "🙂", 1, 1 / 2),  # a code point beyond 16 bits is one character
    ],
)
def test_by_hand(truth: str, read: str, wrong: int, score: float) -> None:
    assert errors(truth, read) == wrong
    assert similarity(truth, read) == pytest.approx(score, abs=1e-15)
    assert exact(truth, read) == (wrong == 0)


@FEW
@given(WORDS, WORDS, WORDS)
def test_algebra(a: str, b: str, c: str) -> None:
    assert errors(a, b) == distance(a, b)
    assert similarity(a, b) == similarity(b, a)
    assert 0 <= similarity(a, b) <= 1
    assert (similarity(a, b) == 1) == exact(a, b) == (a == b)
    assert errors(a, c) <= errors(a, b) + errors(b, c)
    # What stands on both sides changes no distance.
    assert errors(c + a, c + b) == errors(a + c, b + c) == errors(a, b)
