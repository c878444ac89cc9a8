"""Columns of words and figures: tables, forms, calendars."""

from __future__ import annotations

import calendar as months
import random

from PIL import Image

from layouts.canvas import Page
from layouts.effects import grain, tilt


def table(index: int) -> Image.Image:
    if index == 0:
        page = Page("#0d2137")
        page.text(12, 10, "DEPARTURES", 22, "#ffd23f")
        page.text(244, 12, "14:26", 19, "white", "ra")
        rows = [
            ("14:31", "Ashford", "2", "On time"),
            ("14:38", "Port Ellery", "5", "+4 min"),
            ("14:45", "Lindenau", "1", "On time"),
            ("14:52", "Airport", "7", "Boarding"),
            ("15:04", "Greyfriars", "3", "+12 min"),
            ("15:10", "Ashford", "2", "On time"),
            ("15:22", "Two Rivers", "6", "Cancelled"),
        ]
        for i, (at, place, track, state) in enumerate(rows):
            y = 44 + 29 * i
            page.panel(6, y, 249, y + 26, "#15304f" if i % 2 else "#102841")
            page.text(12, y + 13, at, 15, "white", "lm")
            page.text(62, y + 13, place, 15, "white", "lm")
            page.text(160, y + 13, track, 15, "#ffd23f", "mm")
            page.text(244, y + 13, state, 12, {"C": "#ff6b6b", "+": "#ffa94d"}.get(state[0], "#8ce99a"), "rm")
        return page.image
    if index == 1:
        page = Page("white")
        page.text(10, 8, "LEAGUE TABLE  week 24", 15, bold=True)
        heads, xs = ("Club", "P", "W", "D", "L", "GD", "Pts"), (30, 122, 142, 164, 184, 214, 244)
        page.panel(6, 32, 249, 48, "#2d6a4f")
        for head, x in zip(heads, xs, strict=True):
            page.text(x, 40, head, 10, "white", "lm" if x == 30 else "rm")
        clubs = (
            "Rovers",
            "Athletic",
            "Harbour City",
            "United",
            "Old Mill",
            "Wanderers",
            "Park Lane",
            "Town",
            "Borough",
            "Albion",
            "Rangers",
            "Dynamo",
        )
        for i, club in enumerate(clubs):
            won, drawn = 18 - i - (i % 3 == 2), 4 + (i * 5) % 4
            y = 57 + 16 * i
            if i % 2:
                page.panel(6, y - 8, 249, y + 7, "#e9f5ee")
            cells = (24, won, drawn, 24 - won - drawn, f"{34 - 6 * i:+d}", 3 * won + drawn)
            page.text(10, y, str(i + 1), 10, "#555555", "lm")
            page.text(30, y, club, 10, anchor="lm")
            for cell, x in zip(cells, xs[1:], strict=True):
                page.text(x, y, str(cell), 10, anchor="rm")
        return page.image
    if index == 2:
        page = Page("#fffef9", (272, 272))
        page.text(22, 18, "Table 3. Tensile test, batch B", 12)
        dice = random.Random(3)
        for column, head in enumerate(("No.", "Load/N", "mm", "MPa")):
            page.text(60 + 62 * column, 42, head, 11, anchor="ra", bold=True)
        for y in (38, 58, 248):
            page.rule(20, y, 252, y, width=2 if y != 58 else 1)
        for row in range(12):
            load = dice.uniform(820, 1290)
            for column, cell in enumerate((f"{row + 1}", f"{load:.1f}", f"{load / 310:.2f}", f"{load / 7.85:.1f}")):
                page.text(60 + 62 * column, 63 + 15 * row, cell, 11, anchor="ra")
        return tilt(grain(page.image, 5, 23), 1.5, "#fffef9").crop((8, 8, 264, 264))
    page = Page("#f8f9fa")
    page.panel(0, 0, 255, 20, "#1d6f42")
    page.text(8, 10, "budget_2025.xlsx", 10, "white", "lm")
    dice = random.Random(8)
    for column in range(5):
        page.panel(22 + 47 * column, 21, 69 + 47 * column, 34, "#e2e6ea", "#c4c9cf")
        page.text(45 + 47 * column, 28, "ABCDE"[column], 8, "#444444", "mm")
    names = ("Item", "Rent", "Power", "Travel", "Paper", "Repairs", "Food", "Books", "Phone", "Total")
    sums = [0] * 4
    for row, name in enumerate(names):
        y = 35 + 22 * row
        page.text(10, y + 11, str(row + 1), 8, "#444444", "mm")
        for column in range(5):
            page.panel(22 + 47 * column, y, 69 + 47 * column, y + 22, "#fff3cd" if row == 9 else "white", "#d5d9de")
            if column == 0:
                page.text(26, y + 11, name, 10, anchor="lm", bold=row in (0, 9))
                continue
            value = dice.randrange(120, 9800)
            sums[column - 1] += value if 0 < row < 9 else 0
            cell = f"Q{column}" if row == 0 else f"{sums[column - 1] if row == 9 else value:,}"
            page.text(66 + 47 * column, y + 11, cell, 10, anchor="rm", bold=row in (0, 9))
    return page.image


