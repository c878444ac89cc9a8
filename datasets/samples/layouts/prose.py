"""Printed paper that is mostly running text: books, newspapers, letters."""

from __future__ import annotations

from PIL import Image

from layouts.canvas import Page
from layouts.effects import tilt
from layouts.words import ALICE, CITIES, MOBY, PRIDE, STORIES, WALDEN


def book(index: int) -> Image.Image:
    paper, ink = [
        ("#f6efdd", "#2a2016"),
        ("white", "black"),
        ("#efe9dc", "#222222"),
        ("#fbf8f0", "#1c1c2a"),
        ("#e9d9b8", "#3b2a14"),
    ][index]
    page = Page(paper)
    if index == 0:
        page.text(128, 12, "ALICE'S ADVENTURES IN WONDERLAND", 9, ink, "ma")
        page.rule(28, 27, 228, 27, ink)
        page.paragraph(28, 36, 200, ALICE, 10, ink, justify=True, bottom=236, indent=12)
        page.text(128, 238, "9", 10, ink, "ma")
    elif index == 1:
        page.text(128, 22, "CHAPTER I.", 18, ink, "ma")
        page.rule(108, 50, 148, 50, ink)
        page.paragraph(26, 64, 204, PRIDE, 11, ink, justify=True, indent=16, leading=1.6)
    elif index == 2:
        page.text(31, 20, "4", 9, ink)
        page.text(225, 20, "LOOMINGS", 9, ink, "ra")
        page.paragraph(31, 38, 194, MOBY, 10, ink, justify=True, bottom=240, leading=1.4)
        return tilt(page.image, 2.4, "#8d8778")
    elif index == 3:
        page.text(128, 16, "Book the First. Recalled to Life", 10, ink, "ma")
        page.text(128, 38, "I. The Period", 15, ink, "ma", bold=True)
        page.panel(24, 70, 66, 112, "#7a1f2b")
        page.text(45, 92, "I", 38, "#f6e7c8", "mm")
        cut = CITIES.index("of foolishness")
        first, rest = CITIES[:cut], CITIES[cut:]
        y = page.paragraph(74, 72, 160, first.strip(), 12, ink, justify=True)
        page.paragraph(24, max(y, 120), 210, rest.strip(), 12, ink, justify=True, bottom=250)
    else:
        page.paragraph(22, 24, 212, WALDEN, 16, ink, leading=1.45)
        page.text(234, 230, "Thoreau, Walden", 11, ink, "ra")
    return page.image


def news(index: int) -> Image.Image:
    if index == 0:
        page = Page("#f1eee6")
        page.text(128, 8, "The Harbour Gazette", 24, "black", "ma", bold=True)
        page.rule(10, 40, 246, 40, width=2)
        page.text(10, 44, "No. 4,812", 8)
        page.text(128, 44, "TUESDAY, 9 MAY", 8, anchor="ma")
        page.text(246, 44, "Price 2.50", 8, anchor="ra")
        page.rule(10, 57, 246, 57)
        page.text(10, 63, "Old bridge opens after repairs", 16, bold=True)
        for column, story in enumerate(("bridge", "bridge", "ferry")):
            half = len(STORIES["bridge"]) // 2
            cut = STORIES["bridge"].index(" ", half - 6)
            words = [STORIES["bridge"][:cut], STORIES["bridge"][cut:], STORIES[story]][column]
            y = 88.0
            if column == 2:
                page.text(174, 88, "Fog delays ferry", 9, bold=True)
                y = 103
            page.paragraph(10 + 82 * column, y, 72, words.strip(), 8, "#222222", leading=1.2, bottom=242)
        page.text(246, 240, "Continued on page 4", 7, "#222222", "ra")
        page.rule(87, 88, 87, 248, "#999999")
        page.rule(169, 88, 169, 248, "#999999")
    elif index == 1:
        page = Page("#e8e4da")
        page.text(128, 10, "VALLEY MARKET POST", 19, "#14213d", "ma", bold=True)
        page.rule(12, 36, 244, 36, "#14213d", 3)
        page.text(12, 44, "Best apple harvest", 20, bold=True)
        page.text(12, 68, "in nine years", 20, bold=True)
        page.panel(134, 98, 244, 170, "#b9c6b0")
        for i in range(5):  # a drawn picture: hills, trees with apples
            page.ellipse((138 + 21 * i, 118 + 6 * (i % 2), 158 + 21 * i, 142 + 6 * (i % 2)), "#5f7d53")
            page.ellipse((145 + 21 * i, 126, 150 + 21 * i, 131), "#b33a2b")
            page.rule(148 + 21 * i, 140, 148 + 21 * i, 160, "#5a4632", 3)
        page.panel(134, 158, 244, 170, "#7c9168")
        page.text(134, 173, "Orchards on the south bank", 8, "#444444")
        page.paragraph(12, 98, 112, STORIES["harvest"], 9, "#202020", leading=1.25, bottom=240)
        page.text(12, 239, "Turn to page 3", 9, "#14213d", bold=True)
        page.paragraph(134, 190, 110, "The fair opens at noon on the 14th. Bring your own cups.", 10, leading=1.25)
    elif index == 2:
        page = Page("#f4f1ea", (276, 276))
        page.panel(20, 18, 256, 40, "#111111")
        page.text(138, 29, "EVENING COURIER", 16, "white", "mm", bold=True)
        page.text(20, 46, "Library to stay open until nine", 16, bold=True)
        page.rule(20, 69, 256, 69)
        page.paragraph(20, 76, 112, STORIES["library"], 9, leading=1.25, justify=True, bottom=262)
        page.text(146, 76, "Pupils' telescope", 12, bold=True)
        page.text(146, 90, "sees first light", 12, bold=True)
        page.paragraph(146, 110, 110, STORIES["telescope"], 9, leading=1.25, bottom=262)
        page.rule(139, 76, 139, 260, "#888888")
        return tilt(page.image, -1.6, "#c9c4b8").crop((10, 10, 266, 266))
    else:
        page = Page("white")
        page.text(14, 12, "Journal of Small Results, vol. 7, p. 41", 7, "#555555")
        page.text(128, 30, "Viability of Stored Seeds", 17, anchor="ma", bold=True)
        page.text(128, 54, "A. Marlow and P. Ferrand", 10, anchor="ma")
        page.paragraph(36, 74, 184, "Abstract. " + STORIES["seeds"], 8, justify=True, leading=1.25)
        page.paragraph(
            14,
            146,
            108,
            "1. Introduction\nLong storage is common, yet counts after more than forty years "
            "are rare. We report one jar, opened in the sixtieth year.\n3. Results\nTwelve seeds grew (24%), "
            "nine of them in the first five days.",
            8,
            justify=True,
            leading=1.25,
        )
        page.paragraph(
            134,
            146,
            108,
            "2. Methods\nFifty seeds were placed on moist paper at 21 °C. Sprouts were counted "
            "daily for two weeks [1, 4].\n4. Discussion\nDry air matters more than cold. One jar is one jar: "
            "we ask others to open theirs.",
            8,
            justify=True,
            leading=1.25,
        )
    return page.image


