"""The text pages of this dataset: kinds of layout, each a function from a number to a 256x256 RGB image."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from layouts import editor, figures, grounds, paper, prose, screen, street, tables

KINDS: dict[str, tuple[Callable[[int], Image.Image], int]] = {
    "book": (prose.book, 5),
    "news": (prose.news, 4),
    "letter": (prose.letter, 3),
    "menu": (paper.menu, 3),
    "ticket": (paper.ticket, 3),
    "receipt": (paper.receipt, 4),
    "table": (tables.table, 4),
    "form": (tables.form, 3),
    "calendar": (tables.calendar, 2),
    "chart": (figures.chart, 3),
    "label": (figures.label, 4),
    "code": (editor.code, 5),
    "terminal": (editor.terminal, 3),
    "slide": (screen.slide, 4),
    "chat": (screen.chat, 4),
    "dashboard": (screen.dashboard, 3),
    "poster": (street.poster, 6),
    "sign": (street.sign, 6),
    "map": (grounds.plan, 3),
    "faint": (grounds.faint, 3),
    "noise": (grounds.noise, 4),
}
"""Each kind of page: what draws it, and how many of it there are."""
