"""Builds this dataset: draws the text pages and writes manifest.csv. With --check it only compares and writes nothing.

    python datasets/samples/make.py [--check]

The pages in pages/ are the dataset; drawing them again with another Pillow or FreeType may give other pixels, so use
--check to see whether a machine has what the manifest lists. Needs pillow and numpy, and the scikit-image and
scikit-learn wheels for their photos (they are found, not imported).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
COLUMNS = ("name", "source", "box", "sha256", "licence", "credit")
SIDE = 256
LEAST_DEVIATION = 8.0
"""A photo crop's standard deviation in grey levels (mean over the channels) must reach this: no near-empty crops."""
PALETTE_ERROR = 0.5
"""A page is stored with 256 colours where that moves its channels by less than this on average, else in full colour."""


@dataclass(frozen=True)
class Photo:
    """A photo inside an installed wheel; `corners` are the left and top edges of its crops, which do not overlap."""

    path: str
    licence: str
    credit: str
    corners: tuple[tuple[int, int], ...]


# Licences and credits as the wheels state them: skimage/data/_fetchers.py and sklearn/datasets/images/README.txt.
PHOTOS = {
    "astronaut": Photo(
        "skimage/data/astronaut.png",
        "public domain",
        "NASA Great Images database, https://flic.kr/p/r9qvLn (Eileen Collins)",
        ((0, 0), (256, 256), (256, 0), (0, 256)),
    ),
    "coffee": Photo(
        "skimage/data/coffee.png", "CC0-1.0", "Rachel Michetti, courtesy of Pikolo Espresso Bar", ((60, 50), (316, 50))
    ),
    "chelsea": Photo("skimage/data/chelsea.png", "CC0-1.0", "Stefan van der Walt", ((120, 30),)),
    "rocket": Photo(
        "skimage/data/rocket.jpg",
        "public domain",
        "SpaceX, https://www.flickr.com/photos/spacexphotos/16511594820",
        ((128, 160), (384, 160)),
    ),
    "hubble": Photo(
        "skimage/data/hubble_deep_field.jpg",
        "public domain",
        "NASA, HubbleSite news release 2012-37",
        ((116, 52), (372, 52), (628, 308), (372, 308), (372, 564), (628, 564)),
    ),
    "ihc": Photo(
        "skimage/data/ihc.png",
        "no known copyright restrictions",
        "Center for Microscopy And Molecular Imaging (CMMI)",
        ((0, 0), (256, 256), (256, 0), (0, 256)),
    ),
    "retina": Photo(
        "skimage/data/retina.jpg",
        "CC0-1.0",
        "Mikael Häggström, Wikimedia Commons, Fundus_photograph_of_normal_left_eye.jpg",
        ((65, 577), (577, 577), (321, 65), (577, 1089), (577, 321), (321, 833)),
    ),
    "china": Photo(
        "sklearn/datasets/images/china.jpg",
        "CC-BY-2.0",
        "danielbuechele, https://www.flickr.com/photos/danielbuechele/6061409035",
        ((90, 90), (384, 160)),
    ),
    "flower": Photo(
        "sklearn/datasets/images/flower.jpg",
        "CC-BY-2.0",
        "vultilion, https://www.flickr.com/photos/vultilion/6056698931",
        ((46, 90), (302, 90)),
    ),
}
PAGE_LICENCE, PAGE_CREDIT = "Apache-2.0", "the tokbench authors"
PUBLIC_DOMAIN_TEXTS = {
    "book-00": "Lewis Carroll, 1865",
    "book-01": "Jane Austen, 1813",
    "book-02": "Herman Melville, 1851",
    "book-03": "Charles Dickens, 1859",
    "book-04": "Henry David Thoreau, 1854",
}


