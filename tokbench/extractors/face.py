"""A network that turns faces into vectors, one for each identity, and a detector that says whether a face is there."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np
from skimage.transform import estimate_transform

from tokbench.errors import DataError
from tokbench.extractors.reader import Recognizer

OVERLAP = 0.4
"""Intersection over union from which on a face that was found is the given one.

Detectors draw boxes differently. On 69 photographed faces dlib's square ones overlapped MTCNN's by 0.55 or more where
dlib found the face, also after the photos had been brought down to 64, 32, 24, 16, 12 and 8 pixels a face; of 268 boxes
beside faces none was overlapped by 0.4.
"""


class FaceRecognizer(Recognizer):
    """`embed` gives a vector for each face, `detected` whether each face is found again.

    sha256 is that of the embedding's weights. measure: the distance that its vectors were trained for. Vectors are as
    the network gives them, not normalised, for a Euclidean distance needs their length.

    Points are five a face in MTCNN's order: left eye, right eye, tip of the nose, left and right corner of the mouth,
    as seen in the image, (x, y) in pixels. Boxes are x1 y1 x2 y2 in pixels.
    """

    measure: Literal["cosine", "euclidean"]

    @abstractmethod
    def embed(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Vectors (n, D), float32, of the n faces at points (n, 5, 2) of an image (H, W, 3), uint8 RGB.

        A face's vector depends on no other face. Raises DataError where all five points of a face are in one place.
        """

    @abstractmethod
    def detected(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Which of the faces with boxes (n, 4) are found in an image (H, W, 3), uint8 RGB: bool (n,).

        A face is found where a detection and its box have an intersection over union of at least `OVERLAP`.
        """


def aligned(image: np.ndarray, points: np.ndarray, template: np.ndarray, size: int) -> np.ndarray:
    """A face's chip (size, size, 3), uint8: the image (H, W, 3) moved so that points (5, 2) come near template (5, 2).

    By the similarity transform with the least squared error (Umeyama 1991) and bilinear sampling, black outside of the
    image: bit for bit what insightface's `norm_crop` gives. There is no filter against aliasing, as there is none
    where networks were trained on such chips. Raises DataError where all points are in one place.
    """
    import cv2

    transform = estimate_transform("similarity", spanning(points), np.asarray(template, np.float64))
    return cv2.warpAffine(np.ascontiguousarray(image), transform.params[:2], (size, size))


def spanning(points: np.ndarray) -> np.ndarray:
    """A face's points (5, 2) as float64. Raises DataError where they are not finite or all in one place."""
    points = np.asarray(points, np.float64)
    if not np.isfinite(points).all() or not np.ptp(points, axis=0).any():
        raise DataError(f"the five points of a face span nothing: {points.round(1).tolist()}")
    return points


def overlap(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intersection over union (k,) of boxes (k, 4) with one box (4,)."""
    boxes, box = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(box, np.float64)
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    common = (high - low).clip(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return common / np.maximum(areas - common, 1e-9)
