"""EasyOCR's English recognizer (JaidedAI): VGG, two bidirectional LSTMs and CTC, with the weights `english_g2`."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from math import ceil
from pathlib import Path

import numpy as np
import torch

from tokbench.errors import MissingWeights
from tokbench.extractors.recognizer import MAX_ASPECT, TextRecognizer, find_weights
from tokbench.io.hashing import sha256_of
from tokbench.weights.registry import KNOWN_WEIGHTS

(SOURCE,) = KNOWN_WEIGHTS["easyocr"]

HEIGHT = 64


class EasyOCR(TextRecognizer):
    """Reads each crop as EasyOCR does on a CPU: 64 pixels high, with its last column repeated up to a multiple of 64.

    A word that is read with a confidence under 0.1 is read again with more contrast, and the result with the higher
    confidence is used, as in EasyOCR's defaults. EasyOCR's 8-bit quantization, which it applies on CPUs only, is
    disabled: its step size depends on the largest value in the batch, so the text of a word would depend on other words
    and on the device.
    """

    name = "easyocr"

    def __init__(self, allow_download: bool = False, *, device: str = "cpu") -> None:
        """Raises MissingWeights where the package or the weights are not on this machine.

        allow_download: let EasyOCR download the weights into its own folder.
        """
        try:
            import easyocr
        except ImportError as error:
            raise MissingWeights(
                f"easyocr needs the package easyocr ({error}); pip install 'tokbench[text]'",
                public_reason="easyocr needs the package easyocr, which was not installed",
            ) from error
        home = os.environ.get("EASYOCR_MODULE_PATH") or os.environ.get("MODULE_PATH") or "~/.EasyOCR"
        folder = Path(home).expanduser() / "model"
        try:
            folder = find_weights(self.name, SOURCE, folder).path.parent
        except MissingWeights:
            if not allow_download:
                raise
        path = list(sys.path)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():  # the constructor draws random weights
            warnings.simplefilter("ignore")
            self._reader = easyocr.Reader(
                ["en"],
                gpu=False if device == "cpu" else device,
                model_storage_directory=str(folder),
                user_network_directory=str(folder),  # otherwise EasyOCR creates a folder in the home folder
                download_enabled=allow_download,
                detector=False,
                verbose=False,
                quantize=False,
            )
        sys.path[:] = path  # EasyOCR adds the folder of networks to it
        self.sha256, self.device = sha256_of(folder / SOURCE.file), device
        self.threads = torch.get_num_threads() if device == "cpu" else 1
        self.library = f"easyocr {version('easyocr')}, torch {torch.__version__.split('+')[0]}"

    def width(self, height: int, width: int) -> int:
        return HEIGHT * min(max(1, ceil(width / height)), MAX_ASPECT)

    @contextmanager
    def reading(self) -> Iterator[None]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # this applies to the pool's threads, which start after this line
        try:
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                # EasyOCR's loader draws a seed, and warns where there is no accelerator for pinned memory.
                warnings.simplefilter("ignore")
                yield
        finally:
            torch.set_num_threads(threads)

    def read_batch(self, crops: Sequence[np.ndarray], width: int) -> list[str]:
        import cv2
        from easyocr.recognition import get_text
        from easyocr.utils import get_image_list

        inputs = []
        for crop in crops:
            grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
            (image,), _ = get_image_list([[0, grey.shape[1], 0, grey.shape[0]]], [], grey, model_height=HEIGHT)
            inputs.append(image)
        reader = self._reader
        results = get_text(
            reader.character,
            HEIGHT,
            width,
            reader.recognizer,
            reader.converter,
            inputs,
            batch_size=len(inputs),
            workers=0,
            device=self.device,
        )
        return [text for _, text, _ in results]
