"""Protocol: how an image file becomes the pixels that are compared. A small file with a name and a hash."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Literal

from PIL import Image

from tokbench.errors import BadImage, UsageError
from tokbench.image import MAX_PIXELS

_FILTERS = {"bicubic": Image.Resampling.BICUBIC}
_CHOICES = {
    "crop": ("centre",),
    "filter": tuple(_FILTERS),
    "rounding": ("nearest",),
    "storage": ("memory",),
    "reference": ("crop",),
    "inception_input": ("tf1",),
}


@dataclass(frozen=True)
class Protocol:
    """One way to prepare and compare images; every field changes numbers, so every field is in the hash.

    crop: `centre`, the short side to the asked size, then the centre square. filter: Pillow's, antialiased.
    rounding: of decoded images to 8 bits, once, before any metric. storage: reconstructions stay in memory.
    reference: what they are compared with, the same crops. inception_input: TensorFlow-1 bilinear to 299 px and
    (x - 128) / 128, as torch-fidelity and the ADM graph do.
    """

    name: str
    summary: str
    crop: Literal["centre"]
    filter: Literal["bicubic"]
    rounding: Literal["nearest"]
    storage: Literal["memory"]
    reference: Literal["crop"]
    inception_input: Literal["tf1"]

    @property
    def sha256(self) -> str:
        """Hash of every field that changes a number (not of the name or the summary)."""
        fields = {key: value for key, value in asdict(self).items() if key not in ("name", "summary")}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def prepare(self, image: Image.Image, size: int | None) -> tuple[Image.Image, bool]:
        """RGB image to its size x size centre crop (as it is where `size` is None), and whether it was enlarged.

        Raises BadImage where the scaled image, before its crop, would be over the decompression limit.
        """
        if size is None or image.size == (size, size):
            return image, False
        width, height = image.size
        short = min(width, height)
        if short != size:
            scaled = (round(width * size / short), round(height * size / short))
            if scaled[0] * scaled[1] > MAX_PIXELS:
                raise BadImage(f"a {width}x{height} image would become {scaled[0]}x{scaled[1]} before its crop")
            image = image.resize(scaled, _FILTERS[self.filter])
        left, top = (image.width - size) // 2, (image.height - size) // 2
        return image.crop((left, top, left + size, top + size)), short < size


def protocols() -> list[str]:
    """The names of the protocols that tokbench ships."""
    return sorted(path.name.removesuffix(".toml") for path in files("tokbench").joinpath("protocols").iterdir())


def load_protocol(name: str) -> Protocol:
    """The shipped protocol of that name. Raises UsageError where there is none or its file is wrong."""
    if name not in protocols():
        raise UsageError(f"no protocol '{name}'; there are: {', '.join(protocols())}")
    fields = tomllib.loads(files("tokbench").joinpath("protocols", f"{name}.toml").read_text())
    for key, allowed in _CHOICES.items():
        if fields.get(key) not in allowed:
            raise UsageError(f"protocol '{name}': {key} = {fields.get(key)!r}; it must be one of {', '.join(allowed)}")
    return Protocol(name=name, **fields)
