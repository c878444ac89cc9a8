"""insightface's ArcFace networks (Deng et al., CVPR 2019, arXiv:1801.07698) and its detector SCRFD (arXiv:2105.04714).

Users must provide the weights: insightface allows non-commercial research only, and no wheel contains them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokbench.errors import MissingWeights, UsageError
from tokbench.extractors.face import OVERLAP, FaceRecognizer, aligned, overlap
from tokbench.io.hashing import sha256_of
from tokbench.weights.registry import search_dirs

FOLDERS = {
    "buffalo_l": ("w600k_r50.onnx", "det_10g.onnx"),
    "antelopev2": ("glintr100.onnx", "scrfd_10g_bnkps.onnx"),
}
"""insightface's model packages: the files for recognition and for detection."""

SIZE = 112
# The five points in ArcFace's training chips (`arcface_dst` in insightface/utils/face_align.py).
TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)], np.float32
)


class InsightFace(FaceRecognizer):
    """The networks of antelopev2, which TokBench uses: vectors of 512 numbers, trained for the angle between them.

    Chips are 112 x 112 and aligned by the given five points. Faces are detected as in insightface's FaceAnalysis: SCRFD
    on the whole image, resized to fit 640 x 640, with a score of at least 0.5.
    """

    measure = "cosine"
    folder = "antelopev2"

    def __init__(self, allow_download: bool = False, *, path: Path | None = None, device: str = "cpu") -> None:
        """path: the folder of the two networks; by default the folders for weights and ~/.insightface/models are
        searched.

        Raises MissingWeights where a package or one of the two files is missing. Nothing is downloaded, even with
        `allow_download`, since users must read the terms first.
        """
        self.name, self.device = f"insightface-{self.folder.replace('_', '-')}", device
        try:
            import insightface
            import onnxruntime
            from insightface.model_zoo import SCRFD, ArcFaceONNX
        except ImportError as error:
            raise MissingWeights(
                f"{self.name} needs the packages insightface and onnxruntime ({error}); pip install 'tokbench[face]'",
                public_reason=f"{self.name} needs the packages insightface and onnxruntime, which were not installed",
            ) from error
        recognition, detection = _find(self.name, self.folder, [path] if path else _places(self.folder))
        self.sha256, self._detector_sha256 = sha256_of(recognition), sha256_of(detection)
        self.library = f"insightface {insightface.__version__}, onnxruntime {onnxruntime.__version__}"
        # insightface's own loader would choose other providers and download missing files.
        self._net = ArcFaceONNX(str(recognition), _session(recognition, device))
        self._detector = SCRFD(str(detection), _session(detection, device))
        self._detector.prepare(0, det_thresh=0.5, input_size=(640, 640))

    def describe(self) -> dict[str, str]:
        return super().describe() | {"detector_sha256": self._detector_sha256}

    def embed(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        chips = [aligned(image, face, TEMPLATE, SIZE) for face in points]
        # Faces are embedded one by one, so that no vector depends on other faces. insightface expects BGR.
        vectors = [self._net.get_feat(chip[..., ::-1]).ravel() for chip in chips]
        return np.array(vectors, np.float32).reshape(len(chips), self._net.output_shape[-1])

    def detected(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        found, _ = self._detector.detect(np.ascontiguousarray(image[..., ::-1]))
        return np.array([bool((overlap(found[:, :4], box) >= OVERLAP).any()) for box in boxes], bool)


class BuffaloL(InsightFace):
    """The networks of buffalo_l, insightface's default, with the settings of `InsightFace`."""

    folder = "buffalo_l"


def _places(folder: str) -> list[Path]:
    """Return the folders to search. The archive of antelopev2 contains a folder of the same name."""
    roots = [*search_dirs(), Path("~/.insightface/models").expanduser()]
    return [root / inside for root in roots for inside in (Path(folder), Path(folder) / folder)]


def _find(reader: str, folder: str, places: Sequence[Path]) -> tuple[Path, Path]:
    files = FOLDERS[folder]
    for place in places:
        if all((place / file).is_file() for file in files):
            return place / files[0], place / files[1]
    raise MissingWeights(
        f"{reader} needs {files[0]} and {files[1]}; searched {', '.join(map(str, places))}; get {folder}.zip from the "
        f"model zoo of deepinsight/insightface on GitHub (its terms: non-commercial research) and unpack it into "
        f"~/.insightface/models/{folder}",
        public_reason=f"{reader} needs {files[0]} and {files[1]}, which were not installed",
    )


def _session(path: Path, device: str) -> Any:
    """Return an onnxruntime session on the device, with as many threads as PyTorch uses.

    Raises UsageError where onnxruntime does not support the device, MissingWeights where the file is not a valid
    network.
    """
    import onnxruntime

    provider = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise UsageError(
            f"this onnxruntime does not support {device}; pip install onnxruntime-gpu, or use the device cpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise MissingWeights(
            f"{path} is not a network that onnxruntime can run ({str(error)[:200]}); get it again",
            public_reason=f"{path.name} is not a network that onnxruntime can run",
        ) from error
