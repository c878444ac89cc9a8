"""Lossless coders of codes, and what they make of some images once they are fitted on others.

Order 0 counts how often each code occurs in the images that it is fitted on, and an entropy coder codes the others by
those counts. Byte-pair encoding merges the pairs of bytes that are most frequent in the serialised codes, as Binary BPE
(Bommarito 2025) does with executables, by Hugging Face's `tokenizers`. Neither is believed: whatever was coded is
decoded again and compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from tokbench.metrics.coders import rans
from tokbench.metrics.coders.rans import NotLossless

LISTED = 2**20
"""The most codes that a model gives frequencies of their own: those that were seen most often."""

LONGEST, RAREST = 32, 4
"""The most bytes of a merged token, and the fewest occurrences of a pair that is merged: Binary BPE's."""

_FIRST = 0x100
"""The character that stands for byte 0; from here on there are 256 letters in a row."""

_CHUNK = 1024
"""Rows that are encoded side by side."""


@dataclass(frozen=True)
class Order0:
    """How probable each code is, wherever it stands: (n + 1/2) / (N + K / 2) (Krichevsky and Trofimov 1981).

    `listed` (n,) are the codes that have frequencies of their own, sorted. All others share the last of `frequencies`
    (n + 1,) and are equally probable, as codes that were never seen are: so a codebook of 2^40 entries has room.
    """

    size: int
    listed: np.ndarray
    frequencies: np.ndarray

    @staticmethod
    def fit(codes: np.ndarray, size: int) -> Order0:
        """From codes (n,) in [0, size)."""
        listed, counts = np.unique(codes.astype(np.int64), return_counts=True)
        if len(listed) > LISTED:
            kept = np.sort(np.argsort(-counts, kind="stable")[:LISTED])
            listed, counts = listed[kept], counts[kept]
        # Doubled, weights are whole numbers, whose sum does not depend on the order in which a machine adds.
        others = size - len(listed) + 2 * (len(codes) - int(counts.sum()))
        return Order0(size, listed, rans.quantised(np.append(2.0 * counts + 1, float(others))))

    @property
    def nbytes(self) -> int:
        """Bytes of its table: each listed code and its frequency."""
        return len(self.listed) * (width(self.size) + rans.PRECISION // 8)

    def parts(self, codes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Codes (n,) as what an entropy coder takes, symbols with their frequencies: each one's place in the list, then
        the ranks of those that are in none, digit by digit."""
        codes = codes.astype(np.int64)
        places = self.listed.searchsorted(codes)
        known = np.append(self.listed, -1)[places] == codes
        ranks = (codes - places)[~known]
        digits = self._digits() if len(ranks) else []
        return [
            (np.where(known, places, len(self.listed)), self.frequencies),
            *(((ranks >> below) % len(frequencies), frequencies) for below, frequencies in digits),
        ]

    def read(self, decoder: rans.Decoder, count: int) -> np.ndarray:
        """The `count` codes (n,) whose `parts` come next. Raises NotLossless where bytes are missing."""
        places = decoder.take(count, self.frequencies)
        other = places == len(self.listed)
        number = int(np.count_nonzero(other))
        ranks = np.zeros(number, dtype=np.int64)
        for below, frequencies in self._digits() if number else ():
            ranks += decoder.take(number, frequencies) << below
        codes = np.append(self.listed, 0)[places]
        # A listed code less its place is how many codes below it are not listed.
        codes[other] = ranks + (self.listed - np.arange(len(self.listed))).searchsorted(ranks, side="right")
        return codes

    def _digits(self) -> list[tuple[int, np.ndarray]]:
        """The digits of a rank among the codes that are not listed: how many bits lie below each, and the frequencies
        of its values, all alike. With 2^16 values or more of the first digit its last one, not full, wastes next to
        nothing."""
        last = max(0, self.size - len(self.listed) - 1)
        bits = max(0, last.bit_length() - 16)
        digits = [(bits, rans.quantised(np.ones((last >> bits) + 1)))]
        for below in reversed(range(0, bits, 16)):
            digits.append((below, rans.quantised(np.ones(1 << min(16, bits - below)))))
        return digits


def encode(coded: Sequence[tuple[np.ndarray, Order0]]) -> bytes:
    """Sets of codes (n,), each by its own model, as one stream of bytes."""
    parts = [part for codes, model in coded for part in model.parts(codes)]
    return rans.encode(parts, rans.lanes(sum(len(codes) for codes, _ in coded)))


def decode(data: bytes, coded: Sequence[tuple[int, Order0]]) -> list[np.ndarray]:
    """The sets of codes that `encode` made these bytes of, from how many each holds and its model. Raises NotLossless
    where bytes are missing."""
    decoder = rans.Decoder(data, rans.lanes(sum(count for count, _ in coded)))
    return [model.read(decoder, count) for count, model in coded]


def order0(sets: Sequence[tuple[np.ndarray, np.ndarray, int]]) -> tuple[int, list[Order0]]:
    """Bytes that sets of codes really take, all in one stream, and their models. Raises NotLossless.

    A set is the codes (m,) that its model is fitted on, those (n,) that are coded, and out of how many they are. The
    models' own bytes are not counted. What the stream costs beyond its codes, at most 64 bits for each 65,536 of them
    and at least once, is paid once for all sets.
    """
    models = [Order0.fit(fitted_on, size) for fitted_on, _, size in sets]
    data = encode([(codes, model) for (_, codes, _), model in zip(sets, models, strict=True)])
    found = decode(data, [(len(codes), model) for (_, codes, _), model in zip(sets, models, strict=True)])
    for again, (_, codes, size) in zip(found, sets, strict=True):
        if not np.array_equal(again, codes):
            raise NotLossless(f"order-0 coding of {len(codes):,} codes out of {size:,} did not give them back")
    return len(data), models


def width(size: int) -> int:
    """Bytes that a code out of `size` is serialised as: 1, 2, 4 or 8."""
    return next(count for count in (1, 2, 4, 8) if size <= 256**count)


def serialise(codes: np.ndarray, size: int) -> np.ndarray:
    """Codes (..., N) out of `size` as little-endian bytes, uint8 (..., N * width)."""
    return np.ascontiguousarray(codes, dtype=f"<u{width(size)}").view(np.uint8)


class BytePairs:
    """A vocabulary of at most `most` tokens, fitted on rows of bytes, uint8 (n,) each: merges never leave a row.

    alphabet: bytes lie in [0, alphabet); each has a token of its own, so that every row can be coded.
    """

    def __init__(self, rows: Sequence[np.ndarray], alphabet: int, most: int) -> None:
        # No normaliser and no pre-tokenizer: a row is one word, of one letter a byte, and stays as it is. Tokens of
        # `max_token_length` and more are not made (tokenizers 0.23, src/models/bpe/word.rs).
        self._tokenizer = Tokenizer(BPE())
        letters = [chr(_FIRST + byte) for byte in range(alphabet)]
        trainer = BpeTrainer(
            vocab_size=most, min_frequency=RAREST, max_token_length=LONGEST + 1, initial_alphabet=letters,
            show_progress=False,
        )  # fmt: skip
        self._tokenizer.train_from_iterator(map(_text, rows), trainer)
        texts = {token: text for text, token in self._tokenizer.get_vocab().items()}
        self._texts = [texts[token] for token in range(len(texts))]
        self._merges = len(texts) - alphabet

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def nbytes(self) -> int:
        """Bytes of its merges: two tokens each."""
        return self._merges * 2 * width(len(self))

    def encode(self, rows: Sequence[np.ndarray]) -> Iterator[list[int]]:
        """The tokens of each row."""
        for first in range(0, len(rows), _CHUNK):
            texts = [_text(row) for row in rows[first : first + _CHUNK]]
            yield from (made.ids for made in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        """The row, uint8 (n,), that has these tokens."""
        text = "".join([self._texts[token] for token in tokens])
        return (np.frombuffer(text.encode("utf-32-le"), "<u4") - _FIRST).astype(np.uint8)


def byte_pairs(
    fitted_on: Sequence[np.ndarray], rows: Sequence[np.ndarray], alphabet: int, most: int
) -> tuple[np.ndarray, BytePairs]:
    """Tokens that each row of bytes takes (n,), and the vocabulary, fitted on other rows. Raises NotLossless."""
    made = BytePairs(fitted_on, alphabet, most)
    counts = np.zeros(len(rows), dtype=np.int64)
    for at, (row, tokens) in enumerate(zip(rows, made.encode(rows), strict=True)):
        if not np.array_equal(made.decode(tokens), row):
            raise NotLossless(f"byte-pair encoding of {len(row):,} bytes did not give them back")
        counts[at] = len(tokens)
    return counts, made


def _text(row: np.ndarray) -> str:
    return (row.astype("<u4") + _FIRST).tobytes().decode("utf-32-le")
