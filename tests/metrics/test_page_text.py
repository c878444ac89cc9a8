"""NED of whole pages: its definition by hand, pages that are left out, and the reader on a real page."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokbench.data.annotations import Annotations, Word
from tokbench.data.stream import AnnotatedImage
from tokbench.data.synthetic import documents
from tokbench.errors import NotApplicable, UsageError
from tokbench.metrics.batch import Batch
from tokbench.metrics.page_text import PageText


class Fixed:
    """Returns the given texts, page by page in the order of the calls."""

    key = name = "fixed"

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def read(self, pages: list[np.ndarray]) -> list[str]:
        assert all(page.shape == (32, 32, 3) and page.dtype == np.uint8 for page in pages)
        return [self.texts.pop(0) for _ in pages]

    def describe(self) -> dict[str, str]:
        return {"reader": self.name}


def pages(*truths: list[Word] | None) -> Batch:
    images = torch.rand(len(truths), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    known = [Annotations(tuple(truth or ())) for truth in truths]
    marked = [AnnotatedImage(*pair) for pair in zip(pixels, known, strict=True)] if any(truths) else None
    return Batch(torch.arange(len(truths)), images, images, marked=marked)


def word(text: str, left: float, top: float) -> Word:
    return Word(text, (left, top, left + 8, top + 8), 0.1)


def test_numbers_by_hand() -> None:
    """Three pages; nothing is read in the original of the second one, so its image is not read at all."""
    metric = PageText(Fixed("ab cd", "", "xyz", "ab  d", "xz"))
    metric.update(pages([word("cd", 10, 0), word("ab", 0, 1)], [word("q", 0, 0)], [word("xy", 0, 0)]))
    found = metric.compute()
    assert found["page_ned"] == pytest.approx(((1 - 1 / 5) + (1 - 1 / 3)) / 2)  # white space counts
    assert found["page_ned_truth"] == pytest.approx(((1 - 1 / 4) + (1 - 1 / 2)) / 2)  # abcd and abd, xy and xz
    assert found["page_ned_original"] == pytest.approx((1 + (1 - 1 / 3)) / 2)
    assert np.isnan(metric.per_image()["page_ned"][1]).tolist() == [False, True, False]
    assert {interval.n for interval in metric.intervals(0).values()} == {2}


def test_without_annotations_only_readings_are_compared() -> None:
    metric = PageText(Fixed("ab", "ab"))
    metric.update(pages(None))
    assert metric.compute() == {"page_ned": 1.0}


def test_originals_without_text_have_no_number() -> None:
    metric = PageText(Fixed("", ""))
    metric.update(pages(None, None))
    with pytest.raises(NotApplicable, match="no text was read in any of the originals"):
        metric.compute()


@pytest.mark.slow
def test_the_reader_reads_a_page() -> None:
    from tokbench.extractors.rapidocr_page import RapidOCRPage

    reader = RapidOCRPage()
    page = documents.make_page("test", 8)
    text, nothing = reader.read([documents.draw(page), np.full((64, 64, 3), 200, dtype=np.uint8)])
    assert page.lines[0].text.replace(" ", "") in text.replace(" ", "") and nothing == ""
    with pytest.raises(UsageError, match=r"rapidocr-page needs pages of shape \(h, w, 3\), uint8"):
        reader.read([np.zeros((8, 8))])
    assert len(reader.describe()["line_reader_sha256"]) == 64
