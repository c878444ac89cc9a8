"""Frozen networks that look at images for metrics, made when first asked for and shared by all metrics of a run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tokbench.errors import MissingWeights, NotApplicable
from tokbench.extractors.backend import Backend, Precision
from tokbench.extractors.specs import EXTRACTORS
from tokbench.io.hashing import code_of_class
from tokbench.weights.registry import resolve

if TYPE_CHECKING:
    from tokbench.extractors.network import FeatureExtractor
    from tokbench.extractors.reader import Recognizer

MARKED = {
    "rapidocr": "rapidocr:RapidOCR",
    "easyocr": "easyocr:EasyOCR",
    "parseq": "parseq:PARSeq",
    "dlib": "dlib_face:DlibFace",
    "insightface": "insightface:InsightFace",
    "buffalo_l": "insightface:BuffaloL",
}
"""Every reader of words or of faces: its class."""


class ExtractorPool:
    """The frozen networks of one run on one device, in one precision."""

    def __init__(self, device: str = "cpu", allow_download: bool = False, precision: Precision = "float32") -> None:
        self.device, self.precision = device, precision
        self._backend = Backend(device, precision)
        self._allow_download = allow_download
        self._whole: ExtractorPool | None = None
        self._made: dict[str, FeatureExtractor] = {}
        self._readers: dict[str, Recognizer] = {}
        self._missing: dict[str, MissingWeights] = {}

    @property
    def whole(self) -> ExtractorPool:
        """The same networks in float32."""
        if self.precision == "float32":
            return self
        if self._whole is None:
            self._whole = ExtractorPool(self.device, self._allow_download)
        return self._whole

    def get(self, name: str, path: str | None = None) -> FeatureExtractor:
        """The network of that name; `path` is its way from images to its input, where it has several.

        Raises MissingWeights where its weights are not on this machine, NotApplicable where no installed package has
        such a network.
        """
        if path is not None and (plain := self.get(name)).input != path:
            if f"{name}/{path}" not in self._made:
                self._made[f"{name}/{path}"] = plain.seeing(path)
            return self._made[f"{name}/{path}"]
        if name in self._missing:  # neither hashed nor downloaded again for every metric and adapter
            raise self._missing[name]
        if name not in self._made:
            if name not in EXTRACTORS:
                raise NotApplicable(EXTRACTORS.refusal(name) or f"no installed package has the network '{name}'")
            spec = EXTRACTORS[name]
            try:
                found = resolve(name, files, self._allow_download) if (files := spec.weight_files) else None
            except MissingWeights as error:
                self._missing[name] = error
                raise
            make = EXTRACTORS.load_class(name)
            self._made[name] = make(found, self._backend, **spec.options)
            if not EXTRACTORS.is_builtin(name):
                self._made[name].code = code_of_class(make)
        return self._made[name]

    def reader(self, name: str) -> Recognizer:
        """The reader of words or faces of that name. Raises MissingWeights where its package or weights are not here.

        It computes as its own library does, whatever the precision.
        """
        if name in self._missing:
            raise self._missing[name]
        if name not in self._readers:
            module, _, kind = MARKED[name].partition(":")
            try:
                make = getattr(importlib.import_module(f"tokbench.extractors.{module}"), kind)
                self._readers[name] = make(self._allow_download)
            except MissingWeights as error:
                self._missing[name] = error
                raise
        return self._readers[name]
