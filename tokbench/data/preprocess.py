"""Preprocessing: crops and resizes decoded images to the square that a protocol specifies."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tokbench.data.decode import MAX_PIXELS
from tokbench.data.letterbox import pad
from tokbench.errors import UnreadableImage, UsageError
from tokbench.protocol.protocol import Protocol

_PILLOW = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
}


def prepare(image: Image.Image, size: int | None, protocol: Protocol) -> tuple[np.ndarray, bool]:
    """Return the preprocessed pixels (size, size, 3) of an RGB image, and whether it was smaller than the size.

    With size None the image is not changed. Levels are uint8, or unrounded float32 in [0, 255] if the protocol resizes
    tensors.

    Raises UnreadableImage if the scaled image would exceed MAX_PIXELS before its crop, or if the protocol does not crop
    and the image has another size. Raises UsageError if the resizing library is not installed. Errors of that library
    are not caught.
    """
    if size is None or image.size == (size, size):
        return np.asarray(image), False
    if protocol.crop == "none":
        raise UnreadableImage(wrong_size_message(protocol, image.size, size))
    if protocol.crop == "pad":
        return pad(image, size), max(image.size) < size
    short = min(image.size)
    if protocol.crop == "adm":
        while min(image.size) >= 2 * size:
            image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    pixels: np.ndarray = np.asarray(image)
    if min(image.size) != size:
        pixels = _scale(image, size, protocol)
    height, width = pixels.shape[:2]
    # Python rounds halves to even, as torchvision's CenterCrop does.
    left, top = (
        round((side - size) / 2.0) if protocol.crop == "torchvision" else (side - size) // 2 for side in (width, height)
    )
    return pixels[top : top + size, left : left + size], short < size


def wrong_size_message(protocol: Protocol, size: tuple[int, int], side: int) -> str:
    """Return the error message for an image of `size` (width, height) under a protocol that does not crop."""
    return (
        f"protocol {protocol.name} does not resize images, and this one is {size[0]}x{size[1]}, not "
        f"{side}x{side}; use images of that size, or a protocol that crops"
    )


def check_library(protocol: Protocol) -> None:
    """Raise UsageError if the library with which the protocol resizes is not installed."""
    if protocol.library != "opencv":
        return
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"protocol {protocol.name} resizes with OpenCV; install it with: pip install opencv-python-headless"
        ) from error


def _scale(image: Image.Image, size: int, protocol: Protocol) -> np.ndarray:
    """Return the pixels of the image scaled so that its short side is `size`."""
    short, long = sorted(image.size)
    # torchvision's Resize multiplies before it divides, which affects the truncated result.
    scaled = int(size * long / short) if protocol.crop == "torchvision" else round(long * (size / short))
    width, height = (size, scaled) if image.width <= image.height else (scaled, size)
    if width * height > MAX_PIXELS:
        raise UnreadableImage(
            f"a {image.width}x{image.height} image would become {width}x{height} before its crop, over the limit of "
            f"{MAX_PIXELS} pixels; cut it to a less extreme shape, or remove it"
        )
    if protocol.library == "pillow":
        return np.asarray(image.resize((width, height), _PILLOW[protocol.filter]))
    if protocol.library == "opencv":
        return _opencv(np.asarray(image), (width, height), protocol)
    return _tensor(np.asarray(image), (height, width), protocol)


def _opencv(pixels: np.ndarray, size: tuple[int, int], protocol: Protocol) -> np.ndarray:
    check_library(protocol)
    import cv2

    filters = {
        "lanczos": cv2.INTER_LANCZOS4,
        "bicubic": cv2.INTER_CUBIC,
        "bilinear": cv2.INTER_LINEAR,
        "area": cv2.INTER_AREA,
    }
    return np.asarray(cv2.resize(pixels, size, interpolation=filters[protocol.filter]))


def _tensor(pixels: np.ndarray, size: tuple[int, int], protocol: Protocol) -> np.ndarray:
    import torch
    from torch.nn.functional import interpolate

    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    if protocol.filter == "area":
        resized = interpolate(image, size, mode="area")
    else:
        resized = interpolate(image, size, mode=protocol.filter, antialias=protocol.antialias, align_corners=False)
    return resized[0].clamp(0, 255).permute(1, 2, 0).numpy()


_JPEG_SIDE = 65_500
"""Maximum side in pixels that libjpeg writes (JPEG_MAX_DIMENSION in its jmorecfg.h)."""


def refuse_unstorable(size: tuple[int, ...], protocol: Protocol) -> None:
    """Raise UnreadableImage if the protocol stores reconstructions in a format that does not support `size` (w, h)."""
    if protocol.storage.startswith("jpeg") and max(size) > _JPEG_SIDE:
        raise UnreadableImage(
            f"protocol {protocol.name} stores it as JPEG, whose sides are at most {_JPEG_SIDE:,} px, but it is "
            f"{size[0]}x{size[1]}; crop it or scale it down"
        )
