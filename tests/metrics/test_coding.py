"""The cost of codes under real coders: exact bounds for sources of known entropy, and lossless round trips."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.errors import NotApplicable
from tokbench.metrics.batch import Batch
from tokbench.metrics.coders import entropy as coding
from tokbench.metrics.coders import rans
from tokbench.metrics.coders.entropy import BytePairs, Order0
from tokbench.metrics.coders.rans import NotLossless
from tokbench.metrics.compressibility import FEWEST, Coding
from tokbench.tokenizers.tokens import Tokens, TokenStream

SIZES = [1, 2, 3, 16, 255, 256, 257, 1024, 65536, 65537, 2**18, 2**40, 2**63 - 1]
SETTINGS = settings(max_examples=60, deadline=None)


def drawn(seed: int, size: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, size, shape)


def measured(codes: np.ndarray | torch.Tensor, size: int, **options: int) -> dict[str, float]:
    """The numbers of one batch of codes (N, ...)."""
    metric = Coding(**options)
    metric.update(Batch(torch.arange(len(codes)), tokens=Tokens.from_indices(torch.as_tensor(codes), size)))
    return metric.compute()


def counted_bits(fitted_on: np.ndarray, codes: np.ndarray, size: int) -> float:
    """The lower bound for coders with these counts: minus log2 of each code's share of n + 1/2."""
    counts = np.bincount(fitted_on.ravel(), minlength=size) + 0.5
    return float(-np.log2(counts / counts.sum())[codes.ravel()].sum())


# The entropy coder.


# Order 0.


@pytest.mark.slow
@SETTINGS
@given(
    size=st.sampled_from(SIZES),
    fitted=st.integers(0, 300),
    count=st.integers(0, 300),
    narrow=st.integers(1, 2**63 - 1),
    seed=st.integers(0, 2**32 - 1),
    listed=st.sampled_from([1, 5, coding.LISTED]),
)
def test_order0_gives_back_any_codes(size: int, fitted: int, count: int, narrow: int, seed: int, listed: int) -> None:
    """Whatever it was fitted on: with codes that were never seen, and with more codes than a model lists."""
    codes = drawn(seed, size, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coding, "LISTED", listed)
        model = Order0.fit(drawn(seed + 1, min(narrow, size), fitted), size)
    assert len(model.listed) <= listed
    (found,) = coding.decode(coding.encode([(codes, model)]), [(count, model)])
    np.testing.assert_array_equal(found, codes)


@pytest.mark.slow
@SETTINGS
@given(
    sets=st.lists(st.tuples(st.sampled_from(SIZES), st.integers(0, 60), st.integers(0, 60)), max_size=6),
    seed=st.integers(0, 2**32 - 1),
    lane=st.sampled_from([1, 7, 2**16]),
)
def test_sets_of_codes_share_one_stream(sets: list[tuple[int, int, int]], seed: int, lane: int) -> None:
    """Each sequence is decoded with its own model, also where unseen codes need digits of their own."""
    made = [
        (drawn(seed + 2 * at, size, fitted), drawn(seed + 2 * at + 1, size, count), size)
        for at, (size, fitted, count) in enumerate(sets)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rans, "_LANE", lane)
        taken, models = coding.order0(made)
    assert len(models) == len(sets)
    assert (taken == 0) == (not any(count for _, _, count in sets))


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 75])
def test_many_groups_cost_no_more_than_their_codes(count: int) -> None:
    """Sixteen groups of 32 codes each take, together, at most 64 bits more than their entropy. A separate stream for
    each group would take at least 64 bits more per group."""
    groups = [(drawn(at, 40 + at, 32 * count), drawn(at + 99, 40 + at, 32 * count), 64) for at in range(16)]
    ideal = sum(counted_bits(*one) for one in groups)
    taken, _ = coding.order0(groups)
    assert ideal * 0.9999 <= 8 * taken <= 1.0002 * ideal + 64
    apart = sum(coding.order0([one])[0] for one in groups)
    assert 8 * (apart - taken) > 15 * 32 - 64


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 16, 256, 1024])
def test_uniform_codes_cost_all_of_their_bits(size: int) -> None:
    found = measured(drawn(0, size, 400, 256), size)
    nominal = 256 * math.log2(size)
    assert nominal <= found["order0_bits_per_image"] <= 1.02 * nominal
    assert found["bpe_bits_per_image"] >= nominal


