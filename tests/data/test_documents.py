"""Pages of text: every kind in both scripts, annotations that lie on the ink, reading order, missing fonts."""

from __future__ import annotations

import hashlib
import importlib.util

import numpy as np
import pytest

from tokbench.data.annotations import reading_order
from tokbench.data.dataset import open_dataset
from tokbench.data.sources.annotated import AnnotatedSource
from tokbench.data.synthetic import documents
from tokbench.data.synthetic.document_words import WORDS
from tokbench.errors import DataError
from tokbench.protocol.protocol import load_protocol


def test_texts_and_layouts_never_change() -> None:
    """Results name the dataset, so its name must always mean the same pages. The pixels depend on FreeType, too."""
    pages = [documents.make_page("test", position) for position in range(18)]
    texts = [(page.kind, page.script, page.paper, [line.text for line in page.lines]) for page in pages]
    assert hashlib.sha256(repr(texts).encode()).hexdigest()[:16] == "0b11ac6162f49ef4"
    assert len({(page.kind, page.script) for page in pages}) == 18


@pytest.mark.parametrize("position", range(18))
def test_the_ink_of_each_line_lies_in_its_box(position: int) -> None:
    page = documents.make_page("test", position)
    words = documents.annotations_of(page).words
    assert "".join(word.text for word in words) == "".join(line.text for line in page.lines)
    pixels = documents.draw(page).astype(int)
    blank = documents.draw(documents.Page(page.kind, page.script, page.paper, page.areas, ())).astype(int)
    ink, inside = np.abs(pixels - blank).max(axis=2) > 24, np.zeros((256, 256), dtype=bool)
    for word in words:
        left, top, right, bottom = word.box
        box = np.s_[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))]
        assert ink[box].any(), word
        inside[box] = True
    assert not (ink & ~inside).any()


def test_words_of_a_script_are_many_and_distinct() -> None:
    for words in WORDS.values():
        assert len(words) == len(set(words)) >= 200


def test_the_dataset_has_pages_with_annotations_and_no_captions() -> None:
    dataset = open_dataset("documents", load_protocol("tokbench"), limit=2)
    assert isinstance(dataset.source, AnnotatedSource) and dataset.captions is None
    images = next(iter(dataset.batches(2)))
    assert images.reference.shape == (2, 3, 256, 256) and images.marked is not None
    assert [len(one.known.words) > 10 for one in images.marked] == [True, True]


def test_reading_order_is_by_rows() -> None:
    rows = [(10, 0, 50, 10), (60, 2, 90, 11), (12, 9, 40, 19), (100, 1, 140, 9)]
    assert reading_order(rows) == [0, 1, 3, 2]
    assert reading_order([(0, 20, 9, 29), (0, 0, 9, 9), (0, 10, 9, 19)]) == [1, 2, 0]
    assert reading_order([]) == []


def test_missing_fonts_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    documents._load.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"ipaexg\.ttf of the package matplotlib-fontja; pip install .*documents"):
        documents.make_page("test", 9)
