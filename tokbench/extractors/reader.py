"""What every network that reads words or faces says of itself."""

from __future__ import annotations

from abc import ABC


class Recognizer(ABC):
    """name: the reader's name in results. sha256: of its weights file. library: the packages that run it, and versions.

    What it finds depends on nothing else but the device.
    """

    name: str
    sha256: str
    library: str
    device: str = "cpu"

    @property
    def key(self) -> str:
        """What tells its readings from those of another reader."""
        return "/".join([*self.told().values(), self.device])

    def told(self) -> dict[str, str]:
        """What a result must say of it."""
        return {"reader": self.name, "sha256": self.sha256, "library": self.library}
