"""Lossless coders of codes, which are fitted on some images and applied to others.

Order 0 counts how often each code occurs in the images that it is fitted on, and an entropy coder codes the others with
these frequencies. Byte-pair encoding merges the most frequent pairs of bytes in the serialised codes, as Binary BPE
(Bommarito 2025) does for executables, with Hugging Face's `tokenizers`. All coded data is decoded again and compared.
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
"""The largest number of codes with their own frequency in a model: those that were seen most often."""

LONGEST, RAREST = 32, 4
"""The largest number of bytes of a merged token, and the smallest number of occurrences of a merged pair, as in Binary
BPE."""

_FIRST = 0x100
"""The character that represents byte 0; the 256 characters from here on are all letters."""

_CHUNK = 1024
"""The number of rows that are encoded in parallel."""


@dataclass(frozen=True)
class Order0:
    """The probability of each code, independent of its position: (n + 1/2) / (N + K / 2) (Krichevsky and Trofimov
    1981).

    `listed` (n,) are the codes with their own frequency, sorted. All others share the last entry of `frequencies` (n +
    1,) and are equally probable, as codes that never occurred are. A codebook can therefore have 2^40 entries.
    """

    size: int
    listed: np.ndarray
    frequencies: np.ndarray

    @staticmethod
    def fit(codes: np.ndarray, size: int) -> Order0:
        """Fit a model to codes (n,) in [0, size)."""
        listed, counts = np.unique(codes.astype(np.int64), return_counts=True)
        if len(listed) > LISTED:
            most_frequent = np.sort(np.argsort(-counts, kind="stable")[:LISTED])
            listed, counts = listed[most_frequent], counts[most_frequent]
        # Doubled weights are integers, whose sum does not depend on the order of the summation.
        others = size - len(listed) + 2 * (len(codes) - int(counts.sum()))
        return Order0(size, listed, rans.quantised(np.append(2.0 * counts + 1, float(others))))

    @property
    def nbytes(self) -> int:
        """The number of bytes of its table: each listed code and its frequency."""
        return len(self.listed) * (width(self.size) + rans.PRECISION // 8)

    def parts(self, codes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return codes (n,) as parts for an entropy coder, symbols with their frequencies: the place of each code in
        the list, then the ranks of unlisted codes, digit by digit."""
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
        """Read the next `count` codes (n,) from their `parts`. Raises NotLossless where bytes are missing."""
        places = decoder.take(count, self.frequencies)
        other = places == len(self.listed)
        number = int(np.count_nonzero(other))
        ranks = np.zeros(number, dtype=np.int64)
        for below, frequencies in self._digits() if number else ():
            ranks += decoder.take(number, frequencies) << below
        codes = np.append(self.listed, 0)[places]
        # A listed code minus its place is the number of unlisted codes below it.
        codes[other] = ranks + (self.listed - np.arange(len(self.listed))).searchsorted(ranks, side="right")
        return codes

    def _digits(self) -> list[tuple[int, np.ndarray]]:
        """Return the digits of a rank among the unlisted codes: the number of bits below each digit, and the equal
        frequencies of its values. The first digit has 2^16 values or more, so the unused part of its last value wastes
        very little."""
        last = max(0, self.size - len(self.listed) - 1)
        bits = max(0, last.bit_length() - 16)
        digits = [(bits, rans.quantised(np.ones((last >> bits) + 1)))]
        for below in reversed(range(0, bits, 16)):
            digits.append((below, rans.quantised(np.ones(1 << min(16, bits - below)))))
        return digits


def encode(coded: Sequence[tuple[np.ndarray, Order0]]) -> bytes:
    """Encode sets of codes (n,), each with its own model, as one stream of bytes."""
    parts = [part for codes, model in coded for part in model.parts(codes)]
    return rans.encode(parts, rans.lanes(sum(len(codes) for codes, _ in coded)))


