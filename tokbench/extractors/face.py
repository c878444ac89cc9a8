"""The interface of face networks: embedding of faces as vectors, and detection of faces."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np
from skimage.transform import estimate_transform

from tokbench.errors import DataError
from tokbench.extractors.reader import Recognizer

OVERLAP = 0.4
"""The smallest intersection over union of a detected face with the given box at which they count as the same face.

Detectors draw boxes differently. On 69 photographed faces, dlib's square boxes overlapped MTCNN's by 0.55 or more where
dlib found the face, even after the photos had been reduced to 64, 32, 24, 16, 12 and 8 pixels per face. None of 268
boxes next to faces was overlapped by 0.4.
"""


class FaceRecognizer(Recognizer):
    """`embed` returns a vector for each face; `detected` returns whether each face is detected.

    sha256 is the hash of the embedding's weights. measure is the distance for which the vectors were trained. Vectors
    are not normalised, since a Euclidean distance needs their length.

    Each face has five points in MTCNN's order: left eye, right eye, tip of the nose, left and right corner of the
    mouth, as seen in the image, (x, y) in pixels. Boxes are x1 y1 x2 y2 in pixels.
    """

    measure: Literal["cosine", "euclidean"]

    @abstractmethod
    def embed(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Return vectors (n, D), float32, of the n faces at points (n, 5, 2) of an image (H, W, 3), uint8 RGB.

        A face's vector does not depend on other faces. Raises DataError where all five points of a face coincide.
        """

    @abstractmethod
    def detected(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Return bool (n,): which of the faces with boxes (n, 4) are detected in an image (H, W, 3), uint8 RGB.

        A face counts as detected where a detection and its box have an intersection over union of at least `OVERLAP`.
        """


def aligned(image: np.ndarray, points: np.ndarray, template: np.ndarray, size: int) -> np.ndarray:
    """Return a face's chip (size, size, 3), uint8: the image (H, W, 3) warped so that points (5, 2) match template (5,
    2).

    The warp is the similarity transform with the least squared error (Umeyama 1991) with bilinear sampling; pixels
    outside the image are black. The output is bit for bit that of insightface's `norm_crop`. There is no antialiasing
    filter, since there was none in the training of these networks. Raises DataError where all points coincide.
    """
    import cv2

    transform = estimate_transform("similarity", spanning(points), np.asarray(template, np.float64))
    return cv2.warpAffine(np.ascontiguousarray(image), transform.params[:2], (size, size))


def spanning(points: np.ndarray) -> np.ndarray:
    """Return a face's points (5, 2) as float64. Raises DataError where they are not finite or all coincide."""
    points = np.asarray(points, np.float64)
    if not np.isfinite(points).all() or not np.ptp(points, axis=0).any():
        raise DataError(f"the five points of a face coincide or are not finite: {points.round(1).tolist()}")
    return points


def overlap(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the intersection over union (k,) of boxes (k, 4) with one box (4,)."""
    boxes, box = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(box, np.float64)
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    common = (high - low).clip(min=0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return common / np.maximum(areas - common, 1e-9)
