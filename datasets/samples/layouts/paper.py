"""Small printed things: menus, tickets, receipts."""

from __future__ import annotations

from PIL import Image

from layouts.canvas import Page
from layouts.effects import grain, tilt


def menu(index: int) -> Image.Image:
    if index == 0:
        page = Page("#23302b")
        page.text(128, 12, "TODAY'S BOARD", 22, "#f4f1de", "ma")
        page.rule(30, 44, 226, 44, "#f4f1de")
        dishes = [
            ("Leek and potato soup", "6.50"),
            ("Mushroom toast", "8.00"),
            ("Fish pie, peas", "13.75"),
            ("Lentil stew (v)", "11.20"),
            ("Plum crumble", "5.90"),
            ("Coffee, refills free", "2.40"),
        ]
        for i, (dish, price) in enumerate(dishes):
            page.text(22, 58 + 29 * i, dish, 15, "#f2cc8f" if i % 2 else "#f4f1de")
            page.text(234, 58 + 29 * i, price, 15, "#81b29a", "ra")
        return grain(page.image, 4, 11)
    if index == 1:
        page = Page("#fbf6ec")
        page.panel(8, 8, 247, 247, outline="#7b2d26", width=2)
        page.text(128, 18, "La Petite Gare", 26, "#7b2d26", "ma")
        page.text(128, 52, "dinner from 6 to 10", 10, "#555555", "ma")
        rows = [
            ("STARTERS", ""),
            ("Onion tart", "7"),
            ("Beets, goat cheese", "9"),
            ("MAINS", ""),
            ("Trout with almonds", "19"),
            ("Beef in red wine", "22"),
            ("Gnocchi, sage butter", "16"),
            ("SWEETS", ""),
            ("Lemon mousse", "6"),
        ]
        y = 72
        for dish, price in rows:
            if not price:
                page.text(128, y + 2, dish, 11, "#7b2d26", "ma", bold=True)
            else:
                end = 28 + page.text(28, y, dish, 13, "#2b2b2b")
                start = 228 - page.text(228, y, price, 13, "#2b2b2b", "ra")
                for x in range(round(end) + 6, round(start) - 4, 5):
                    page.draw.point((x, y + 12), "#8a8a8a")
            y += 19
        return page.image
    page = Page("#ffe5ec")
    page.panel(0, 0, 255, 50, "#ff5d8f")
    page.text(128, 26, "ICE & CREAM", 28, "white", "mm", bold=True)
    for i, (size, price) in enumerate((("1 scoop", "2.80"), ("2 scoops", "4.60"), ("3 scoops", "6.20"))):
        page.text(16, 62 + 28 * i, size, 20, "#6d2e46")
        page.text(240, 62 + 28 * i, price, 20, "#6d2e46", "ra", bold=True)
    page.rule(16, 152, 240, 152, "#ff5d8f", 2)
    flavours = ("Vanilla", "Mint", "Hazelnut", "Mango", "Rum raisin", "Blueberry", "Pistachio", "Sour cherry")
    for i, flavour in enumerate(flavours):
        page.ellipse(
            (16 + 116 * (i % 2), 164 + 21 * (i // 2), 26 + 116 * (i % 2), 174 + 21 * (i // 2)),
            ("#f3e9c6", "#a8dcc0", "#b58a5c", "#ffb84d", "#d9c3a0", "#6c7bc4", "#b5c987", "#a3223d")[i],
        )
        page.text(32 + 116 * (i % 2), 161 + 21 * (i // 2), flavour, 13, "#6d2e46")
    return page.image


def ticket(index: int) -> Image.Image:
    if index == 0:
        page = Page("#5b6770")
        page.panel(8, 52, 247, 204, "white", radius=8)
        page.panel(8, 52, 247, 80, "#0b5fa5", radius=8)
        page.panel(8, 72, 247, 80, "#0b5fa5")
        page.text(18, 58, "BOARDING PASS", 13, "white", bold=True)
        page.text(238, 58, "NORTHWIND AIR", 10, "white", "ra")
        page.text(18, 88, "OSL", 34, "#123")
        page.text(128, 108, ">>>", 18, "#0b5fa5", "mm")
        page.text(238, 88, "LIS", 34, "#123", "ra")
        for x, key, value in (
            (18, "FLIGHT", "NW 417"),
            (84, "GATE", "B22"),
            (136, "SEAT", "14C"),
            (186, "BOARDING", "16:05"),
        ):
            page.text(x, 134, key, 8, "#667")
            page.text(x, 146, value, 14, "#123", bold=True)
        page.text(18, 174, "PASSENGER  HALVORSEN / MAJA MS", 9, "#334")
        page.barcode(18, 188, "31415926535897932384626433832795028841971693993751", 10)
        return page.image
    if index == 1:
        page = Page("#1a1423", (280, 280))
        page.panel(22, 62, 258, 218, "#f2b632")
        for y in range(66, 218, 10):
            page.ellipse((186, y, 190, y + 4), "#1a1423")
        page.text(32, 74, "ADMIT ONE", 27, "#1a1423", bold=True)
        page.text(32, 116, "The Copper Strings", 15, "#1a1423")
        page.text(32, 140, "Fri 21 June, 20:30", 12, "#1a1423")
        page.text(32, 158, "Old Foundry Hall", 12, "#1a1423")
        page.text(32, 192, "No refunds. Keep this part.", 9, "#5b4300")
        page.text(224, 94, "ROW", 10, "#5b4300", "mm")
        page.text(224, 120, "K", 34, "#1a1423", "mm")
        page.text(224, 156, "SEAT", 10, "#5b4300", "mm")
        page.text(224, 184, "107", 26, "#1a1423", "mm")
        return tilt(page.image, -4, "#1a1423").crop((12, 12, 268, 268))
    page = Page("#cfd8dc")
    page.panel(18, 18, 238, 238, "#fff3e0", "#ef6c00", width=3)
    page.text(128, 30, "DAY TRAVELCARD", 20, "#ef6c00", "ma", bold=True)
    for i, (key, value) in enumerate(
        (
            ("Zones", "1 to 4"),
            ("Valid on", "07 SEP 2025"),
            ("Class", "STANDARD"),
            ("Price", "$12.70"),
            ("Number", "66120 4093 17"),
        )
    ):
        page.text(32, 68 + 24 * i, key, 12, "#6d4c41")
        page.text(224, 66 + 24 * i, value, 15, "#3e2723", "ra")
        page.rule(32, 87 + 24 * i, 224, 87 + 24 * i, "#ffcc80")
    page.barcode(40, 196, "66120409317661204093176612040931766120", 26, "#3e2723")
    return page.image


def receipt(index: int) -> Image.Image:
    shop, place, bed, goods = [
        (
            "CORNER GROCER",
            "81 Station Road",
            "#6b4f3a",
            [
                ("Milk 1 l", 119),
                ("Rye bread", 285),
                ("Eggs x10", 349),
                ("Tomatoes 0.6kg", 214),
                ("Butter", 259),
                ("Tea", 420),
            ],
        ),
        (
            "PAPER MOON BOOKS",
            "3 Bell Court",
            "#33475b",
            [("Field guide: birds", 1899), ("Notebook A5", 650), ("Postcard x4", 480), ("Pencil HB", 95)],
        ),
        (
            "ELM ST. HARDWARE",
            "Till 2  Op. 17",
            "#8a8f94",
            [
                ("Wood screws 4x40", 375),
                ("Hinge, brass x2", 760),
                ("Sandpaper P120", 210),
                ("Paint 0.75 l", 1549),
                ("Brush 50 mm", 425),
            ],
        ),
        (
            "BREAD & SALT",
            "Bakery since 1962",
            "#d9d2c5",
            [("Croissant x3", 540), ("Seeded loaf", 410), ("Flat white", 320), ("Cheese roll", 385)],
        ),
    ][index]
    page = Page(bed, (280, 280))
    page.panel(54, 8, 226, 272, "#fcfcf8")
    page.text(140, 20, shop, 15, anchor="ma", bold=True)
    page.text(140, 40, place, 9, "#333333", "ma")
    page.text(64, 58, ["2024-03-18", "2023-11-02", "2025-01-27", "2024-08-30"][index], 9)
    page.text(216, 58, ["17:42", "11:08", "09:15", "08:03"][index], 9, anchor="ra")
    page.rule(64, 72, 216, 72)
    y = 78
    for name, cents in goods:
        page.text(64, y, name, 10)
        page.text(216, y, f"{cents / 100:.2f}", 10, anchor="ra")
        y += 16
    total = sum(cents for _, cents in goods)
    page.rule(64, y + 2, 216, y + 2)
    page.text(64, y + 8, "TOTAL", 15, bold=True)
    page.text(216, y + 8, f"${total / 100:.2f}", 15, anchor="ra", bold=True)
    page.text(64, y + 28, "of which tax 7%", 9, "#333333")
    page.text(216, y + 28, f"{(total - total / 1.07) / 100:.2f}", 9, "#333333", "ra")
    page.text(140, y + 44, "Thank you! Come again.", 9, "#333333", "ma")
    page.barcode(84, 244, "4901780035512789014417", 14)
    return tilt(page.image, (0.0, 2.5, -3.0, 1.2)[index], bed).crop((12, 12, 268, 268))
