"""The range coder: it gives back its symbols, at the cost that their frequencies imply."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.metrics.coders import rans
from tokbench.metrics.coders.rans import NotLossless

SETTINGS = settings(max_examples=60, deadline=None)


@SETTINGS
@given(
    parts=st.lists(
        st.tuples(st.lists(st.integers(0, 10**6), min_size=1, max_size=40).filter(any), st.integers(0, 200)),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 2**32 - 1),
    width=st.sampled_from([1, 2, 7, 64, 500]),
)
def test_range_ans_gives_back_its_symbols(parts: list[tuple[list[int], int]], seed: int, width: int) -> None:
    """Several parts in one stream, each with frequencies of its own, with as many lanes as one likes."""
    coded = []
    for number, (weights, count) in enumerate(parts):
        frequencies = rans.quantised(np.array(weights, dtype=float))
        assert frequencies.sum() == 2**rans.PRECISION
        assert ((frequencies > 0) == (np.array(weights) > 0)).all()
        possible = np.flatnonzero(frequencies)
        coded.append((np.random.default_rng(seed + number).choice(possible, count), frequencies))
    data = rans.encode(coded, width)
    decoder = rans.Decoder(data, width)
    for symbols, frequencies in coded:
        np.testing.assert_array_equal(decoder.take(len(symbols), frequencies), symbols)
    uniform = rans.quantised(np.ones(1024))
    with pytest.raises(NotLossless, match=r"end before|contain no symbols"):
        decoder.take(8 * len(data) + 100 * width, uniform)


@pytest.mark.slow
def test_range_ans_costs_what_the_frequencies_say() -> None:
    """On 200,000 symbols within 0.1 %, beside 64 bits for each lane."""
    frequencies = rans.quantised(np.array([0.9, 0.06, 0.03, 0.0099, 0.0001]))
    symbols = np.random.default_rng(0).choice(5, 200_000, p=frequencies / 2**rans.PRECISION)
    ideal = float((rans.PRECISION - np.log2(frequencies))[symbols].sum())
    width = rans.lanes(len(symbols))
    assert width == 3
    assert ideal <= 8 * len(rans.encode([(symbols, frequencies)], width)) <= 1.001 * ideal + 64 * width


def test_a_symbol_that_is_certain_costs_nothing() -> None:
    frequencies = rans.quantised(np.array([0.0, 1.0, 0.0]))
    assert len(rans.encode([(np.ones(5000, dtype=int), frequencies)] * 3, 1)) == 8


def test_bytes_that_are_too_few_for_the_states_are_found_out() -> None:
    with pytest.raises(NotLossless, match="7 bytes end before its 1 states"):
        rans.Decoder(b"1234567", 1)


def test_frequencies_are_as_near_as_integers_can_be() -> None:
    weights = np.random.default_rng(0).exponential(size=1000)
    exact = weights / weights.sum() * (2**rans.PRECISION - 1000) + 1
    assert np.abs(rans.quantised(weights) - exact).max() < 1
