"""Words on difficult grounds: maps, faint print, noise."""

from __future__ import annotations

from PIL import Image, ImageFilter

from layouts.canvas import Page
from layouts.effects import gradient, grain, tilt


def plan(index: int) -> Image.Image:
    """A map."""
    land, water, road, edge, park = [
        ("#f2efe9", "#a8d4e6", "#ffffff", "#d8d0c4", "#cfe6b8"),
        ("#17263c", "#0e1626", "#38414e", "#212a37", "#1f3b33"),
        ("#fbf3df", "#bcd8d2", "#e8b04a", "#c98f2e", "#dfe3b4"),
    ][index]
    ink = "#d59563" if index == 1 else "#4a4238"
    page = Page(land)
    if index < 2:
        page.polygon(((0, 190), (70, 176), (150, 206), (256, 184), (256, 256), (0, 256)), water)
        page.panel(18, 18, 96, 78, park, radius=8)
        page.panel(166, 116, 246, 166, park, radius=8)
        for ends, wide in (
            (((0, 100), (256, 84)), 17),
            (((122, 0), (138, 190)), 15),
            (((0, 150), (150, 136)), 11),
            (((190, 0), (204, 90)), 11),
        ):
            page.line(ends, edge, wide + 2)
            page.line(ends, road, wide)
        page.turned(60, 96, "Station Road", 11, 3.6, ink)
        page.turned(205, 87, "High Street", 11, 3.6, ink)
        page.turned(126, 45, "Bell Lane", 10, -85, ink)
        page.turned(62, 144, "Quay Walk", 10, 5, ink)
        page.text(57, 48, "Abbey Park" if index == 0 else "Zoo", 12, "#3f7d3a" if index == 0 else "#6b9a76", "mm")
        page.text(206, 141, "Old Garden", 12, "#3f7d3a" if index == 0 else "#6b9a76", "mm")
        page.turned(160, 228, "River Wend", 18, 4, "#3d7ea6" if index == 0 else "#5b7fa6")
        for x, y, words in ((162, 30, "Museum"), (232, 40, "Bank"), (92, 120, "Post office")):
            page.ellipse((x - 3, y - 12, x + 3, y - 6), "#c0392b")
            page.text(x, y, words, 9, ink, "mm")
    else:
        page.ellipse((150, 150, 300, 300), water)
        for ends in (((20, 220), (88, 150)), ((88, 150), (74, 70)), ((88, 150), (168, 118)), ((168, 118), (236, 40))):
            page.line(ends, edge, 7)
            page.line(ends, road, 5)
        towns = (
            (20, 220, "Ferrin", "la", 13),
            (88, 150, "LINDENAU", "la", 18),
            (74, 70, "Ashford", "la", 13),
            (168, 118, "Port Ellery", "la", 14),
            (236, 40, "Greyfriars", "rd", 13),
        )
        for x, y, words, anchor, size in towns:
            page.ellipse((x - 5, y - 5, x + 5, y + 5), "white", "#5a2a1a", 2)
            page.text(
                x + (9 if anchor[0] == "l" else -9), y + (5 if anchor[1] == "a" else -2), words, size, ink, anchor
            )
        page.text(214, 206, "Lake", 15, "#2f6f78", "mm")
        page.text(214, 224, "Orrin", 15, "#2f6f78", "mm")
        for x, y, words in ((76, 192, "12 km"), (94, 108, "9"), (120, 122, "21")):
            page.text(x, y, words, 11, "#8a3b12", "mm")
        page.text(12, 10, "THE NORTH SHORE", 17, ink)
        page.rule(14, 246, 74, 246, ink, 3)
        page.text(80, 246, "10 km", 10, ink, "lm")
    return page.image


