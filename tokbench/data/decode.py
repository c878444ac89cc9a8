"""Decodes image files to 8-bit RGB.

    content                   treatment
    animation, several pages  the first frame is used
    grey, palette, CMYK, LAB  Pillow's conversion to RGB; profiles are ignored (no colour management)
    transparency              composited over white
    16-bit grey               scaled by 1/257 and rounded
    16-bit RGB                the upper byte of each level is used, as Pillow does
    EXIF orientation          ignored; the orientation tag of TIFF is applied
    metadata of PNG           dropped if Pillow cannot read them (text over 1 MiB, wrong checksums)
    HEIC, HEIF                read if the package pillow-heif is installed

    refused (UnreadableImage) empty files, formats not in FORMATS, truncated or otherwise undecodable files, more than
                              MAX_PIXELS, more than MAX_BYTES, levels without a known range (float, 12 or 32 bits)

Where Pillow gives an image, the treatment is that of other evaluation tools that use Pillow, so that metric values are
comparable with theirs. PNG checksums are verified. Other formats have none, so damage that their decoders do not detect
remains undetected.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from functools import cache
from importlib.util import find_spec

import numpy as np
from PIL import Image, ImageFile

from tokbench.errors import UnreadableImage

MAX_PIXELS = 89_478_485
"""Images with more pixels are refused as decompression bombs. Pillow has the same limit, but only warns."""

MAX_BYTES = 1 << 30
"""Larger files are never read into memory: MAX_PIXELS pixels with the largest bit depth take less than 1 GiB."""

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""Accepted formats. Pillow supports more, but some of them start programs (EPS) or are unsafe for untrusted files."""

SUFFIXES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".mpo", ".webp", ".avif", ".avifs", ".bmp",
     ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx")
)  # fmt: skip
"""Suffixes of files that are treated as images: the common suffixes of the formats above."""

HEIF_SUFFIXES = frozenset((".heic", ".heics", ".heif", ".heifs", ".hif"))
"""Suffixes of HEIC and HEIF, which are read if the package pillow-heif is installed."""

OTHER_SUFFIXES = frozenset(
    (*HEIF_SUFFIXES, ".jxl", ".jxr", ".wdp", ".hdp", ".bpg", ".flif", ".qoi", ".svg", ".svgz", ".eps", ".psd", ".psb",
     ".xcf", ".kra", ".exr", ".hdr", ".pfm", ".tga", ".pcx", ".ico", ".icns", ".cur", ".dds", ".sgi", ".dng", ".cr2",
     ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw", ".x3f", ".raw")
)  # fmt: skip
"""Suffixes of image formats that are not read. They are counted, so that users know of them."""

_MAGIC = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|II[*+]\0|MM\0[*+]"
    rb"|BM.{4}\0{4}.{2}\0\0[\x0c\x28\x34\x38\x40\x6c\x7c]\0{3}"
    rb"|.{4}ftyp(?:hei[cmsx]|hevc|hevx|mif1|msf1|avif|avis)"
    rb"|\0{3}\x0c(?:jP  |JXL )\r\n\x87\n|\xff\x0a|\xff\x4f\xff\x51|8BPS|gimp xcf|\x76\x2f\x31\x01|#\?RADIANCE|qoif",
    re.DOTALL,
)
"""The first bytes of files in the formats PNG, JPEG, GIF, WebP, TIFF (and camera formats based on it), BMP, HEIC, AVIF,
JPEG 2000, JPEG XL, Photoshop, GIMP, OpenEXR, Radiance and QOI."""

_HEIF = re.compile(rb".{4}ftyp(?:hei[cmsx]|hevc|hevx|mif1|msf1)", re.DOTALL)

LFS_POINTER = b"version https://git-lfs"
"""The first bytes of a pointer of Git LFS."""

LFS_REMEDY = "a pointer of Git LFS, not the file itself; run git lfs pull"

MAGIC_BYTES = 32
"""Number of bytes at the beginning of a file that `begins_as_image` requires."""

# Pillow warns about unusual metadata, which do not affect the pixels. The filter is global, because changing filters
# for each image is not safe when several threads decode.
warnings.filterwarnings("ignore", module=r"PIL\.")


@cache
def heif_is_readable() -> bool:
    """Return whether the package pillow-heif, which reads HEIC and HEIF files, is installed."""
    return find_spec("pillow_heif") is not None


@cache
def _register_heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def is_read_suffix(suffix: str) -> bool:
    """Return whether files with this suffix, in lower case, are treated as images."""
    return suffix in SUFFIXES or (suffix in HEIF_SUFFIXES and heif_is_readable())


