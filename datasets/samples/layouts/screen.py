"""Screens: slides, chats, dashboards."""

from __future__ import annotations

from PIL import Image

from layouts.canvas import Page, width_of
from layouts.effects import gradient


def slide(index: int) -> Image.Image:
    if index == 0:
        page = Page(gradient((24, 40, 90), (90, 40, 110), 60))
        page.text(20, 62, "Tokens that", 36, "white", bold=True)
        page.text(20, 104, "carry pictures", 34, "white", bold=True)
        page.rule(20, 154, 120, 154, "#ffd166", 4)
        page.text(20, 166, "A short introduction", 17, "#e6e6fa")
        page.text(20, 226, "Spring school, lecture 2 of 6", 11, "#cfcfe8")
    elif index == 1:
        page = Page("white")
        page.panel(0, 0, 255, 46, "#005f73")
        page.text(14, 23, "Three rules", 24, "white", "lm", bold=True)
        for i, words in enumerate(
            ("Measure before you change a thing", "Change one thing at a time", "Write down what you expected to see")
        ):
            page.ellipse((16, 72 + 54 * i, 26, 82 + 54 * i), "#ee9b00")
            page.paragraph(38, 64 + 54 * i, 206, words, 19, "#222222", leading=1.2)
        page.text(244, 238, "7", 11, "#888888", "ra")
    elif index == 2:
        page = Page("#faf9f6")
        page.text(128, 12, "Rail or road?", 26, "#222222", "ma", bold=True)
        for x, head, colour, lines in (
            (10, "RAIL", "#2a9d8f", ("2 h 40 min", "$31", "6 kg CO2", "work on board")),
            (132, "ROAD", "#e76f51", ("3 h 15 min", "$48", "41 kg CO2", "stop anywhere")),
        ):
            page.panel(x, 56, x + 114, 236, "white", colour, 8, 2)
            page.panel(x, 56, x + 114, 88, colour, radius=8)
            page.text(x + 57, 72, head, 18, "white", "mm", bold=True)
            for i, line in enumerate(lines):
                page.text(x + 57, 112 + 32 * i, line, 15, "#333333", "mm")
    else:
        page = Page("#111111")
        page.text(128, 100, "98.6%", 60, "#39ff88", "mm", bold=True)
        page.text(128, 152, "of all parcels arrive", 19, "white", "mm")
        page.text(128, 178, "within two days", 19, "white", "mm")
        page.text(128, 236, "n = 51,204 parcels, Jan to Jun", 10, "#999999", "mm")
    return page.image


def chat(index: int) -> Image.Image:
    title, talk, paper, mine, theirs, ink = [
        (
            "Nora",
            [
                (0, "Are you at the station?", "18:02"),
                (1, "Almost! Platform 4?", "18:03"),
                (0, "No, 6. By the clock.", "18:03"),
                (1, "OK, see you in 5", "18:04"),
            ],
            "#ece5dd",
            "#dcf8c6",
            "#ffffff",
            "#111111",
        ),
        (
            "Team build",
            [
                (0, "Main is red again :(", "09:41"),
                (1, "My fault, fix is in #2318", "09:44"),
                (0, "Thanks! Merging.", "09:45"),
                (1, "Green. Coffee?", "09:58"),
            ],
            "#16181d",
            "#2b5278",
            "#22262e",
            "#f1f1f1",
        ),
        (
            "Dad",
            [
                (1, "Where is the spare key?", "Tue"),
                (0, "Under the blue pot, left of the door", "Tue"),
                (1, "There are 3 blue pots", "Tue"),
                (0, "Ha ha", "Tue"),
            ],
            "#ffffff",
            "#007aff",
            "#e5e5ea",
            "#000000",
        ),
        (
            "Support",
            [
                (0, "Hello! How can I help?", "14:20"),
                (1, "Order 77-1093 came without the lid", "14:21"),
                (0, "Sorry! A new lid ships today.", "14:23"),
                (1, "Great, thank you.", "14:23"),
            ],
            "#f3eefc",
            "#6a4fb3",
            "#ffffff",
            "#201a33",
        ),
    ][index]
    page = Page(paper)
    page.panel(0, 0, 255, 32, mine if index != 0 else "#075e54")
    page.ellipse((8, 5, 30, 27), "#c8a27c")
    page.text(40, 16, title, 15, "white", "lm")
    y = 42.0
    size = (14, 14, 14, 13)[index]
    for speaker, words, at in talk:
        wide = min(168.0, width_of(words, size)) + 20
        lines = 1 if width_of(words, size) <= 168 else 2
        high = 12 + lines * round(size * 1.3)
        left = 248 - wide if speaker else 8.0
        page.panel(left, y, left + wide, y + high, mine if speaker else theirs, radius=9)
        page.paragraph(
            left + 10, y + 5, wide - 18, words, size, "white" if speaker and index in (2, 3) else ink, leading=1.3
        )
        page.text(left + wide if speaker else left, y + high + 3, at, 9, "#8a8a8a", "ra" if speaker else "la")
        y += high + 17
    return page.image