def pixel_hash(pixels: np.ndarray) -> str:
    """SHA-256 of 8-bit RGB pixels, shape (H, W, 3)."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def photo_rows() -> list[dict[str, str]]:
    """The photo crops: the first of every photo, then the second of every photo that has one, and so on."""
    ranked: list[tuple[int, dict[str, str]]] = []
    for name, photo in PHOTOS.items():
        spec = find_spec(photo.path.split("/")[0])
        if spec is None or spec.origin is None:
            sys.exit(
                f"{photo.path} is not here: install {'scikit-image' if 'skimage' in photo.path else 'scikit-learn'}"
            )
        image = Image.open(Path(spec.origin).parent.parent / photo.path).convert("RGB")
        for number, (left, top) in enumerate(photo.corners):
            box = (left, top, left + SIDE, top + SIDE)
            pixels = np.asarray(image.crop(box))
            deviation = pixels.std((0, 1)).mean()
            if deviation < LEAST_DEVIATION or box[2] > image.width or box[3] > image.height:
                sys.exit(f"{name}: the crop {box} is near-empty (deviation {deviation:.1f}) or leaves the photo")
            row = (f"photos/{name}-{number}", f"wheel:{photo.path}", ",".join(map(str, box)), pixel_hash(pixels))
            ranked.append((number, dict(zip(COLUMNS, (*row, photo.licence, photo.credit), strict=True))))
    return [row for _, row in sorted(ranked, key=lambda entry: entry[0])]


def page_rows() -> list[dict[str, str]]:
    """The pages that lie in pages/: number 00 of every kind, then 01, and so on."""
    rows = []
    for file in sorted((HERE / "pages").glob("*.png"), key=lambda file: (file.stem.rpartition("-")[2], file.stem)):
        text = PUBLIC_DOMAIN_TEXTS.get(file.stem)
        credit = PAGE_CREDIT + (f"; text: {text}, public domain" if text else "")
        digest = pixel_hash(np.asarray(Image.open(file).convert("RGB")))
        row = (f"pages/{file.stem}", f"file:pages/{file.name}", "", digest, PAGE_LICENCE, credit)
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows


def rows() -> list[dict[str, str]]:
    """Every image in order. Photos and pages are spread evenly, so that the first n images are a fair sample of all."""
    spread = [
        ((place + 0.5) / len(group), row) for group in (photo_rows(), page_rows()) for place, row in enumerate(group)
    ]
    return [row for _, row in sorted(spread, key=lambda entry: entry[0])]


def draw_pages() -> None:
    """Draw every page anew into pages/."""
    from layouts import KINDS  # here, so that --check needs no font

    folder = HERE / "pages"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        if re.fullmatch(r"[a-z]+-\d\d\.png", old.name):
            old.unlink()
    for kind, (draw, count) in KINDS.items():
        for number in range(count):
            image = draw(number)
            few = image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            moved = np.abs(np.asarray(few.convert("RGB")).astype(int) - np.asarray(image)).mean()
            (few if moved < PALETTE_ERROR else image).save(folder / f"{kind}-{number:02d}.png", optimize=True)


def differences(listed: list[dict[str, str]], found: list[dict[str, str]]) -> list[str]:
    """What differs between the manifest and this machine, one line for each image and, last, for the order."""
    here = {row["name"]: row for row in found}
    there = {row["name"]: row for row in listed}
    lines = [f"{name}: in the manifest, not on this machine" for name in there if name not in here]
    lines += [f"{name}: on this machine, not in the manifest" for name in here if name not in there]
    for name in there.keys() & here.keys():
        lines += [f"{name}: {key} differs" for key in COLUMNS if there[name].get(key) != here[name][key]]
    if not lines and list(there) != list(here):
        lines.append("the order differs")
    return sorted(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw the text pages and write manifest.csv.")
    parser.add_argument("--check", action="store_true", help="only compare manifest.csv with this machine")
    manifest = HERE / "manifest.csv"
    if parser.parse_args().check:
        with manifest.open(newline="", encoding="utf-8") as file:
            listed = list(csv.DictReader(file))
        wrong = differences(listed, rows())
        print("\n".join(wrong) or f"manifest.csv lists what is here: {len(listed)} images")
        return 1 if wrong else 0
    draw_pages()
    found = rows()
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(f"wrote {len(found)} images to {manifest.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
