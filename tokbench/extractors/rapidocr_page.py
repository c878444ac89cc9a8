"""A reader of whole pages: PP-OCRv6 small finds the lines of text, and `RapidOCR` reads each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tokbench.data.annotations import reading_order
from tokbench.errors import UsageError
from tokbench.extractors.rapidocr import RapidOCR
from tokbench.extractors.reader import Recognizer
from tokbench.weights.registry import KNOWN_WEIGHTS, resolve


class RapidOCRPage(Recognizer):
    """`read(pages)` returns the text of each page: its lines, joined without a separator as in OmniDoc-TokenBench.

    The settings of detection are RapidOCR's: the shorter side is enlarged to 736 pixels. Lines are in reading order
    (`tokbench.data.annotations.reading_order`), not in that of RapidOCR, which takes lines that are less than ten
    pixels apart for one row: at 256 pixels those are lines of one column. No line is left out for a low score, and none
    is turned. A page is read alone, so its text depends on no other page.
    """

    name = "rapidocr-page"

    def __init__(self, allow_download: bool = False) -> None:
        """Raises MissingWeights where the packages or one of the two models are not on this machine."""
        self._lines = RapidOCR(allow_download)  # first: its message names the packages
        found = resolve(self.name, KNOWN_WEIGHTS[self.name], allow_download)
        import rapidocr
        from rapidocr.ch_ppocr_det import TextDetector
        from rapidocr.utils.parse_parameters import ParseParams

        self.sha256, self.library = found.sha256, self._lines.library
        settings = ParseParams.load(Path(rapidocr.__file__).parent / "config.yaml")
        engine = settings.EngineConfig.onnxruntime
        engine.intra_op_num_threads = self._lines.threads
        settings.Det.engine_cfg = engine
        settings.Det.model_path = str(found.path)  # with a path nothing is downloaded
        self._detector = TextDetector(settings.Det)

    def describe(self) -> dict[str, str]:
        return super().describe() | {"line_reader_sha256": self._lines.sha256}

    def read(self, pages: Sequence[np.ndarray]) -> list[str]:
        """Return the text of each page, "" if no line was found. pages: uint8 RGB, each (h, w, 3) of any size.

        Raises UsageError for anything else.
        """
        return ["".join(self._lines.read(self._cut_lines(page))) for page in pages]

    def _cut_lines(self, page: np.ndarray) -> list[np.ndarray]:
        """Return the lines of a page, each straightened, in reading order."""
        from rapidocr.utils.process_img import get_rotate_crop_image

        if page.ndim != 3 or page.shape[2] != 3 or page.dtype != np.uint8:
            raise UsageError(f"{self.name} needs pages of shape (h, w, 3), uint8, not {page.shape} {page.dtype}")
        page = np.ascontiguousarray(page)
        found = self._detector(np.ascontiguousarray(page[..., ::-1])).boxes  # the network was trained on BGR
        if found is None:
            return []
        corners = np.asarray(found, dtype=np.float32)  # (n, 4, 2)
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).tolist()
        return [get_rotate_crop_image(page, corners[place].copy()) for place in reading_order(boxes)]