def faint(index: int) -> Image.Image:
    if index == 0:
        page = Page("white")
        page.text(16, 20, "Terms of use", 22, "#c4c4c4")
        page.paragraph(
            16,
            58,
            224,
            "By opening this box you agree that the seal was whole, that the parts were counted, and that you have "
            "read page 3. Keep the card. The guarantee runs for 24 months from the date on the receipt and does not "
            "cover water, sand or small children. Write to us within 14 days if a part is missing.",
            13,
            "#bdbdbd",
            leading=1.4,
        )
    elif index == 1:
        page = Page("#101010")
        page.text(128, 70, "quiet please", 34, "#4c4c4c", "mm")
        page.text(128, 116, "recording in progress", 18, "#434343", "mm")
        page.paragraph(
            28,
            150,
            200,
            "Studio B is in use from 9:30 to 13:00. Enter by the side door only when the lamp is off.",
            13,
            "#505050",
        )
    else:
        page = Page("#fbf7f0")
        page.turned(128, 128, "DRAFT", 60, 38, "#f0e4d6")
        ghost = page.image  # the watermark lies behind the text, so it claims no place
        page = Page(ghost)
        page.text(20, 18, "Minutes of the meeting", 18, "#7d7468")
        page.paragraph(
            20,
            50,
            216,
            "Present: Abara, Lindqvist, Marlow, Whitlock.\n1. The minutes of 4 May were approved.\n2. The roof: three "
            "offers, from $8,400 to $11,950. Marlow will ask for a fourth.\n3. Keys: two are missing. Whitlock "
            "will change the lock before 1 June.\n4. Next meeting: 17 June, 19:30, in the small hall.",
            12,
            "#8a8073",
            leading=1.45,
        )
    return page.image


def noise(index: int) -> Image.Image:
    if index == 0:
        page = Page(grain(gradient((200, 190, 160), (120, 110, 90), 35), 14, 7, step=12))
        page.text(128, 60, "Channel 36", 38, "#1a1a1a", "mm")
        page.text(128, 110, "NO SIGNAL", 30, "#8a0f0f", "mm", bold=True)
        page.text(128, 160, "check the aerial cable", 18, "#1a1a1a", "mm")
        page.text(128, 200, "error 0x80F2", 16, "#1a1a1a", "mm")
        return page.image
    if index == 1:
        page = Page("#ff9f1c")
        for i in range(-256, 256, 24):  # diagonal stripes
            page.polygon(((i, 0), (i + 12, 0), (i + 268, 256), (i + 256, 256)), "#ffbf69")
        page.text(128, 52, "MIND", 54, "#14213d", "mm", bold=True)
        page.text(128, 112, "THE STEP", 46, "#14213d", "mm", bold=True)
        page.text(128, 172, "uneven floor for 30 m", 19, "#14213d", "mm")
        page.text(128, 206, "wheelchairs: use ramp C", 15, "#14213d", "mm")
        return page.image
    if index == 2:
        blobs = Page("#264653")
        spots = (
            (40, 60, 80, "#e76f51"),
            (200, 40, 90, "#2a9d8f"),
            (120, 190, 100, "#e9c46a"),
            (230, 220, 70, "#8338ec"),
            (20, 220, 60, "#ff006e"),
        )
        for x, y, size, colour in spots:
            blobs.ellipse((x - size // 2, y - size // 2, x + size // 2, y + size // 2), colour)
        page = Page(blobs.image.filter(ImageFilter.GaussianBlur(22)))
        page.text(20, 26, "Do one thing", 32, "white")
        page.text(20, 66, "every day", 32, "white")
        page.text(20, 106, "that makes", 32, "white")
        page.text(20, 146, "no noise.", 32, "white")
        page.text(20, 216, "Wall calendar, page 212", 13, "#f1f1f1")
        return page.image
    page = Page("#dcdcdc", (276, 276))
    page.text(24, 24, "SERVICE LOG  pump 4", 17)
    for i, line in enumerate(
        (
            "02/11  oil changed, 3.1 l",
            "09/11  filter ok",
            "16/11  seal leaks, replaced",
            "23/11  4,018 h, bearing loud",
            "30/11  bearing replaced",
            "07/12  test run 2 h, ok",
            "14/12  handed over, J. K.",
        )
    ):
        page.text(24, 60 + 26 * i, line, 14)
        page.rule(22, 79 + 26 * i, 252, 79 + 26 * i, "#a9a9a9")
    dirty = grain(page.image.filter(ImageFilter.GaussianBlur(0.7)), 12, 9, step=12)  # a bad photocopy
    return tilt(dirty, -2.2, "#8f8f8f").crop((10, 10, 266, 266))
