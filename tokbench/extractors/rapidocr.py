"""RapidOCR's recognizer: PP-OCRv6 small (PaddleOCR, arXiv:2009.09941 and its successors), run by onnxruntime.

The model is in the wheel of `rapidocr`. Its alphabet covers about 50 languages, so a word that is hard to read may be
recognized in another script.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from tokbench.errors import MissingWeights
from tokbench.extractors import recognizer
from tokbench.weights.registry import KNOWN_WEIGHTS, resolve

(SOURCE,) = KNOWN_WEIGHTS["rapidocr"]

HEIGHT, WIDTH = 48, 320
"""The size of the network's input in pixels; wider words get a wider input."""


class RapidOCR(recognizer.TextRecognizer):
    """Reads each crop as RapidOCR reads a single crop: 48 pixels high, padded with grey at the right to 320 pixels, or
    wider where the crop is.

    In RapidOCR's own batches a word is padded to the width of the widest word, so its text depends on the other words.
    Here it does not.
    """

    name = "rapidocr"

    def __init__(self, allow_download: bool = False) -> None:
        """Raises MissingWeights where the packages or the model are not on this machine."""
        # onnxruntime reads this when it starts; without it, it stores an id of the machine in the home folder.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime  # rapidocr itself imports it only when the model is loaded
            import rapidocr
            from rapidocr.ch_ppocr_rec import TextRecognizer
            from rapidocr.utils.parse_parameters import ParseParams
        except ImportError as error:
            raise MissingWeights(
                f"rapidocr needs the packages rapidocr and onnxruntime ({error}); pip install 'tokbench[text]'",
                public_reason="rapidocr needs the packages rapidocr and onnxruntime, which were not installed",
            ) from error
        found = resolve(self.name, [SOURCE], allow_download)
        self.sha256 = found.sha256
        self.library = f"rapidocr {version('rapidocr')}, onnxruntime {onnxruntime.__version__}"
        logging.getLogger("RapidOCR").setLevel(logging.ERROR)
        settings = ParseParams.load(Path(rapidocr.__file__).parent / "config.yaml")
        engine = settings.EngineConfig.onnxruntime
        engine.intra_op_num_threads, self.threads = 1, torch.get_num_threads()
        settings.Rec.engine_cfg = engine
        settings.Rec.model_path = str(found.path)  # with a path nothing is downloaded
        self._recognizer = TextRecognizer(settings.Rec)

    def width(self, height: int, width: int) -> int:
        return min(max(WIDTH, HEIGHT * width // height), HEIGHT * recognizer.MAX_ASPECT)

    def read_batch(self, crops: Sequence[np.ndarray], width: int) -> list[str]:
        # The network was trained on BGR.
        bgr = [np.ascontiguousarray(crop[..., ::-1]) for crop in crops]
        # Half a pixel is added since the width is truncated after a division and a multiplication.
        inputs = np.stack([self._recognizer.resize_norm_img(crop, (width + 0.5) / HEIGHT) for crop in bgr])
        lines, _ = self._recognizer.postprocess_op(self._recognizer.session(inputs))
        return [text for text, _ in lines]