@pytest.mark.slow
@pytest.mark.parametrize("size", [256, 65536])
def test_order0_costs_what_its_counts_say(size: int) -> None:
    """Never less; and codes that were never seen, which no table lists, no more than their share. 65,536 codes of which
    a third is seen: the shares are rounded to 2^-24."""
    fitted_on, codes = drawn(1, size, 28_000), drawn(2, size, 28_000)
    ideal = counted_bits(fitted_on, codes, size)
    taken, (model,) = coding.order0([(fitted_on, codes, size)])
    assert 0.9999 * ideal <= 8 * taken <= 1.002 * ideal
    assert model.nbytes == len(np.unique(fitted_on)) * (coding.width(size) + 3)


@pytest.mark.slow
def test_skewed_codes_cost_their_entropy() -> None:
    share = 1 / np.arange(1, 65) ** 1.5
    share /= share.sum()
    codes = np.random.default_rng(0).choice(64, (1000, 256), p=share)
    entropy = -(share * np.log2(share)).sum() * 256
    found = measured(codes, 64)["order0_bits_per_image"]
    assert found == pytest.approx(entropy, rel=0.01)
    assert found >= counted_bits(codes[::2], codes[1::2], 64) / 500


@pytest.mark.slow
def test_constant_codes_cost_next_to_nothing() -> None:
    """From 8 x 256 bits, order 0 leaves the cost of 255 codes that may still occur; byte pairs leave 8 tokens."""
    found = measured(np.full((1000, 256), 7), 256)
    assert found["order0_bits_per_image"] < 4
    assert found["bpe_tokens_per_image"] == 256 / coding.LONGEST
    assert found["bpe_bits_per_image"] == pytest.approx(8 * math.log2(256 + 5))


def test_a_codebook_of_one_costs_nothing() -> None:
    found = measured(np.zeros((64, 16), dtype=int), 1)
    assert found["order0_bits_per_image"] <= 2
    assert found["order0_model_bytes"] == 4


# Byte pairs.


@SETTINGS
@given(
    size=st.sampled_from([1, 2, 16, 256, 257, 65536, 2**20]),
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    seed=st.integers(0, 2**32 - 1),
    few=st.booleans(),
)
def test_byte_pairs_give_back_any_rows(size: int, lengths: list[int], seed: int, few: bool) -> None:
    """Whatever they were fitted on: here, on few values, so that there are merges."""
    fitted_on = [coding.serialise(drawn(seed + i, min(size, 2), 60), size) for i in range(9)]
    rows = [coding.serialise(drawn(seed - i - 1 & 2**32 - 1, min(size, 2 if few else size), n), size)
            for i, n in enumerate(lengths)]  # fmt: skip
    counts, made = coding.byte_pairs(fitted_on, rows, min(256, size), 300)
    assert len(made) <= max(300, min(256, size))
    assert (counts <= [len(row) for row in rows]).all()
    for row, tokens in zip(rows, made.encode(rows), strict=True):
        np.testing.assert_array_equal(made.decode(tokens), row)


@pytest.mark.parametrize("size, width", [(2, 1), (256, 1), (257, 2), (65536, 2), (65537, 4), (2**32, 4), (2**40, 8)])
def test_serialised_codes_can_be_read_again(size: int, width: int) -> None:
    codes = np.append(drawn(0, size, 50), size - 1)
    data = coding.serialise(codes, size)
    assert data.dtype == np.uint8 and len(data) == width * len(codes)
    for code, own in zip(codes.tolist(), data.reshape(-1, width), strict=True):
        assert int.from_bytes(own.tobytes(), "little") == code


def test_merges_are_the_most_frequent_pairs() -> None:
    """`abab`: ab is merged, then abab. A pair seen three times is not; tokens of 33 bytes are not made."""
    rows = [np.array([0, 1, 0, 1], dtype=np.uint8)] * 4 + [np.array([2, 3], dtype=np.uint8)] * 3
    made = BytePairs(rows, 4, 4096)
    assert len(made) == 6
    assert [list(made.decode([token])) for token in range(6)] == [[0], [1], [2], [3], [0, 1], [0, 1, 0, 1]]
    assert made.nbytes == 2 * 2
    assert list(made.encode([np.array([1, 0, 1, 0, 1, 2, 3], dtype=np.uint8)])) == [[1, 5, 2, 3]]
    long = BytePairs([np.zeros(256, dtype=np.uint8)] * 9, 1, 4096)
    assert max(len(long.decode([token])) for token in range(len(long))) == coding.LONGEST


