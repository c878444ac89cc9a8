"""PARSeq (Bautista and Atienza, ECCV 2022, arXiv:2207.06966) as trained by docTR: the recognizer of the
TokBench paper."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from tokbench.errors import MissingWeights
from tokbench.extractors.recognizer import TextRecognizer, find_weights
from tokbench.weights.registry import KNOWN_WEIGHTS

(SOURCE,) = KNOWN_WEIGHTS["parseq"]

WIDTH = 128


class PARSeq(TextRecognizer):
    """Reads each crop at 32 x 128: resized with its aspect ratio kept, padded with black at the right or bottom. The
    alphabet is docTR's `french`.

    docTR's splitting of wide crops into overlapping pieces is disabled, as in TokBench's evaluation. The text of a crop
    does not depend on other crops: all inputs have one size, and the decoder's output after the end of a word is
    masked.
    """

    name = "parseq"
    batch = 64

    def __init__(self, allow_download: bool = False, *, device: str = "cpu") -> None:
        """Raises MissingWeights where docTR or the weights are not on this machine."""
        try:
            from doctr.models import parseq, recognition_predictor
        except ImportError as error:
            raise MissingWeights(
                f"parseq needs the package python-doctr ({error}); pip install 'python-doctr>=0.12'",
                public_reason="parseq needs the package python-doctr, which was not installed",
            ) from error
        cache = os.environ.get("DOCTR_CACHE_DIR") or "~/.cache/doctr"
        found = find_weights(self.name, SOURCE, Path(cache).expanduser() / "models", allow_download)
        self.sha256, self.device = found.sha256, device
        self.library = f"python-doctr {version('python-doctr')}, torch {torch.__version__.split('+')[0]}"
        with torch.random.fork_rng(devices=[]):  # the constructor draws random weights
            model = parseq(pretrained=False)
        model.from_pretrained(str(found.path))
        self._predictor = recognition_predictor(model.to(device), batch_size=self.batch)
        self._predictor.split_wide_crops = False

    def width(self, height: int, width: int) -> int:
        return WIDTH

    def read_batch(self, crops: Sequence[np.ndarray], width: int) -> list[str]:
        return [text for text, _ in self._predictor(list(crops))]
