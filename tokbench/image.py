"""From the bytes of an image file to 8-bit RGB: one policy for every odd kind of image."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from tokbench.errors import BadImage

MAX_PIXELS = 89_478_485
"""Images with more pixels are refused as decompression bombs (Pillow's own limit, at which it would only warn)."""

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".jp2")
)


def open_rgb(data: bytes, name: str) -> Image.Image:
    """Decode an image file to RGB. Raises BadImage, naming it and why.

    Pixels are taken as Pillow gives them, as the field's other tools do: the first frame, no EXIF rotation (but TIFF's
    own orientation tag), no colour management. Transparency lies over white, grey is repeated, 16-bit grey is scaled
    by 1/257.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                _check_pixels(image, name)
                return _to_rgb(image)
    except BadImage:
        raise
    except (Image.UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else "over the decompression limit"
        raise BadImage(f"{name}: {reason if data else 'the file is empty'}") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise BadImage(f"{name}: cannot be decoded ({str(error)[:120] or type(error).__name__})") from error


def size_of(data: bytes, name: str) -> tuple[int, int]:
    """Width and height from the header alone. Raises BadImage."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                _check_pixels(image, name)
                return image.size
    except BadImage:
        raise
    except Exception as error:
        raise BadImage(f"{name}: not an image") from error


def _check_pixels(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(
            f"{name}: {image.width} x {image.height} pixels, over the limit of {MAX_PIXELS} (decompression bomb)"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
        grey = np.asarray(image).astype(np.float64) / 257
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
