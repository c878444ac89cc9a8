"""F-Sim of TokBench (Wu et al. 2025, arXiv:2505.18142); whether a face is still found, and still the same person's."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokbench.metrics.annotated import AnnotatedMetric, Found
from tokbench.stats.binned import FACE_BINS, FACE_PIXEL_BINS, Bin

if TYPE_CHECKING:
    from tokbench.data.stream import AnnotatedImage

RELEASE = "2025-06"
"""Of TokBench's bins: they changed in June 2025."""


class Faces(AnnotatedMetric):
    """`f_sim`: the mean cosine of a face network's embeddings in the original and in the reconstruction, both aligned
    by the annotated five points; `f_distance`: their mean Euclidean distance; `f_detected`: the share of faces that a
    detector finds again, of those that it finds in the original; `f_rank1`: the share whose nearest face among all
    originals is the same person.
    """

    kind = "faces"
    curve = FACE_PIXEL_BINS

    def bins(self, side: int) -> Sequence[Bin]:
        return FACE_BINS[RELEASE].get(side, ())

    def originals(self, marked: AnnotatedImage) -> list[dict[str, Any]]:
        read = self._read(marked.pixels, marked)
        return [
            {"ratio": face.ratio, "box": list(face.box), "identity": face.identity, "original": one}
            for face, one in zip(marked.known.faces, read, strict=True)
        ]

    def again(
        self, pixels: np.ndarray, marked: AnnotatedImage, known: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        return self._read(pixels, marked)

    def _read(self, pixels: np.ndarray, marked: AnnotatedImage) -> list[dict[str, Any]]:
        faces = marked.known.faces
        if not faces:
            return []
        vectors = self._reader.embed(pixels, np.array([face.points for face in faces]))
        there = self._reader.detected(pixels, np.array([face.box for face in faces]))
        return [{"vector": _packed(one), "detected": bool(found)} for one, found in zip(vectors, there, strict=True)]

    def shown(self, face: Mapping[str, Any]) -> dict[str, Any]:
        original, own = _vectors([face["original"]]), _vectors([face["image"]])
        told = {key: face[key] for key in ("box", "ratio", "identity")}
        found = {key: face[key]["detected"] for key in ("original", "ceiling", "image")}
        return told | {"detected": found, "f_sim": round(float(_cosines(original, own)[0]), 6)}

    def found(self, lines: Sequence[list[dict[str, Any]]]) -> Found:
        faces = [(position, face) for position, line in enumerate(lines) for face in line]
        known = [face["identity"] for _, face in faces]
        original = _vectors(face["original"] for _, face in faces)

        def scores(version: str) -> dict[str, np.ndarray]:
            own = _vectors(face[version] for _, face in faces)
            there = np.array([float(face[version]["detected"]) for _, face in faces])
            findable = np.array([face["original"]["detected"] for _, face in faces], dtype=bool)
            return {
                "f_sim": _cosines(original, own),
                "f_distance": np.linalg.norm(original - own, axis=-1),
                "f_detected": np.where(findable, there, np.nan),
                "f_rank1": self._same(own, original, known),
            }

        return Found(
            np.array([face["ratio"] for _, face in faces]),
            np.array([position for position, _ in faces]),
            scores("image") if faces else {},
            scores("ceiling") if faces else {},
            frozenset({"f_distance"}),
            counts={"faces": float(len(faces))},
            shares=frozenset({"f_detected", "f_rank1"}),
        )

    def _same(self, own: np.ndarray, originals: np.ndarray, known: Sequence[str | None]) -> np.ndarray:
        """Whether each one's nearest original, by the reader's own measure, is it or another picture of the person."""
        if self._reader.measure == "cosine":
            own, originals = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (own, originals))
        nearest = [int(np.linalg.norm(originals - vector, axis=1).argmin()) for vector in own]
        return np.array(
            [float(at == i or (known[i] is not None and known[at] == known[i])) for i, at in enumerate(nearest)]
        )


def _packed(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _vectors(faces: Any) -> np.ndarray:
    """(n, D) float64."""
    return np.array([np.frombuffer(base64.b64decode(face["vector"]), "<f4") for face in faces], dtype=np.float64)


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.asarray((first * second).sum(-1) / lengths)