def dashboard(index: int) -> Image.Image:
    if index == 0:
        page = Page("#eef1f6")
        page.text(12, 8, "Overview", 18, "#1f2937", bold=True)
        for i, (key, value, change) in enumerate(
            (
                ("Orders", "1,284", "+12%"),
                ("Revenue", "$48.2k", "+3.1%"),
                ("Returns", "37", "-8%"),
                ("Rating", "4.7", "+0.1"),
            )
        ):
            x, y = 10 + 120 * (i % 2), 40 + 106 * (i // 2)
            page.panel(x, y, x + 114, y + 98, "white", "#d7dce5", 8)
            page.text(x + 10, y + 8, key, 13, "#6b7280")
            page.text(x + 10, y + 32, value, 27, "#111827")
            page.text(x + 10, y + 74, change, 14, "#15803d" if change[0] == "+" else "#b91c1c")
    elif index == 1:
        page = Page(gradient((60, 120, 200), (150, 200, 235)))
        page.text(128, 12, "Lindenau", 21, "white", "ma")
        page.text(136, 40, "17°", 60, "white", "ma")
        page.text(128, 110, "Light rain until 16:00", 14, "white", "ma")
        for i, (day, high, low) in enumerate((("Wed", 18, 11), ("Thu", 21, 12), ("Fri", 24, 14), ("Sat", 19, 13))):
            x = 12 + 59 * i
            page.panel(x, 146, x + 54, 242, "#3f73ad", radius=8)
            page.text(x + 27, 154, day, 13, "white", "ma")
            page.ellipse((x + 17, 174, x + 37, 194), "#ffd34d" if high > 20 else "#c9d6e2")
            page.text(x + 27, 200, f"{high}°", 15, "white", "ma")
            page.text(x + 27, 220, f"{low}°", 13, "#cfe2f3", "ma")
    else:
        page = Page("#f2f2f7")
        page.text(14, 10, "Settings", 25, "black", bold=True)
        rows = (
            ("Wi-Fi", "HomeNet 5G", None),
            ("Bluetooth", "", True),
            ("Night mode", "", False),
            ("Language", "English", None),
            ("Storage", "41.3 of 64 GB", None),
            ("Version", "17.2.1", None),
        )
        page.panel(8, 48, 248, 246, "white", radius=10)
        for i, (key, value, on) in enumerate(rows):
            y = 65 + 33 * i
            page.text(20, y, key, 15, "black", "lm")
            if on is None:
                page.text(236, y, value, 13, "#8e8e93", "rm")
            else:
                page.panel(202, y - 9, 236, y + 9, "#34c759" if on else "#d1d1d6", radius=9)
                page.ellipse((219 if on else 204, y - 7, 233 if on else 218, y + 7), "white")
            if i:
                page.rule(20, y - 17, 248, y - 17, "#d8d8dc")
    return page.image