def test_merges_never_leave_an_image() -> None:
    """Each image is one code and then many others: concatenated, they would contain the pair (1, 0) often."""
    rows = [np.array([0, 1], dtype=np.uint8)] * 100
    made = BytePairs(rows, 2, 4096)
    assert [list(made.decode([token])) for token in range(len(made))] == [[0], [1], [0, 1]]


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, 1024])
def test_repeated_patterns_are_for_byte_pairs(size: int) -> None:
    """Sixteen phrases of sixteen codes: order 0 sees nothing of them."""
    phrases = drawn(0, size, 16, 16)
    codes = phrases[drawn(1, 16, 400, 16)].reshape(400, 256)
    found = measured(codes, size)
    assert found["bpe_bits_per_image"] < found["order0_bits_per_image"] / 3
    assert found["bpe_tokens_per_image"] < 40


def test_the_vocabulary_is_an_argument() -> None:
    codes = drawn(0, 4, 100, 64)
    assert measured(codes, 4, vocabulary=64)["bpe_model_bytes"] == 60 * 2
    assert measured(codes, 4)["bpe_model_bytes"] > 60 * 2
    assert "at most 64 tokens" in Coding(vocabulary=64).provenance()["coder"]


# Nothing is believed.


def test_a_coder_that_loses_something_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever set of several it is."""
    codes = drawn(0, 1000, 5000)
    sets = [(codes, codes, 1000), (codes[:100], codes[:100], 1000)]
    right = rans.encode

    def flipped(parts: list[tuple[np.ndarray, np.ndarray]], width: int) -> bytes:
        data = bytearray(right(parts, width))
        data[len(data) // 2] ^= 4
        return bytes(data)

    monkeypatch.setattr(rans, "encode", flipped)
    with pytest.raises(NotLossless):
        coding.order0(sets)
    monkeypatch.setattr(rans, "encode", lambda *given: right(*given)[:-4])
    with pytest.raises(NotLossless, match="end before"):
        coding.order0(sets)
    monkeypatch.setattr(rans, "encode", lambda *given: b"")
    with pytest.raises(NotLossless, match="contain no symbols"):
        coding.order0(sets)


def test_byte_pairs_that_lose_something_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = list(drawn(0, 16, 20, 30).astype(np.uint8))
    right = BytePairs.encode
    monkeypatch.setattr(BytePairs, "encode", lambda self, rows: (tokens[:-1] for tokens in right(self, rows)))
    with pytest.raises(NotLossless, match="30 bytes"):
        coding.byte_pairs(rows, rows, 16, 4096)


def test_bytes_without_a_token_are_found_out() -> None:
    """`tokenizers` drops letters that it does not know, without a word."""
    with pytest.raises(NotLossless):
        coding.byte_pairs([np.zeros(9, dtype=np.uint8)], [np.ones(9, dtype=np.uint8)], 1, 4096)


# The metric.


def test_order_and_shards_change_nothing() -> None:
    codes = torch.as_tensor(drawn(0, 300, 70, 4, 4) // 3)
    whole = measured(codes, 300)
    assert whole == measured(codes, 300)
    order = torch.as_tensor(np.random.default_rng(1).permutation(70))
    shards = [Coding(), Coding()]
    for i, positions in enumerate(order.split(9)):
        shards[i % 2].update(Batch(positions, tokens=Tokens.from_indices(codes[positions], 300)))
    shards[1].merge(shards[0])
    assert shards[1].compute() == whole


def test_what_is_measured_was_not_fitted_on() -> None:
    """Codes 0 in images of even rank, 1 in those of odd rank: each of the latter is a surprise."""
    codes = np.zeros((64, 16), dtype=int)
    codes[1::2] = 1
    assert measured(codes, 16)["order0_bits_per_image"] > 16 * math.log2(32 * 16)
    assert measured(codes, 16)["bpe_tokens_per_image"] == 16


@pytest.mark.slow
def test_streams_and_groups_have_models_of_their_own() -> None:
    """Two constant streams, or groups, of different codes: one model for both would pay a bit a code."""
    apart = {"a": torch.zeros(200, 64, dtype=torch.long), "b": torch.ones(200, 64, dtype=torch.long)}
    metric = Coding()
    metric.update(Batch(torch.arange(200), tokens=Tokens.from_indices(apart, {"a": 2, "b": 300})))
    found = metric.compute()
    assert found["order0_bits_per_image"] < 20
    assert found["order0_model_bytes"] == (1 + 3) + (2 + 3)
    assert found["bpe_tokens_per_image"] <= (64 + 64 * 2) / 32 + 2  # a byte or two, where one stream meets the other

    grouped = torch.stack([apart["a"], apart["b"]], dim=2)
    metric = Coding()
    metric.update(Batch(torch.arange(200), tokens=Tokens.from_indices(grouped, 2, groups=2)))
    assert metric.compute()["order0_bits_per_image"] < 4
    assert metric.compute()["order0_model_bytes"] == 2 * (1 + 3)


def test_groups_cost_an_image_what_their_codes_do() -> None:
    """For 150 images with 16 groups, of which 75 are coded, the bits per image differ from the entropy by at most one.
    A separate stream for each group would take 9 bits more."""
    codes = drawn(0, 7, 150, 4, 16)
    metric = Coding()
    metric.update(Batch(torch.arange(150), tokens=Tokens.from_indices(torch.as_tensor(codes), 8, groups=16)))
    found = metric.compute()["order0_bits_per_image"]
    ideal = sum(counted_bits(codes[::2, :, at], codes[1::2, :, at], 8) for at in range(16)) / 75
    assert ideal - 0.01 <= found <= ideal + 64 / 75 + 0.1


def variable(codes: torch.Tensor, size: int, lengths: torch.Tensor) -> Coding:
    metric = Coding()
    tokens = Tokens({"codes": TokenStream("index", codes, size)}, lengths, lengths * math.log2(size))
    metric.update(Batch(torch.arange(len(codes)), tokens=tokens))
    return metric


def test_only_the_codes_within_the_length_are_coded() -> None:
    """All images of 24 of 64 positions: the same numbers as of 24 positions. What lies behind is never looked at."""
    codes = torch.as_tensor(drawn(0, 16, 100, 64))
    cut = variable(codes, 16, torch.full((100,), 24)).compute()
    assert cut == measured(codes[:, :24], 16)
    codes[:, 24:] = 0
    assert variable(codes, 16, torch.full((100,), 24)).compute() == cut


def test_lengths_that_differ_are_coded_too() -> None:
    codes, lengths = torch.as_tensor(drawn(0, 16, 400, 64)), torch.as_tensor(drawn(1, 2, 400)) * 32 + 32
    found = variable(codes, 16, lengths).compute()
    mean = float(lengths[1::2].double().mean())
    assert 4 * mean + 1 <= found["order0_bits_per_image"] <= 1.03 * (4 * mean + 1.2)
    assert found["bpe_bits_per_image"] > 4 * mean


def test_which_tokens_count_must_be_known() -> None:
    codes = torch.zeros(4, 8, dtype=torch.long)
    with pytest.raises(NotApplicable, match="9 tokens, stored at 8"):
        variable(codes, 16, torch.full((4,), 9))
    two = {"a": TokenStream("index", codes, 16), "b": TokenStream("index", codes, 16)}
    lengths = torch.full((4,), 12)
    with pytest.raises(NotApplicable, match="16 positions of 2 streams"):
        Coding().update(Batch(torch.arange(4), tokens=Tokens(two, lengths, lengths.double())))


def test_other_tokens_are_refused() -> None:
    latents = Tokens.from_latents(torch.zeros(1, 4, 2, 2), 4)
    with pytest.raises(NotApplicable, match="no codebook"):
        Coding().update(Batch(torch.arange(1), tokens=latents))
    with pytest.raises(NotApplicable, match="no codebook"):
        Coding().update(Batch(torch.arange(1), tokens=Tokens.from_bytes([b"x"])))
    codes = Tokens.from_indices(torch.zeros(1, 4, dtype=torch.long), 4)
    both = Tokens(codes.streams | latents.streams, codes.length + latents.length, codes.bits + latents.bits)
    with pytest.raises(NotApplicable, match="'latents' are not codes"):
        Coding().update(Batch(torch.arange(1), tokens=both))


def test_few_images_are_refused() -> None:
    codes = drawn(0, 4, FEWEST, 4)
    assert measured(codes, 4)
    with pytest.raises(NotApplicable, match=f"{FEWEST} or more, not {FEWEST - 1}"):
        measured(codes[1:], 4)
