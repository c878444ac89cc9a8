"""Builds this dataset: draws 48 images, writes manifest.csv and annotations.jsonl. With --check it only compares.

    python datasets/text/make.py [--check]

The files in images/ are the dataset. Drawing them again with another Pillow, FreeType or libwebp may give other
pixels, so use --check to see whether a machine has what the manifest lists. Drawing needs tokbench, the scikit-image
wheel for its photos, and the matplotlib and font-caladea wheels for their fonts (they are found, not imported).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tokbench.data.sources.annotated import annotation_lines, read_annotations

HERE = Path(__file__).resolve().parent
COLUMNS = ("name", "source", "box", "sha256", "licence", "credit")
COUNT = 24
QUALITY = 95


def rows(credits: dict[str, tuple[str, str]]) -> list[dict[str, str]]:
    """Every image in order: words and pages by turns, so that the first n images are a fair sample."""
    listed = []
    for number in range(COUNT):
        for kind in ("words", "pages"):
            name, file = f"{kind}/{number:02d}", f"images/{kind}-{number:02d}.webp"
            pixels = np.asarray(Image.open(HERE / file).convert("RGB"))
            digest = hashlib.sha256(pixels.tobytes()).hexdigest()
            listed.append(dict(zip(COLUMNS, (name, f"file:{file}", "", digest, *credits[name]), strict=True)))
    return listed


def draw() -> dict[str, tuple[str, str]]:
    """Draw every image and write the annotations. Gives (licence, credit) by name."""
    from scenes import Scenes  # here, so that --check needs no font

    scenes, credits, found = Scenes(), {}, []
    (HERE / "images").mkdir(exist_ok=True)
    for number in range(COUNT):
        for kind, make in (("words", scenes.words), ("pages", scenes.page)):
            canvas, licence, credit = make(number)
            canvas.image.save(HERE / f"images/{kind}-{number:02d}.webp", quality=QUALITY, method=6)
            credits[f"{kind}/{number:02d}"] = (licence, credit)
            found.append((f"{kind}/{number:02d}", canvas.annotations))
    (HERE / "annotations.jsonl").write_text(annotation_lines(found), encoding="utf-8")
    return credits


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw the images, write manifest.csv and annotations.jsonl.")
    parser.add_argument("--check", action="store_true", help="only compare manifest.csv with this machine")
    manifest = HERE / "manifest.csv"
    if parser.parse_args().check:
        with manifest.open(newline="", encoding="utf-8") as file:
            listed = list(csv.DictReader(file))
        here = rows({row["name"]: (row["licence"], row["credit"]) for row in listed})
        wrong = [a["name"] for a, b in zip(listed, here, strict=True) if a != b]
        if list(read_annotations(HERE / "annotations.jsonl")) != [row["name"] for row in listed]:
            wrong.append("annotations.jsonl lists other images")
        print("\n".join(wrong) or f"manifest.csv lists what is here: {len(listed)} images")
        return 1 if wrong else 0
    made = rows(draw())
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(made)
    print(f"wrote {len(made)} images to {manifest.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
