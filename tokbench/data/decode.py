"""From the bytes of an image file to 8-bit RGB: one policy for every odd kind of image.

    read                      how
    animated, several pages   the first frame
    grey, palette, CMYK, LAB  Pillow's conversion to RGB; profiles are ignored (no colour management)
    transparency              over white
    16-bit grey               scaled by 1/257 and rounded
    16-bit RGB                the upper byte of each level, as Pillow reads it
    EXIF orientation          ignored; TIFF's own orientation tag is applied

    refused (BadImage)        empty, no image or of a format not in FORMATS, cut off or otherwise undecodable, more than
                              MAX_PIXELS, more than MAX_BYTES, levels without a stated range (float, 12 or 32 bits)

What the field's other tools do with Pillow is done where it gives a picture at all, since numbers are compared with
theirs. PNG's checksums are checked. Other formats have none: damage that their decoders do not notice cannot be told
from a picture.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageFile

from tokbench.errors import UnreadableImage

MAX_PIXELS = 89_478_485
"""Images with more pixels are refused as decompression bombs (Pillow's own limit, at which it would only warn)."""

MAX_BYTES = 1 << 30
"""Larger files are never read into memory: 1 GiB is more than MAX_PIXELS of the deepest levels take."""

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""Pillow knows many more, some of which start programs (EPS) or were never meant for files from strangers."""

SUFFIXES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".mpo", ".webp", ".avif", ".avifs", ".bmp",
     ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx")
)  # fmt: skip
"""Of the files that are taken for images: those in which the formats above are commonly kept."""

OTHER_SUFFIXES = frozenset(
    (".heic", ".heif", ".hif", ".jxl", ".jxr", ".wdp", ".hdp", ".bpg", ".flif", ".qoi", ".svg", ".svgz", ".eps",
     ".psd", ".psb", ".xcf", ".kra", ".exr", ".hdr", ".pfm", ".tga", ".pcx", ".ico", ".icns", ".cur", ".dds", ".sgi",
     ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw",
     ".x3f", ".raw")
)  # fmt: skip
"""Of files that hold pictures which are not read. They are counted, so that no data set is shorter without a word."""

_MAGIC = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|II[*+]\0|MM\0[*+]"
    rb"|BM.{4}\0{4}.{2}\0\0[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}"
    rb"|.{4}ftyp(?:hei[cmsx]|hevc|hevx|mif1|msf1|avif|avis)"
    rb"|\0{3}\x0c(?:jP  |JXL )\r\n\x87\n|\xff\x0a|\xff\x4f\xff\x51|8BPS|gimp xcf|\x76\x2f\x31\x01|#\?RADIANCE|qoif",
    re.DOTALL,
)
"""How the files of PNG, JPEG, GIF, WebP, TIFF (and camera files made of it), BMP, HEIC and AVIF, JPEG 2000, JPEG XL,
Photoshop, GIMP, OpenEXR, Radiance and QOI begin."""

MAGIC_BYTES = 32
"""How many of a file's first bytes `begins_as_image` wants."""

# Pillow warns of odd metadata, which no pixel depends on. Once, here: changing filters around each image is not safe
# where several threads decode.
warnings.filterwarnings("ignore", module=r"PIL\.")


def open_rgb(data: bytes, name: str) -> Image.Image:
    """Decode an image file to RGB, as the table above says. Raises BadImage, naming it, why, and the remedy."""
    with _opened(data, name) as image:
        try:
            if image.format == "PNG":
                _check_png(data)
            return _to_rgb(image, name)
        except UnreadableImage:
            raise
        except Exception as error:
            raise _undecodable(error, name) from error


def size_of(data: bytes, name: str) -> tuple[int, int]:
    """Width and height from the header alone. Raises BadImage."""
    with _opened(data, name) as image:
        return image.size


def begins_as_image(head: bytes) -> bool:
    """Whether a file's first MAGIC_BYTES bytes are those of a picture, of the formats above or of another one."""
    return _MAGIC.match(head) is not None


def refuse_large(count: int, name: str) -> None:
    """Raises BadImage where a file of `count` bytes is too large to be read into memory."""
    if count > MAX_BYTES:
        raise UnreadableImage(
            f"{name}: {count:,} bytes, over the limit of {MAX_BYTES:,}; no image is that large, remove it"
        )


def _opened(data: bytes, name: str) -> Image.Image:
    if not data:
        raise UnreadableImage(f"{name}: the file is empty; copy it again")
    # A library that an adapter imports may have told Pillow to fill what is missing with grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(
            f"{name}: not an image of a known kind ({', '.join(FORMATS)}); remove or convert it"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImage(
            f"{name}: over the limit of {MAX_PIXELS} pixels (decompression bomb); scale it down"
        ) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise _undecodable(error, name) from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(
            f"{name}: {image.width} x {image.height} pixels, over the limit of {MAX_PIXELS} (decompression bomb); "
            "scale it down"
        )
    return image


def _undecodable(error: Exception, name: str) -> UnreadableImage:
    if isinstance(error, MemoryError):
        return UnreadableImage(f"{name}: decoded, it does not fit into memory; scale it down or remove it")
    why = str(error)[:120] or type(error).__name__
    return UnreadableImage(f"{name}: cannot be decoded ({why}); copy it again or remove it")


def _check_png(data: bytes) -> None:
    """Raises ValueError where the checksum of a chunk of pixels is wrong. Pillow skips it, and damage at the end of the
    stream then shows as wrong pixels."""
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        whole = end <= len(data)  # of one that is cut off, Pillow misses the rest itself
        if (
            kind == b"IDAT"
            and whole
            and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big")
        ):
            raise ValueError("a checksum is wrong")
        at = end


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    image.load()
    if image.mode == "F":
        raise UnreadableImage(f"{name}: floating-point levels, whose white is unknown; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow's own conversion would clip 16-bit grey at 255
        return _grey(image, name)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image.Image, name: str) -> Image.Image:
    levels = np.asarray(image)
    least, most = int(levels.min()), int(levels.max())
    if least < 0 or most > 65535:
        raise UnreadableImage(f"{name}: levels of {least} to {most}, beyond 16 bits; save it with 8 or 16 bits")
    if image.format == "TIFF" and image.tag_v2.get(258) == (12,):  # type: ignore[attr-defined]
        raise UnreadableImage(f"{name}: 12-bit levels; save it with 8 or 16 bits")
    grey = (levels / np.float32(257)).round().astype(np.uint8)
    if isinstance(clear := image.info.get("transparency"), int):
        grey[levels == clear] = 255
    return Image.fromarray(grey).convert("RGB")
