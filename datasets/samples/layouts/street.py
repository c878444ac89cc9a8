"""Large words seen at a distance: posters and signs."""

from __future__ import annotations

from PIL import Image

from layouts.canvas import Page
from layouts.effects import gradient, grain


def poster(index: int) -> Image.Image:
    if index == 0:
        page = Page("#f25c05")
        page.ellipse((130, 120, 300, 290), "#fbb13c")
        page.text(14, 16, "SUMMER", 48, "#1b1b3a", bold=True)
        page.text(14, 70, "JAZZ", 60, "#fff8e7", bold=True)
        page.text(14, 148, "5 bands", 24, "#1b1b3a")
        page.text(14, 178, "1 long night", 24, "#1b1b3a")
        page.text(14, 226, "JULY 19  RIVER STAGE", 15, "#1b1b3a", bold=True)
    elif index == 1:
        page = Page("#ffe600")
        page.text(128, 46, "BIG SALE", 46, "#d00000", "mm", bold=True)
        page.ellipse((48, 82, 208, 242), "#d00000")
        page.text(128, 148, "50%", 58, "white", "mm", bold=True)
        page.text(128, 200, "OFF", 34, "white", "mm", bold=True)
    elif index == 2:
        page = Page("white")
        page.text(128, 10, "LOST CAT", 46, "#b00020", "ma", bold=True)
        page.panel(58, 70, 198, 168, "#cfd3d6")
        page.polygon(
            ((98, 100), (104, 80), (116, 92), (140, 92), (152, 80), (158, 100), (150, 150), (106, 150)), "#4a4a4a"
        )
        for x in (116, 136):
            page.ellipse((x, 108, x + 8, 116), "#ffe066")
        page.text(128, 176, "Grey, shy, answers to “Mr Pip”", 14, "black", "ma")
        page.text(128, 198, "Reward $100", 22, "black", "ma", bold=True)
        page.text(128, 230, "Call 555-0176", 18, "black", "ma")
    elif index == 3:
        page = Page(gradient((15, 15, 50), (120, 20, 80)))
        page.text(128, 22, "FILM", 60, "#f8f32b", "ma", bold=True)
        page.text(128, 88, "NIGHT", 60, "#f8f32b", "ma", bold=True)
        page.rule(24, 164, 232, 164, "white", 2)
        for i, words in enumerate(("Thu  The Long Ladder", "Fri  Snow on Mars", "Sat  Two Tin Cups")):
            page.text(32, 174 + 23 * i, words, 16, "white")
    elif index == 4:
        page = Page("#003566")
        for i in range(6):
            page.polygon(((0, 30 + 44 * i), (256, 4 + 44 * i), (256, 24 + 44 * i), (0, 50 + 44 * i)), "#013f78")
        page.text(128, 60, "OPEN", 60, "white", "mm", bold=True)
        page.text(128, 116, "HOUSE", 58, "#ffc300", "mm", bold=True)
        page.text(128, 176, "Sunday 10 to 4", 24, "white", "mm")
        page.text(128, 212, "Robots, rockets, soup", 16, "#cfe3f7", "mm")
    else:
        page = Page("#e9edc9")
        page.panel(10, 10, 245, 245, outline="#344e41", width=4)
        page.turned(118, 58, "SLOW", 54, 4, "#344e41")
        page.turned(132, 128, "DOWN", 54, 4, "#bc4749")
        page.text(128, 176, "hedgehogs crossing", 21, "#344e41", "ma")
        page.text(128, 212, "April to October", 14, "#344e41", "ma")
    return page.image


def sign(index: int) -> Image.Image:
    if index == 0:
        page = Page(grain(gradient((140, 180, 220), (90, 120, 70)), 6, 1))
        corners = [(88, 22), (168, 22), (226, 80), (226, 160), (168, 218), (88, 218), (30, 160), (30, 80)]
        page.panel(122, 214, 134, 255, "#7d8287")
        page.polygon(corners, "#b3121d", "white", 5)
        page.text(128, 120, "STOP", 58, "white", "mm", bold=True)
    elif index == 1:
        page = Page(grain(gradient((165, 195, 225), (205, 215, 220)), 4, 2))
        page.panel(10, 30, 246, 216, "#00703c", "white", 10, 3)
        for i, (place, exit_) in enumerate((("Riverton", "2"), ("Old Mill", "14"), ("Airport", "27"))):
            page.text(28, 66 + 54 * i, place, 30, "white", "lm")
            page.text(230, 66 + 54 * i, exit_, 30, "white", "rm")
        page.panel(66, 216, 76, 255, "#6a6f73")
        page.panel(180, 216, 190, 255, "#6a6f73")
    elif index == 2:
        page = Page(grain(Page("#9a8f80").image, 8, 3))
        page.panel(48, 20, 208, 236, "white", "#1546a0", 12, 5)
        page.panel(88, 34, 168, 110, "#1546a0", radius=8)
        page.text(128, 72, "P", 60, "white", "mm", bold=True)
        for i, words in enumerate(("Mon to Fri", "8 - 18 h", "2 hours", "with disc")):
            page.text(128, 132 + 26 * i, words, 20, "black", "mm")
    elif index == 3:
        page = Page(gradient((30, 30, 32), (55, 55, 60)))
        page.panel(24, 70, 232, 170, "#0a8f3c", "#b9f6ca", 6, 2)
        page.text(104, 120, "EXIT", 52, "white", "mm", bold=True)
        page.polygon(((182, 104), (202, 104), (202, 90), (224, 120), (202, 150), (202, 136), (182, 136)), "white")
        page.text(128, 206, "Keep this door clear", 15, "#d7d7d7", "mm")
    elif index == 4:
        page = Page("#a4533a")
        for row in range(13):  # a brick wall
            for column in range(6):
                x = 50 * column - 25 * (row % 2)
                page.panel(
                    x, 20 * row, x + 48, 20 * row + 18, ("#b0603f", "#a8573c", "#96492f")[(row * 2 + column) % 3]
                )
        for y, name, district in (
            (24, "ORCHARD LANE", "NORTHGATE"),
            (100, "MILL STREET", "leading to the quay"),
            (176, "KING'S ROW", "1 - 47"),
        ):
            page.panel(18, y, 238, y + 58, "#f4f4ef", "#1d1d1d", 4, 3)
            page.text(128, y + 21, name, 26, "#1d1d1d", "mm", bold=True)
            page.text(128, y + 45, district, 13, "#b02a1f", "mm")
    else:
        page = Page(grain(gradient((190, 190, 185), (150, 150, 150), 20), 7, 4))
        page.polygon(((128, 12), (222, 168), (34, 168)), "#ffcc00", "black", 6)
        page.text(128, 118, "!", 58, "black", "mm", bold=True)
        page.panel(20, 182, 236, 244, "#ffcc00", "black", 4, 3)
        page.text(128, 202, "DANGER", 26, "black", "mm", bold=True)
        page.text(128, 229, "High voltage 11,000 V", 15, "black", "mm")
    return page.image
