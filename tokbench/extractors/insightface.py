"""insightface's ArcFace networks (Deng et al., CVPR 2019, arXiv:1801.07698) and its detector SCRFD (arXiv:2105.04714).

Their weights are the user's: insightface gives them for non-commercial research only, and no wheel holds them.
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
"""insightface's model packages: recognition and detection."""

SIZE = 112
# Where ArcFace's training chips have the five points (`arcface_dst` in insightface/utils/face_align.py).
TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)], np.float32
)


class InsightFace(FaceRecognizer):
    """The networks of antelopev2, TokBench's own reader: vectors of 512 numbers, trained for the angle between them.

    Chips are 112 x 112 by the given five points. A face is looked for as insightface's FaceAnalysis does: SCRFD on the
    whole image, resized to fit 640 x 640, with a score of at least 0.5.
    """

    measure = "cosine"
    folder = "antelopev2"

    def __init__(self, allow_download: bool = False, *, path: Path | None = None, device: str = "cpu") -> None:
        """`path`: the folder; else it is looked for where weights are and in ~/.insightface/models.

        Raises MissingWeights where a package or one of its two files is missing. It downloads nothing, whatever
        `allow_download` says, since its terms want to be read first.
        """
        self.name, self.device = f"insightface-{self.folder.replace('_', '-')}", device
        try:
            import insightface
            import onnxruntime
            from insightface.model_zoo import SCRFD, ArcFaceONNX
        except ImportError as error:
            raise MissingWeights(
                f"{self.name} needs the packages insightface and onnxruntime ({error}); pip install 'tokbench[face]'",
                public_reason=f"{self.name} needs the packages insightface and onnxruntime, which were not there",
            ) from error
        recognition, detection = _find(self.name, self.folder, [path] if path else _places(self.folder))
        self.sha256, self._detector_sha256 = sha256_of(recognition), sha256_of(detection)
        self.library = f"insightface {insightface.__version__}, onnxruntime {onnxruntime.__version__}"
        # Its own loader would choose other providers, and reach for the network where a file is missing.
        self._net = ArcFaceONNX(str(recognition), _session(recognition, device))
        self._detector = SCRFD(str(detection), _session(detection, device))
        self._detector.prepare(0, det_thresh=0.5, input_size=(640, 640))

    def told(self) -> dict[str, str]:
        return super().told() | {"detector_sha256": self._detector_sha256}

    def embed(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
        chips = [aligned(image, face, TEMPLATE, SIZE) for face in points]
        # One by one, so that no vector's last bits depend on the other faces. insightface takes BGR.
        vectors = [self._net.get_feat(chip[..., ::-1]).ravel() for chip in chips]
        return np.array(vectors, np.float32).reshape(len(chips), self._net.output_shape[-1])

    def detected(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        found, _ = self._detector.detect(np.ascontiguousarray(image[..., ::-1]))
        return np.array([bool((overlap(found[:, :4], box) >= OVERLAP).any()) for box in boxes], bool)


class BuffaloL(InsightFace):
    """The same with the networks of buffalo_l, insightface's default."""

    folder = "buffalo_l"


def _places(folder: str) -> list[Path]:
    """Where the folder may be; the archive of antelopev2 holds a folder of its own name."""
    roots = [*search_dirs(), Path("~/.insightface/models").expanduser()]
    return [root / inside for root in roots for inside in (Path(folder), Path(folder) / folder)]


def _find(reader: str, folder: str, places: Sequence[Path]) -> tuple[Path, Path]:
    files = FOLDERS[folder]
    for place in places:
        if all((place / file).is_file() for file in files):
            return place / files[0], place / files[1]
    raise MissingWeights(
        f"{reader} needs {files[0]} and {files[1]}; looked in {', '.join(map(str, places))}; get {folder}.zip from the "
        f"model zoo of deepinsight/insightface on GitHub (its terms: non-commercial research) and unpack it into "
        f"~/.insightface/models/{folder}",
        public_reason=f"{reader} needs {files[0]} and {files[1]}, which were not there",
    )


def _session(path: Path, device: str) -> Any:
    """An onnxruntime session on the device, with as many threads as PyTorch has."""
    import onnxruntime

    wanted = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
    if wanted not in onnxruntime.get_available_providers():
        raise UsageError(f"this onnxruntime cannot use {device}; pip install onnxruntime-gpu, or use the device cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[wanted])
    except Exception as error:  # onnxruntime's own kinds have no common base
        raise MissingWeights(
            f"{path} is not a network that onnxruntime can run ({str(error)[:200]}); get it again",
            public_reason=f"{path.name} is not a network that onnxruntime can run",
        ) from error
