"""NED of whole pages: how alike an OCR network reads a reconstruction and the original (arXiv:2605.13565)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tokbench.data import annotations as image_annotations
from tokbench.errors import NotApplicable
from tokbench.extractors import pool
from tokbench.io.hashing import code_of
from tokbench.metrics.base import PerImageMetric
from tokbench.metrics.batch import Batch
from tokbench.metrics.text_scores import similarity
from tokbench.protocol.protocol import TOKBENCH, Protocol

if TYPE_CHECKING:
    from tokbench.data.stream import AnnotatedImage
    from tokbench.extractors.rapidocr_page import RapidOCRPage


class PageText(PerImageMetric):
    """`page_ned`: the mean over pages of 1 - edit distance / length of the longer text, between what the network reads
    in the image and in the original, as in OmniDoc-TokenBench. Pages in whose original nothing is read are left out.

    `page_ned_truth` compares the reading of the image with the true text, for datasets with annotated words, and
    `page_ned_original` that of the original, which is the ceiling that the network sets. White space does not count in
    these two, since annotations do not define where lines are joined; words are in reading order.
    """

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __init__(self, reader: RapidOCRPage, protocol: Protocol = TOKBENCH, suffix: str = "") -> None:
        """suffix: appended to the name of every number, so that the numbers of two readers differ in name."""
        super().__init__()
        self._reader, self._rounding, self._suffix = reader, protocol.rounding, suffix

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        images, references = self._pages(batch, "image"), self._pages(batch, "reference")

        def read_references(span: slice) -> dict[str, np.ndarray]:
            return {"text": np.array(self._reader.read(references[span]))}

        if batch.references is None or batch.digests is None:
            originals = read_references(slice(None))["text"].tolist()
        else:
            key = f"{self._key}/{self._rounding}"
            originals = batch.references.arrays(key, batch.index, batch.digests, read_references)["text"].tolist()
        read = [place for place, text in enumerate(originals) if text]
        texts = dict(zip(read, self._reader.read([images[place] for place in read]), strict=True))
        columns = {"page_ned": [similarity(originals[place], texts[place]) for place in read]}
        if batch.marked is not None:
            truths = {place: true_text(batch.marked[place]) for place in read}
            for name, found in (("page_ned_truth", texts), ("page_ned_original", dict(enumerate(originals)))):
                columns[name] = [
                    similarity(truths[place], _without_space(found[place])) if truths[place] else np.nan
                    for place in read
                ]
        values = {}
        for name, known in columns.items():
            values[name + self._suffix] = np.full(len(batch), np.nan)
            values[name + self._suffix][read] = known
        return values

    def compute(self) -> dict[str, float]:
        numbers = super().compute()
        if np.isnan(numbers[f"page_ned{self._suffix}"]):
            raise NotApplicable("no text was read in any of the originals")
        return {name: value for name, value in numbers.items() if not np.isnan(value)}

    def provenance(self) -> dict[str, str]:
        return self._reader.describe()

    def _pages(self, batch: Batch, side: str) -> list[np.ndarray]:
        """Return one side's images as uint8 (H, W, 3)."""
        levels = batch.levels("image" if side == "image" else "reference", self._rounding)
        pixels = levels.permute(0, 2, 3, 1).numpy()
        return list(pixels if pixels.dtype == np.uint8 else pixels.round().astype(np.uint8))

    @cached_property
    def _key(self) -> str:
        code = code_of(Path(pool.__file__).parent, Path(__file__), Path(image_annotations.__file__))
        return f"{self._reader.key}/pages/{code}"


def true_text(marked: AnnotatedImage) -> str:
    """Return the annotated words of an image in reading order, without white space."""
    words = marked.known.words
    order = image_annotations.reading_order([word.box for word in words])
    return _without_space("".join(words[place].text for place in order))


def _without_space(text: str) -> str:
    return "".join(text.split())
