"""ExtractorPool: the frozen networks of a run, loaded on first use and shared by all metrics."""

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
    "rapidocr-page": "rapidocr_page:RapidOCRPage",
    "easyocr": "easyocr:EasyOCR",
    "parseq": "parseq:PARSeq",
    "dlib": "dlib_face:DlibFace",
    "insightface": "insightface:InsightFace",
    "buffalo_l": "insightface:BuffaloL",
}
"""The class of every recognizer of text or faces."""


class ExtractorPool:
    """The frozen networks of one run on one device, in one precision."""

    def __init__(self, device: str = "cpu", allow_download: bool = False, precision: Precision = "float32") -> None:
        self.device, self.precision = device, precision
        self._backend = Backend(device, precision)
        self.allow_download = allow_download
        self._whole: ExtractorPool | None = None
        self._networks: dict[str, FeatureExtractor] = {}
        self._readers: dict[str, Recognizer] = {}
        self._missing: dict[str, MissingWeights] = {}

    @property
    def whole(self) -> ExtractorPool:
        """The pool of these networks in float32."""
        if self.precision == "float32":
            return self
        if self._whole is None:
            self._whole = ExtractorPool(self.device, self.allow_download)
        return self._whole

    def get(self, name: str, path: str | None = None) -> FeatureExtractor:
        """Return the network of that name. path: the way of preparing its input, where it has several.

        Raises MissingWeights where its weights are not on this machine, NotApplicable where no installed package has
        such a network.
        """
        if path is not None and (plain := self.get(name)).input != path:
            if f"{name}/{path}" not in self._networks:
                self._networks[f"{name}/{path}"] = plain.with_input(path)
            return self._networks[f"{name}/{path}"]
        if name in self._missing:  # it is not searched or downloaded again for every metric and adapter
            raise self._missing[name]
        if name not in self._networks:
            if name not in EXTRACTORS:
                raise NotApplicable(EXTRACTORS.refusal(name) or f"no installed package has the network '{name}'")
            spec = EXTRACTORS[name]
            try:
                found = resolve(name, files, self.allow_download) if (files := spec.weight_files) else None
            except MissingWeights as error:
                self._missing[name] = error
                raise
            build = EXTRACTORS.load_class(name)
            self._networks[name] = build(found, self._backend, **spec.options)
            if not EXTRACTORS.is_builtin(name):
                self._networks[name].code = code_of_class(build)
        return self._networks[name]

    def reader(self, name: str) -> Recognizer:
        """Return the recognizer of text or faces of that name. Raises MissingWeights where its package or weights are
        missing.

        It computes as its own library does; the pool's precision does not apply.
        """
        if name in self._missing:
            raise self._missing[name]
        if name not in self._readers:
            module, _, class_name = MARKED[name].partition(":")
            try:
                build = getattr(importlib.import_module(f"tokbench.extractors.{module}"), class_name)
                self._readers[name] = build(self.allow_download)
            except MissingWeights as error:
                self._missing[name] = error
                raise
        return self._readers[name]
