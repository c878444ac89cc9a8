"""How well the captions of images are written from their tokens."""

from __future__ import annotations

import numpy as np
import torch

from tokbench.data.vocabulary import split_words
from tokbench.errors import NotApplicable
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.tokenizers.base import ImageModel
from tokbench.tokenizers.captioned import Captioner


class CaptionAccuracy(PerImageMetric):
    """`caption_words`: the share of words that stand at the same place in the written caption and in the image's own,
    of the words of the longer one, as a mean over images. `caption_exact`: the share of images whose captions agree in
    every word. Both are in 0..1; case and punctuation do not count.

    A `Captioner` writes the captions from the tokens alone, each word given the words that it has written before.
    """

    bounds = (0.0, 1.0)

    def __init__(self, model: ImageModel) -> None:
        if not isinstance(model, Captioner):
            raise NotApplicable(f"{model.spec.name}: it does not write captions; classes that inherit Captioner do")
        super().__init__()
        self._model: Captioner = model

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        captions: list[str] = batch.require("captions")
        with torch.inference_mode():
            written = self._model.write_captions(batch.require("tokens"))
        shares = np.array([word_accuracy(one, own) for one, own in zip(written, captions, strict=True)])
        return {"caption_words": shares, "caption_exact": (shares == 1).astype(np.float64)}


def word_accuracy(written: str, own: str) -> float:
    """Return the share of equal words at equal places, of the words of the longer caption; 1 if both are empty."""
    first, second = split_words(written), split_words(own)
    longest = max(len(first), len(second))
    return sum(a == b for a, b in zip(first, second, strict=False)) / longest if longest else 1.0
