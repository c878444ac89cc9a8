"""The base class of networks that recognize text or faces: what a result records about them."""

from __future__ import annotations

from abc import ABC


class Recognizer(ABC):
    """A network that recognizes text or faces.

    name: the name in results. sha256: the hash of its weights file. library: the packages that run it, with versions.
    Its output depends on nothing else but the device.
    """

    name: str
    sha256: str
    library: str
    device: str = "cpu"

    @property
    def key(self) -> str:
        """A string that differs between two recognizers whose output can differ."""
        return "/".join([*self.describe().values(), self.device])

    def describe(self) -> dict[str, str]:
        """Return what a result records about the recognizer."""
        return {"reader": self.name, "sha256": self.sha256, "library": self.library}
