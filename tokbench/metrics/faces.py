"""F-Sim of TokBench (Wu et al. 2025, arXiv:2505.18142), and whether faces are still detected and matched to the right
person."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokbench.metrics.annotated import AnnotatedMetric, AnnotationScores
from tokbench.stats.binned import FACE_BINS, FACE_PIXEL_BINS, Bin

if TYPE_CHECKING:
    from tokbench.data.stream import AnnotatedImage

RELEASE = "2025-06"
"""The version of TokBench's bins, which changed in June 2025."""


class Faces(AnnotatedMetric):
    """`f_sim`: the mean cosine similarity of a face network's embeddings in the original and in the reconstruction,
    both aligned by the annotated five points. `f_distance`: their mean Euclidean distance. `f_detected`: the share of
    faces that a detector finds in the reconstruction, among those that it finds in the original. `f_rank1`: the share
    of faces whose nearest face among all originals is the same person."""

    kind = "faces"
    curve = FACE_PIXEL_BINS

    def bins(self, side: int) -> Sequence[Bin]:
        return FACE_BINS[RELEASE].get(side, ())

    def read_originals(self, marked: AnnotatedImage) -> list[dict[str, Any]]:
        read = self._read(marked.pixels, marked)
        return [
            {"ratio": face.ratio, "box": list(face.box), "identity": face.identity, "original": result}
            for face, result in zip(marked.known.faces, read, strict=True)
        ]

    def read_image(
        self, pixels: np.ndarray, marked: AnnotatedImage, known: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        return self._read(pixels, marked)

    def _read(self, pixels: np.ndarray, marked: AnnotatedImage) -> list[dict[str, Any]]:
        faces = marked.known.faces
        if not faces:
            return []
        vectors = self._reader.embed(pixels, np.array([face.points for face in faces]))
        detected = self._reader.detected(pixels, np.array([face.box for face in faces]))
        return [
            {"vector": _packed(vector), "detected": bool(found)}
            for vector, found in zip(vectors, detected, strict=True)
        ]

    def summarize(self, face: Mapping[str, Any]) -> dict[str, Any]:
        original, image = _vectors([face["original"]]), _vectors([face["image"]])
        facts = {key: face[key] for key in ("box", "ratio", "identity")}
        detected = {key: face[key]["detected"] for key in ("original", "ceiling", "image")}
        return facts | {"detected": detected, "f_sim": round(float(_cosines(original, image)[0]), 6)}

    def score(self, lines: Sequence[list[dict[str, Any]]]) -> AnnotationScores:
        faces = [(position, face) for position, line in enumerate(lines) for face in line]
        known = [face["identity"] for _, face in faces]
        original = _vectors(face["original"] for _, face in faces)

        def scores(version: str) -> dict[str, np.ndarray]:
            vectors = _vectors(face[version] for _, face in faces)
            detected = np.array([float(face[version]["detected"]) for _, face in faces])
            detectable = np.array([face["original"]["detected"] for _, face in faces], dtype=bool)
            return {
                "f_sim": _cosines(original, vectors),
                "f_distance": np.linalg.norm(original - vectors, axis=-1),
                "f_detected": np.where(detectable, detected, np.nan),
                "f_rank1": self._same_person(vectors, original, known),
            }

        return AnnotationScores(
            np.array([face["ratio"] for _, face in faces]),
            np.array([position for position, _ in faces]),
            scores("image") if faces else {},
            scores("ceiling") if faces else {},
            frozenset({"f_distance"}),
            counts={"faces": float(len(faces))},
            shares=frozenset({"f_detected", "f_rank1"}),
        )

    def _same_person(self, vectors: np.ndarray, originals: np.ndarray, known: Sequence[str | None]) -> np.ndarray:
        """Return (n,) 1 where the nearest original, by the recognizer's distance, is the same face or another image of
        the person, else 0."""
        if self._reader.measure == "cosine":
            vectors, originals = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (vectors, originals))
        nearest = [int(np.linalg.norm(originals - vector, axis=1).argmin()) for vector in vectors]
        return np.array(
            [float(at == i or (known[i] is not None and known[at] == known[i])) for i, at in enumerate(nearest)]
        )


def _packed(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _vectors(faces: Any) -> np.ndarray:
    """Return the embeddings of faces as float64 (n, D)."""
    return np.array([np.frombuffer(base64.b64decode(face["vector"]), "<f4") for face in faces], dtype=np.float64)


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.asarray((first * second).sum(-1) / lengths)
