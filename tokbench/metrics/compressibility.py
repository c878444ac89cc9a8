"""The bits that the codes of a discrete tokenizer take with lossless coders."""

from __future__ import annotations

import math

import numpy as np

from tokbench.errors import NotApplicable
from tokbench.metrics.batch import Batch
from tokbench.metrics.coders import entropy, rans
from tokbench.metrics.token_metric import LENGTH, TokenMetric
from tokbench.tokenizers.tokens import Tokens

FEWEST = 64
"""The smallest number of images; with fewer, half of them are too few to fit the coders."""

VOCABULARY = 4096


class Coding(TokenMetric):
    """Bits per image with two lossless coders.

    `order0_bits_per_image`: 8 times the bytes of a static entropy coder with one model per stream and group. All models
    share one stream of bytes, so the overhead (at most 64 bits per 65,536 codes of the set, and at least once) does not
    grow with the number of streams and groups. `bpe_tokens_per_image` and `bpe_bits_per_image`: the number of tokens of
    byte-pair encoding, with log2 of the vocabulary's size as bits per token. An image is one row of bytes, stream after
    stream; a code takes 1 byte where K <= 256, else 2, 4 or 8.

    The coders are fitted on the images of even rank in the dataset's order. The images of odd rank are coded, decoded,
    compared and counted. The decoder's tables of counts or merges are not counted; their sizes are `order0_model_bytes`
    and `bpe_model_bytes`. Where images differ in length, only the first `length` tokens of each are coded, in the order
    in which they are stored. The lengths are coded at order 0, in the same stream (for byte pairs, in a separate one),
    and are included in both bits.

    `bits_per_image` in contrast assumes no coder. Raises NotLossless where a coder fails.
    """

    def __init__(self, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        self._vocabulary = vocabulary

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return the codes and each image's length.

        Raises NotApplicable where not all tokens are codes, or where it is unknown which of them count.
        """
        columns = super().per_sample(batch)
        tokens: Tokens = batch.require("tokens")
        if others := [name for name, stream in tokens.streams.items() if stream.kind != "index"]:
            raise NotApplicable(f"the tokens of stream '{others[0]}' are not codes, so an image cannot be coded")
        positions = sum(columns[name].shape[1] // stream.groups for name, stream in tokens.streams.items())
        lengths = columns[LENGTH]
        if len(lengths) and (lengths.max() > positions or (len(tokens.streams) > 1 and lengths.min() < positions)):
            raise NotApplicable(
                f"images have {lengths.min()} to {lengths.max()} tokens, stored at {positions} positions of "
                f"{len(tokens.streams)} streams, and it is unknown which of these count"
            )
        return columns

    def compute(self) -> dict[str, float]:
        """Return the numbers. Raises NotApplicable where there are too few images to fit a coder on half of them."""
        if len(self.rows) < FEWEST:
            raise NotApplicable(
                f"half of the images are used to fit the coders, so it needs {FEWEST} or more, not {len(self.rows)}"
            )
        lengths = self.lengths()
        streams = [(self.rows.column(name), int(self.size(name)), self.groups(name)) for name in self.streams()]
        positions = sum(codes.shape[1] // groups for codes, _, groups in streams)
        side = [(lengths[::2], lengths[1::2], positions + 1)] if len(np.unique(lengths)) > 1 else []
        sets = [
            (*_halves(codes[:, group::groups], lengths), size)
            for codes, size, groups in streams
            for group in range(groups)
        ]
        order0_bytes, models = entropy.order0(sets + side)
        side_bytes, side_models = entropy.order0(side)  # the lengths for byte pairs, in a stream of their own
        data = np.concatenate([entropy.serialise(codes, size) for codes, size, _ in streams], axis=1)
        rows = [row[:end] for row, end in zip(data, lengths * data.shape[1] // max(1, positions), strict=True)]
        alphabet = min(256, max(size for _, size, _ in streams))
        tokens, pairs = entropy.byte_pairs(rows[::2], rows[1::2], alphabet, self._vocabulary)
        images, total = len(tokens), int(tokens.sum())
        return {
            "order0_bits_per_image": 8 * order0_bytes / images,
            "bpe_bits_per_image": (total * math.log2(len(pairs)) + 8 * side_bytes) / images,
            "bpe_tokens_per_image": total / images,
            "order0_model_bytes": float(sum(model.nbytes for model in models)),
            "bpe_model_bytes": float(pairs.nbytes + sum(model.nbytes for model in side_models)),
        }

    def provenance(self) -> dict[str, str]:
        # No counts of images or bytes here, since numbers with different provenance are not compared.
        return {
            "coder": (
                f"order 0: counts and 1/2, one range ANS stream, {rans.PRECISION}-bit frequencies; byte pairs: at most "
                f"{self._vocabulary:,} tokens of {entropy.LONGEST} bytes, of pairs seen {entropy.RAREST} times"
            ),
            "images": "fitted on the 1st, 3rd, 5th ..., measured on the 2nd, 4th, 6th ...",
            "model": "not counted; its size is order0_model_bytes, bpe_model_bytes",
        }


def _halves(codes: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes that count, image after image, of the images of even rank and of those of odd rank."""
    counts = np.arange(codes.shape[1]) < lengths[:, None]
    return codes[::2][counts[::2]], codes[1::2][counts[1::2]]
