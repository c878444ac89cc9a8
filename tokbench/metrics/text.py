"""T-ACC and T-NED of TokBench (Wu et al. 2025, arXiv:2505.18142), and the CER, computed with an OCR network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokbench.metrics.annotated import AnnotatedMetric, AnnotationScores
from tokbench.metrics.text_scores import errors, exact, similarity
from tokbench.stats.binned import CHARACTER_BINS, TEXT_BINS, Bin

if TYPE_CHECKING:
    from tokbench.data.annotations import Box
    from tokbench.data.stream import AnnotatedImage


class Text(AnnotatedMetric):
    """`t_acc`: the share of words that are recognized exactly. `t_ned`: the mean of 1 - Levenshtein distance / longer
    length. `cer`: wrong characters divided by all characters.

    As in TokBench, only words that are recognized exactly in the original count; `words` is their number and
    `words_filtered` the number of the others.
    """

    kind = "words"
    curve = CHARACTER_BINS

    def bins(self, side: int) -> Sequence[Bin]:
        return TEXT_BINS.get(side, ())

    def read_originals(self, marked: AnnotatedImage) -> list[dict[str, Any]]:
        words = marked.known.words
        read = self._reader.read([cut(marked.pixels, word.box) for word in words])
        return [
            {"truth": word.text, "box": list(word.box), "ratio": word.ratio, "original": text}
            for word, text in zip(words, read, strict=True)
        ]

    def read_image(
        self, pixels: np.ndarray, marked: AnnotatedImage, known: Sequence[Mapping[str, Any]]
    ) -> list[str | None]:
        recognized = [position for position, word in enumerate(known) if exact(word["truth"], word["original"])]
        texts: list[str | None] = [None] * len(known)
        read = self._reader.read([cut(pixels, tuple(known[position]["box"])) for position in recognized])
        for position, text in zip(recognized, read, strict=True):
            texts[position] = text
        return texts

    def score(self, lines: Sequence[list[dict[str, Any]]]) -> AnnotationScores:
        words = [(position, word) for position, line in enumerate(lines) for word in line]
        scored_words = [(position, word) for position, word in words if word["image"] is not None]

        def scores(version: str) -> dict[str, np.ndarray]:
            pairs = [(word["truth"], word[version]) for _, word in scored_words]
            return {
                "t_acc": np.array([float(exact(*pair)) for pair in pairs]),
                "t_ned": np.array([similarity(*pair) for pair in pairs]),
                "cer": np.array([float(errors(*pair)) for pair in pairs]),
            }

        return AnnotationScores(
            np.array([word["ratio"] for _, word in scored_words]),
            np.array([position for position, _ in scored_words]),
            scores("image"),
            scores("ceiling"),
            frozenset({"cer"}),
            {"cer": np.array([float(len(word["truth"])) for _, word in scored_words])},
            {"words": float(len(scored_words)), "words_filtered": float(len(words) - len(scored_words))},
            frozenset({"t_acc", "t_ned"}),
        )


def cut(pixels: np.ndarray, box: Box) -> np.ndarray:
    """Return a box's pixels (h, w, 3), with its edges rounded outwards and clipped to the image."""
    left, top = (max(0, int(edge)) for edge in box[:2])
    right, bottom = (-int(-edge // 1) for edge in box[2:])
    return pixels[top:bottom, left:right]