def is_image_suffix(suffix: str) -> bool:
    """Return whether a suffix, in lower case, is that of an image format, read or not."""
    return suffix in SUFFIXES or suffix in OTHER_SUFFIXES


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a decoded image, 1 if it has none. Decoding ignores it."""
    if "exif" not in image.info:
        return 1
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata raise many kinds of errors
        return 1


_ORIENTATION = 0x0112
"""The EXIF tag of the orientation: 1 means unrotated, 6 that the image must be rotated by 90 degrees."""


def open_rgb(data: bytes, name: str) -> Image.Image:
    """Decode an image file to RGB, as the table above states.

    name: the image's, for messages. Raises UnreadableImage with the reason and a remedy.
    """
    try:
        return _decoded(data, name)
    except UnreadableImage:
        if (plain := _without_metadata(data)) is None:
            raise
    return _decoded(plain, name)


def size_of(data: bytes, name: str) -> tuple[int, int]:
    """Return width and height, reading only the header. Raises UnreadableImage."""
    try:
        with _opened(data, name) as image:
            return image.size
    except UnreadableImage:
        if (plain := _without_metadata(data)) is None:
            raise
    with _opened(plain, name) as image:
        return image.size


def _decoded(data: bytes, name: str) -> Image.Image:
    with _opened(data, name) as image:
        try:
            if image.format == "PNG":
                _check_png(data)
            return _to_rgb(image, name)
        except UnreadableImage:
            raise
        except Exception as error:
            raise _undecodable(error, name) from error


_PNG = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def _without_metadata(data: bytes) -> bytes | None:
    """Return a PNG with only the chunks that pixels depend on; None if there are no others, or if it is no PNG.

    Pillow refuses images whose text is larger than 1 MiB, and those with damaged metadata.
    """
    if not data.startswith(_PNG):
        return None
    view, start, kept = memoryview(data), len(_PNG), [_PNG]
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        if start + 12 + length > len(data):  # the file is truncated
            return None
        if kind in _PIXEL_CHUNKS:
            kept.append(bytes(view[start : start + 12 + length]))
        start += 12 + length
    plain = b"".join(kept)
    return plain if len(plain) < start else None


def begins_as_image(head: bytes) -> bool:
    """Return whether the first MAGIC_BYTES bytes of a file are those of an image format, supported or not."""
    return _MAGIC.match(head) is not None


def refuse_large(count: int, name: str) -> None:
    """Raise UnreadableImage if a file of `count` bytes is too large to be read into memory."""
    if count > MAX_BYTES:
        raise UnreadableImage(f"{name}: {count:,} bytes, over the limit of {MAX_BYTES:,}; remove or shrink it")


def _opened(data: bytes, name: str) -> Image.Image:
    if not data:
        raise UnreadableImage(f"{name}: the file is empty; copy it again")
    if data.startswith(LFS_POINTER):
        raise UnreadableImage(f"{name}: {LFS_REMEDY}")
    # A library imported by an adapter may have set Pillow to fill the missing part of truncated images with grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        formats: tuple[str, ...] = FORMATS
        if _HEIF.match(data) and heif_is_readable():
            _register_heif()
            formats = (*FORMATS, "HEIF")
        image = Image.open(io.BytesIO(data), formats=formats)
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage(
            f"{name}: not an image in a supported format ({', '.join(FORMATS)}); remove or convert it"
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
        return UnreadableImage(f"{name}: the decoded image does not fit into memory; scale it down or remove it")
    reason = str(error)[:120] or type(error).__name__
    return UnreadableImage(f"{name}: cannot be decoded ({reason}); copy it again or remove it")


def _check_png(data: bytes) -> None:
    """Raise ValueError if the checksum of a pixel chunk (IDAT) is wrong.

    Pillow does not verify these checksums, so damage at the end of the stream would give wrong pixels.
    """
    view, start = memoryview(data), 8
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        complete = end <= len(data)  # Pillow itself reports a truncated chunk
        if (
            kind == b"IDAT"
            and complete
            and zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big")
        ):
            raise ValueError("a checksum is wrong")
        start = end


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    image.load()
    if image.mode == "F":
        raise UnreadableImage(f"{name}: floating-point levels with an unknown range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # Pillow's conversion would clip 16-bit grey at 255
        return _grey(image, name)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image.Image, name: str) -> Image.Image:
    levels = np.asarray(image)
    lowest, highest = int(levels.min()), int(levels.max())
    if lowest < 0 or highest > 65535:
        raise UnreadableImage(f"{name}: levels of {lowest} to {highest}, beyond 16 bits; save it with 8 or 16 bits")
    if image.format == "TIFF" and image.tag_v2.get(258) == (12,):  # type: ignore[attr-defined]
        raise UnreadableImage(f"{name}: 12-bit levels; save it with 8 or 16 bits")
    grey = (levels / np.float32(257)).round().astype(np.uint8)
    if isinstance(transparent := image.info.get("transparency"), int):
        grey[levels == transparent] = 255
    return Image.fromarray(grey).convert("RGB")