def letter(index: int) -> Image.Image:
    if index == 0:
        page = Page("#fffdf7")
        for i, line in enumerate(("14 Orchard Lane", "Little Wending", "3 October")):
            page.text(240, 16 + 14 * i, line, 10, "#1d2b53", "ra")
        page.text(18, 68, "Dear Miss Calloway,", 12, "#1d2b53")
        page.paragraph(
            18,
            90,
            220,
            "Thank you for the loan of the ladder. The roof is dry again and the cat has come "
            "down. May I return it on Thursday, with a jar of the plum jam you liked? The rain is due at "
            "four, so I shall come early.",
            12,
            "#1d2b53",
            leading=1.4,
        )
        page.text(140, 206, "Yours sincerely,", 12, "#1d2b53")
        page.text(140, 224, "R. Whitlock", 15, "#1d2b53")
        return page.image
    if index == 1:
        page = Page("#f7f7f5", (280, 280))
        page.text(30, 26, "MEMORANDUM", 18, bold=True)
        for i, (key, value) in enumerate(
            (
                ("TO", "All laboratory staff"),
                ("FROM", "Facilities"),
                ("DATE", "12/11/2024"),
                ("RE", "Water shut-off, Building 7"),
            )
        ):
            page.text(30, 56 + 15 * i, key + ":", 11)
            page.text(84, 56 + 15 * i, value, 11)
        page.rule(30, 120, 250, 120, width=2)
        page.paragraph(
            30,
            130,
            218,
            "The water will be off on Friday between 06:00 and 10:30. Please close all taps, "
            "label open experiments and do not use the ice machine.\nQuestions: extension 4471.\nThank you. M. Ferrand",
            12,
            leading=1.5,
        )
        return tilt(page.image, 3.0, "#b7b2a6").crop((12, 12, 268, 268))
    page = Page("#f3e3c3")
    page.rule(132, 20, 132, 236, "#9c8b68")
    page.paragraph(
        12,
        28,
        112,
        "The sea is warm and the trains are slow. We ate figs for breakfast and walked to the "
        "lighthouse. Home on Sunday! Love, Ida and Tom",
        12,
        "#33418c",
        leading=1.4,
    )
    for i, line in enumerate(("Mr J. Okafor", "22 Mill Street", "Flat 5", "Northgate NG4 8TR")):
        page.text(142, 129 + 24 * i, line, 11, "#33418c")
        page.rule(140, 146 + 24 * i, 244, 146 + 24 * i, "#9c8b68")
    page.panel(196, 16, 244, 74, "#c9483b", "#f7efdd", width=3)
    page.text(220, 38, "45", 22, "white", "mm", bold=True)
    page.text(220, 60, "POST", 9, "white", "mm")
    return page.image