def form(index: int) -> Image.Image:
    if index == 0:
        page = Page("white")
        page.text(12, 10, "MEMBERSHIP FORM", 17, "#003049", bold=True)
        page.text(12, 34, "Please write in capitals and in black ink.", 9, "#555555")
        fields = [
            ("Surname", "LINDQVIST"),
            ("First name", "ARNE"),
            ("Date of birth", "04 / 07 / 1988"),
            ("Town", "EAST HOLLOW"),
            ("Telephone", "555 0142"),
        ]
        for i, (key, value) in enumerate(fields):
            page.text(12, 64 + 30 * i, key, 11, "#003049", "lm")
            page.panel(92, 52 + 30 * i, 244, 76 + 30 * i, "#f4f7fa", "#7a8ca0")
            page.text(100, 64 + 30 * i, value, 13, "#1a2f9c", "lm")
        for i, (words, ticked) in enumerate((("New", True), ("Renewal", False), ("Student", False))):
            x = 12 + 78 * i
            page.panel(x, 212, x + 12, 224, "white", "black")
            if ticked:
                page.line(((x + 2, 218), (x + 5, 222), (x + 11, 211)), "#1a2f9c", 2)
            page.text(x + 18, 218, words, 11, anchor="lm")
        page.text(12, 240, "Form 12-B, revised 2021", 8, "#777777")
        return page.image
    if index == 1:
        page = Page("#e7f0e4")
        page.text(128, 8, "VISITOR SURVEY", 18, "#2c4a2e", "ma", bold=True)
        page.text(12, 36, "1 = poor     5 = excellent", 10, "#2c4a2e")
        for i in range(5):
            page.text(146 + 24 * i, 52, str(i + 1), 10, "#2c4a2e", "ma")
        questions = ("Opening hours", "Friendly staff", "Clear signs", "Clean rooms", "Cafe", "Value")
        for i, (question, mark) in enumerate(zip(questions, (4, 5, 2, 4, 3, 5), strict=True)):
            y = 76 + 22 * i
            page.text(12, y, question, 13, anchor="lm")
            for k in range(5):
                page.ellipse((140 + 24 * k, y - 6, 152 + 24 * k, y + 6), "white", "#2c4a2e")
                if k + 1 == mark:
                    page.ellipse((143 + 24 * k, y - 3, 149 + 24 * k, y + 3), "#2c4a2e")
        page.text(12, 204, "Comments", 10, "#2c4a2e")
        page.panel(12, 218, 244, 248, "white", "#2c4a2e")
        page.text(18, 233, "More benches, please!", 13, "#222266", "lm")
        return page.image
    page = Page("#fdf3d8", (276, 276))
    page.panel(18, 18, 258, 258, outline="#8c6d1f", width=2)
    page.text(138, 24, "PARCEL DECLARATION CN 22", 12, "#8c6d1f", "ma", bold=True)
    page.rule(18, 44, 258, 44, "#8c6d1f")
    for x, words in ((26, "X  Gift"), (98, "Sample"), (178, "Other")):
        page.text(x, 50, words, 11)
    page.rule(18, 68, 258, 68, "#8c6d1f")
    for x, head in ((26, "Contents"), (166, "kg"), (206, "Value")):
        page.text(x, 72, head, 9, "#8c6d1f")
    for i, row in enumerate(
        (("2 wool scarves", "0.42", "$38.00"), ("1 teapot", "0.95", "$24.50"), ("3 books", "1.10", "$31.20"))
    ):
        for x, cell in zip((26, 166, 206), row, strict=True):
            page.text(x, 92 + 24 * i, cell, 13, "#22304f")
        page.rule(18, 112 + 24 * i, 258, 112 + 24 * i, "#d8c384")
    page.text(26, 168, "Total", 13, bold=True)
    page.text(166, 168, "2.47", 13, bold=True)
    page.text(206, 168, "$93.70", 13, bold=True)
    page.paragraph(26, 194, 224, "I certify that this item holds no dangerous article.", 10, "#555555")
    page.text(26, 232, "Signed  T. Abara     19.12.2024", 12, "#22304f")
    return tilt(page.image, -2.0, "#a58d5a").crop((10, 10, 266, 266))


def calendar(index: int) -> Image.Image:
    year, month, accent, marks = [
        (2024, 2, "#d62828", {5: "dentist", 14: "train", 23: "tax"}),
        (2025, 9, "#3a86ff", {1: "term", 12: "market", 19: "vet"}),
    ][index]
    page = Page("#14171c" if index else "white")
    ink = "#e8eaed" if index else "#1b1b1b"
    page.text(10, 8, months.month_name[month].upper(), 22, accent, bold=True)
    page.text(246, 8, str(year), 22, ink, "ra")
    for day in range(7):
        page.text(
            25 + 34.5 * day,
            42,
            ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[day],
            10,
            accent if day > 4 else ink,
            "ma",
        )
    for row, week in enumerate(months.Calendar().monthdayscalendar(year, month)):
        for column, date in enumerate(week):
            x, y = 8 + 34.5 * column, 58 + 38 * row
            page.panel(x, y, x + 33, y + 36, outline="#3a3f47" if index else "#c9c9c9")
            if date:
                page.text(x + 4, y + 3, str(date), 14, accent if column > 4 else ink)
            if date in marks:
                page.panel(x + 1, y + 22, x + 32, y + 35, accent)
                page.text(x + 16.5, y + 28, marks[date], 8, "white", "mm")
    return page.image
