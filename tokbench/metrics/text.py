"""T-ACC and T-NED of TokBench (Wu et al. 2025, arXiv:2505.18142), and the CER, by an OCR network that reads words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokbench.metrics.annotated import AnnotatedMetric, Found
from tokbench.metrics.text_scores import errors, exact, similarity
from tokbench.stats.binned import CHARACTER_BINS, TEXT_BINS, Bin

if TYPE_CHECKING:
    from tokbench.data.annotations import Box
    from tokbench.data.stream import AnnotatedImage


class Text(AnnotatedMetric):
    """`t_acc`: the share of words that are read exactly; `t_ned`: the mean of 1 - Levenshtein / longer length; `cer`:
    wrong characters over all characters.

    As in TokBench, only words are counted that the reader reads exactly in the original; `words` and `words_filtered`
    say how many are and are not.
    """

    kind = "words"
    curve = CHARACTER_BINS

    def bins(self, side: int) -> Sequence[Bin]:
        return TEXT_BINS.get(side, ())

    def originals(self, marked: AnnotatedImage) -> list[dict[str, Any]]:
        words = marked.known.words
        read = self._reader.read([cut(marked.pixels, word.box) for word in words])
        return [
            {"truth": word.text, "box": list(word.box), "ratio": word.ratio, "original": text}
            for word, text in zip(words, read, strict=True)
        ]

    def again(self, pixels: np.ndarray, marked: AnnotatedImage, known: Sequence[Mapping[str, Any]]) -> list[str | None]:
        kept = [position for position, word in enumerate(known) if exact(word["truth"], word["original"])]
        texts: list[str | None] = [None] * len(known)
        read = self._reader.read([cut(pixels, tuple(known[position]["box"])) for position in kept])
        for position, text in zip(kept, read, strict=True):
            texts[position] = text
        return texts

    def found(self, lines: Sequence[list[dict[str, Any]]]) -> Found:
        words = [(position, word) for position, line in enumerate(lines) for word in line]
        kept = [(position, word) for position, word in words if word["image"] is not None]

        def scores(version: str) -> dict[str, np.ndarray]:
            pairs = [(word["truth"], word[version]) for _, word in kept]
            return {
                "t_acc": np.array([float(exact(*pair)) for pair in pairs]),
                "t_ned": np.array([similarity(*pair) for pair in pairs]),
                "cer": np.array([float(errors(*pair)) for pair in pairs]),
            }

        return Found(
            np.array([word["ratio"] for _, word in kept]),
            np.array([position for position, _ in kept]),
            scores("image"),
            scores("ceiling"),
            frozenset({"cer"}),
            {"cer": np.array([float(len(word["truth"])) for _, word in kept])},
            {"words": float(len(kept)), "words_filtered": float(len(words) - len(kept))},
            frozenset({"t_acc", "t_ned"}),
        )


def cut(pixels: np.ndarray, box: Box) -> np.ndarray:
    """A box's pixels (h, w, 3), its edges rounded outwards and held inside the image."""
    left, top = (max(0, int(edge)) for edge in box[:2])
    right, bottom = (-int(-edge // 1) for edge in box[2:])
    return pixels[top:bottom, left:right]