def decode(data: bytes, coded: Sequence[tuple[int, Order0]]) -> list[np.ndarray]:
    """Decode the sets of codes of such a stream, given the number of codes and the model of each set.

    Raises NotLossless where bytes are missing.
    """
    decoder = rans.Decoder(data, rans.lanes(sum(count for count, _ in coded)))
    return [model.read(decoder, count) for count, model in coded]


def order0(sets: Sequence[tuple[np.ndarray, np.ndarray, int]]) -> tuple[int, list[Order0]]:
    """Return the bytes that sets of codes take in one stream, and their models. Raises NotLossless.

    A set consists of the codes (m,) that its model is fitted on, the codes (n,) that are coded, and the codebook's
    size. The bytes of the models are not counted. The overhead of the stream, at most 64 bits per 65,536 codes and at
    least once, is paid once for all sets.
    """
    models = [Order0.fit(fitted_on, size) for fitted_on, _, size in sets]
    data = encode([(codes, model) for (_, codes, _), model in zip(sets, models, strict=True)])
    decoded_sets = decode(data, [(len(codes), model) for (_, codes, _), model in zip(sets, models, strict=True)])
    for decoded, (_, codes, size) in zip(decoded_sets, sets, strict=True):
        if not np.array_equal(decoded, codes):
            raise NotLossless(f"order-0 coding of {len(codes):,} codes out of {size:,} did not reproduce them")
    return len(data), models


def width(size: int) -> int:
    """Return the bytes per code of a codebook of `size`: 1, 2, 4 or 8."""
    return next(count for count in (1, 2, 4, 8) if size <= 256**count)


def serialise(codes: np.ndarray, size: int) -> np.ndarray:
    """Return codes (..., N) as little-endian bytes, uint8 (..., N * width)."""
    return np.ascontiguousarray(codes, dtype=f"<u{width(size)}").view(np.uint8)


class BytePairs:
    """A vocabulary of at most `most` tokens, fitted on rows of bytes, uint8 (n,) each. Merges do not cross rows.

    alphabet: bytes lie in [0, alphabet). Each has its own token, so that every row can be coded.
    """

    def __init__(self, rows: Sequence[np.ndarray], alphabet: int, most: int) -> None:
        # Without a normaliser and a pre-tokenizer, a row is one word with one letter per byte. Tokens of
        # `max_token_length` letters or more are not created (tokenizers 0.23, src/models/bpe/word.rs).
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
        """The number of bytes of its merges, which have two tokens each."""
        return self._merges * 2 * width(len(self))

    def encode(self, rows: Sequence[np.ndarray]) -> Iterator[list[int]]:
        """Yield the tokens of each row."""
        for first in range(0, len(rows), _CHUNK):
            texts = [_text(row) for row in rows[first : first + _CHUNK]]
            yield from (encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        """Return the row, uint8 (n,), of these tokens."""
        text = "".join([self._texts[token] for token in tokens])
        return (np.frombuffer(text.encode("utf-32-le"), "<u4") - _FIRST).astype(np.uint8)


def byte_pairs(
    fitted_on: Sequence[np.ndarray], rows: Sequence[np.ndarray], alphabet: int, most: int
) -> tuple[np.ndarray, BytePairs]:
    """Return the number of tokens of each row of bytes (n,), and the vocabulary, fitted on other rows. Raises
    NotLossless."""
    vocabulary = BytePairs(fitted_on, alphabet, most)
    counts = np.zeros(len(rows), dtype=np.int64)
    for at, (row, tokens) in enumerate(zip(rows, vocabulary.encode(rows), strict=True)):
        if not np.array_equal(vocabulary.decode(tokens), row):
            raise NotLossless(f"byte-pair encoding of {len(row):,} bytes did not reproduce them")
        counts[at] = len(tokens)
    return counts, vocabulary


def _text(row: np.ndarray) -> str:
    return (row.astype("<u4") + _FIRST).tobytes().decode("utf-32-le")
