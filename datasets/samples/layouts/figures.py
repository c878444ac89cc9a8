"""Charts, and labels on goods."""

from __future__ import annotations

import math

from PIL import Image

from layouts.canvas import Page
from layouts.effects import grain, tilt


def chart(index: int) -> Image.Image:
    page = Page(["white", "#101820", "#f5f0e6"][index])
    if index == 0:
        page.text(12, 8, "Visitors per month (thousands)", 13, bold=True)
        for i in range(6):
            page.rule(34, 218 - 34 * i, 246, 218 - 34 * i, "#dddddd")
            page.text(28, 218 - 34 * i, str(10 * i), 10, "#444444", "rm")
        for i, (name, value) in enumerate(
            zip(("Jan", "Mar", "May", "Jul", "Sep", "Nov"), (12, 19, 33, 47, 28, 16), strict=True)
        ):
            top = 218 - 3.4 * value
            page.panel(42 + 34 * i, top, 66 + 34 * i, 218, "#4c78a8" if value < 40 else "#f58518")
            page.text(54 + 34 * i, top - 8, str(value), 11, anchor="mm")
            page.text(54 + 34 * i, 230, name, 10, "#444444", "mm")
    elif index == 1:
        page.text(12, 8, "Training loss", 16, "#e0e6ed")
        for name, colour, scale, x in (
            ("run A", "#5bc0eb", 2.4, 12),
            ("run B", "#fde74c", 1.7, 82),
            ("run C", "#9bc53d", 1.1, 152),
        ):
            page.ellipse((x, 36, x + 8, 44), colour)
            page.text(x + 14, 40, name, 11, "#c5ced8", "lm")
            points = [
                (34 + 2.1 * t, 220 - 62 * (scale * math.exp(-t / 30) + 0.18 + 0.05 * math.sin(t * scale)))
                for t in range(100)
            ]
            page.line(points, colour, 2)
        page.rule(34, 56, 34, 220, "#8395a7")
        page.rule(34, 220, 246, 220, "#8395a7")
        for i in range(5):
            page.text(34 + 52 * i, 226, f"{25 * i}k", 10, "#c5ced8", "ma")
        for i in range(4):
            page.text(29, 220 - 45 * i, f"{0.7 * i:.1f}", 10, "#c5ced8", "rm")
        page.text(140, 241, "step", 10, "#c5ced8", "ma")
    else:
        page.text(128, 10, "Where the water goes", 17, "#264653", "ma", bold=True)
        start = -90.0
        shares = (
            ("Showers", 34, "#264653"),
            ("Toilets", 27, "#2a9d8f"),
            ("Laundry", 18, "#e9c46a"),
            ("Kitchen", 13, "#f4a261"),
            ("Garden", 8, "#e76f51"),
        )
        for i, (name, share, colour) in enumerate(shares):
            page.pie((12, 62, 152, 202), start, start + 3.6 * share, colour, "#f5f0e6", 2)
            start += 3.6 * share
            page.panel(164, 70 + 26 * i, 176, 82 + 26 * i, colour)
            page.text(182, 70 + 26 * i, f"{name} {share}%", 10, "#264653")
        page.text(128, 228, "Source: household meters, 2023", 9, "#6b705c", "ma")
    return page.image


def label(index: int) -> Image.Image:
    if index == 0:
        page = Page("white")
        page.panel(6, 6, 249, 249, outline="black", width=2)
        page.text(14, 10, "Nutrition Facts", 27, bold=True)
        page.text(14, 46, "8 servings per box", 11)
        page.text(14, 62, "Serving size", 13, bold=True)
        page.text(242, 62, "55 g", 13, anchor="ra", bold=True)
        page.panel(14, 82, 242, 87, "black")
        page.text(14, 92, "Calories", 25, bold=True)
        page.text(242, 92, "230", 25, anchor="ra", bold=True)
        page.panel(14, 124, 242, 127, "black")
        rows = (
            ("Total fat 8 g", "10%"),
            ("Sodium 160 mg", "7%"),
            ("Carbohydrate 37 g", "13%"),
            ("Fiber 4 g", "14%"),
            ("Sugars 12 g", "24%"),
            ("Protein 3 g", "6%"),
        )
        for i, (name, share) in enumerate(rows):
            page.text(14, 131 + 19 * i, name, 12)
            page.text(242, 131 + 19 * i, share, 12, anchor="ra")
            page.rule(14, 148 + 19 * i, 242, 148 + 19 * i, "#888888")
        return page.image
    if index == 1:
        page = Page("#c19a6b")
        page.panel(22, 26, 234, 230, "white")
        page.text(32, 32, "PRIORITY", 24, bold=True)
        page.text(224, 36, "2.4 kg", 13, anchor="ra")
        page.rule(22, 64, 234, 64, width=2)
        page.text(32, 70, "TO:", 10)
        for i, line in enumerate(("DELTA INSTRUMENTS", "1180 CANAL AVE, DOCK 3", "RIVERTON, WY 82501")):
            page.text(32, 84 + 16 * i, line, 13)
        page.rule(22, 138, 234, 138, width=2)
        page.barcode(34, 148, "92055901755477000271189000415566300817624455091230", 46)
        page.text(128, 206, "9205 5901 7554 7700 02", 13, anchor="mm")
        return grain(page.image, 3, 5)
    if index == 2:
        page = Page("#2b2d42", (280, 280))
        page.polygon(((60, 40), (240, 40), (240, 240), (60, 240), (24, 140)), "#ffd166")
        page.ellipse((38, 131, 56, 149), "#2b2d42")
        page.text(150, 72, "SALE", 26, "#d62839", "mm", bold=True)
        page.text(150, 130, "$19.99", 44, "#2b2d42", "mm", bold=True)
        page.text(150, 174, "was $34.50", 17, "#6b5a1e", "mm")
        page.rule(104, 175, 196, 175, "#d62839", 2)
        page.text(150, 214, "ART. 50-221  SIZE M", 11, "#2b2d42", "mm")
        return tilt(page.image, 4, "#2b2d42").crop((12, 12, 268, 268))
    page = Page("#7a1f3d")
    page.panel(14, 14, 241, 241, "#fdf0d5", "#c1121f", 14, 3)
    page.text(128, 30, "HOMEMADE", 13, "#c1121f", "ma")
    page.text(128, 52, "Plum Jam", 42, "#5c1a33", "ma")
    page.text(128, 108, "with cinnamon", 16, "#5c1a33", "ma")
    page.rule(50, 138, 206, 138, "#c1121f")
    page.paragraph(
        34, 146, 188, "Ingredients: plums (62%), sugar, lemon juice, cinnamon. Once open keep cold.", 11, "#3d2b1f"
    )
    page.text(34, 212, "Net 340 g", 13, "#3d2b1f")
    page.text(222, 212, "Best by 08/26", 13, "#3d2b1f", "ra")
    return page.image
