"""Image files of every odd kind: what is read and how, what is a UnreadableImage and stops nothing (docs/faults.md)."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from image_files import encode, noise_pixels
from PIL import Image, ImageCms, ImageFile

from tokbench.data import decode as image_module
from tokbench.data.dataset import open_dataset
from tokbench.data.decode import open_rgb, size_of
from tokbench.data.sources.open import open_source
from tokbench.errors import DataError, UnreadableImage
from tokbench.protocol.protocol import load_protocol

TOKBENCH = load_protocol("tokbench")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(open_rgb(data, "x"))


def png(depth: int, colour: int, levels: np.ndarray) -> bytes:
    """A PNG of a depth and colour type that Pillow does not write, of big-endian levels (H, W, channels)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], depth, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(
    width: int,
    height: int,
    bits: tuple[int, ...],
    data: bytes,
    format: int = 1,
    orientation: int = 1,
    photometric: int = 1,
) -> bytes:
    """An uncompressed TIFF of any sample format (1 unsigned, 2 signed, 3 float)."""
    many = len(bits)
    per = struct.pack(f"<{many}H", *bits)
    data += b"\0" * (len(data) % 2)
    place = 8 + len(data)
    bits_field = (258, 3, many, place) if many > 2 else (258, 3, many, int.from_bytes(per, "little"))
    fields = [
        (256, 3, 1, width), (257, 3, 1, height), bits_field, (259, 3, 1, 1), (262, 3, 1, photometric), (273, 4, 1, 8),
        (274, 3, 1, orientation), (277, 3, 1, many), (278, 3, 1, height), (279, 4, 1, len(data)), (339, 3, 1, format),
    ]  # fmt: skip
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *field) for field in fields) + bytes(4)
    return b"II*\0" + struct.pack("<I", place + len(per)) + data + per + directory


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    from skimage import data

    return Image.fromarray(data.astronaut()[100:164, 200:248])


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, {}) for kind in ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM", "JPEG2000")]
    + [("JPEG", {"progressive": True}), ("TIFF", {"compression": "tiff_lzw"})],
)
def test_a_truncated_file_is_never_half_a_picture(photo: Image.Image, kind: str, options: dict) -> None:
    """Cut anywhere, it is refused, or it is the whole picture (what was cut off held no pixels)."""
    whole = encode(photo, kind, **options)
    expected, refused = pixels(whole), 0
    for length in sorted({*range(0, len(whole), max(1, len(whole) // 60)), *range(len(whole) - 30, len(whole))}):
        try:
            found = pixels(whole[:length])
        except UnreadableImage:
            refused += 1
        else:
            assert np.array_equal(found, expected), length
    assert refused > 55


def test_a_library_that_fills_truncated_files_with_grey_is_overruled(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    whole = encode(photo, "JPEG")
    with pytest.raises(UnreadableImage, match=r"cannot be decoded .*truncated.*; copy it again"):
        open_rgb(whole[: len(whole) // 2], "x")


def test_a_png_with_a_wrong_checksum_is_refused(photo: Image.Image) -> None:
    """Pillow alone shows wrong pixels where the end of the stream is damaged."""
    whole = encode(photo)
    for place in range(len(whole) - 40, len(whole) - 12):
        spoiled = bytearray(whole)
        spoiled[place] ^= 1
        with pytest.raises(UnreadableImage, match="x: cannot be decoded"):
            open_rgb(bytes(spoiled), "x")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>404</html>", "not an image in a supported format"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
            "not an image in a supported format",
        ),
        (b"Pf 1 1 -1\n" + np.float32(0.5).tobytes(), "floating-point levels"),
    ],
)
def test_what_is_no_picture_is_named_with_its_remedy(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=f"^a/b.png: {reason}.*; "):
        open_rgb(data, "a/b.png")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_the_first_frame_counts(kind: str) -> None:
    first, second = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    lossless = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "AVIF" else {}
    found = pixels(encode(first, kind, save_all=True, append_images=[second], **lossless)).astype(int)
    assert np.abs(found - (255, 0, 0)).max() <= 2


def test_palette_grey_and_transparency(photo: Image.Image) -> None:
    palette = photo.quantize(32)
    assert np.array_equal(pixels(encode(palette)), np.asarray(palette.convert("RGB")))
    half = photo.convert("L").convert("LA")
    half.putalpha(128)
    expected = np.asarray(photo.convert("L")).astype(float) * 128 / 255 + 255 * 127 / 255
    assert np.abs(pixels(encode(half))[..., 1] - expected).max() <= 1
    clear = photo.convert("RGBA")
    clear.putalpha(0)
    assert pixels(encode(clear)).min() == 255
    assert pixels(encode(photo.convert("1"))).max() == 255


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "TIFF"), ("CMYK", "JPEG"), ("YCbCr", "TIFF")])
def test_other_colours_are_pillows_conversion(photo: Image.Image, mode: str, kind: str) -> None:
    made = encode(photo.convert(mode), kind)
    assert np.array_equal(pixels(made), np.asarray(Image.open(io.BytesIO(made)).convert("RGB")))
    assert np.abs(pixels(made).astype(int) - np.asarray(photo)).mean() < 12


def test_lab_is_read(photo: Image.Image) -> None:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.applyTransform(photo, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    assert np.abs(pixels(encode(lab, "TIFF")).astype(int) - np.asarray(photo)).mean() < 3


LEVELS = np.array([[0, 128, 257, 257 * 128, 65535]])


def test_sixteen_bit_grey_is_scaled() -> None:
    for made in (
        png(16, 0, LEVELS.astype(">u2")),
        tiff(5, 1, (16,), LEVELS.astype("<u2").tobytes()),
        b"P5 5 1 65535\n" + LEVELS.astype(">u2").tobytes(),
    ):
        assert pixels(made)[0, :, 2].tolist() == [0, 0, 1, 128, 255]


def test_sixteen_bit_colour_gives_the_upper_byte() -> None:
    rgb = np.stack([LEVELS, LEVELS[:, ::-1], LEVELS], axis=2)
    for made in (png(16, 2, rgb.astype(">u2")), tiff(5, 1, (16, 16, 16), rgb.astype("<u2").tobytes(), photometric=2)):
        assert np.array_equal(pixels(made), rgb // 256)


def test_a_transparent_level_of_sixteen_bit_grey_is_white() -> None:
    made = encode(Image.fromarray(LEVELS.astype(np.uint16)), transparency=257)
    assert pixels(made)[0, :, 0].tolist() == [0, 0, 255, 128, 255]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (tiff(2, 1, (32,), np.array([0.1, 0.9], "<f4").tobytes(), 3), "floating-point levels"),
        (tiff(2, 1, (32,), np.array([0, 70000], "<u4").tobytes()), "levels of 0 to 70000, beyond 16 bits"),
        (tiff(2, 1, (16,), np.array([-5, 70], "<i2").tobytes(), 2), "levels of -5 to 70, beyond 16 bits"),
        (tiff(2, 1, (12,), bytes([0xFF, 0xF0, 0x10])), "12-bit levels"),
    ],
)
def test_levels_without_a_range_are_refused(made: bytes, reason: str) -> None:
    """Pillow would make black or white of them, without a word."""
    with pytest.raises(UnreadableImage, match=f"x: {reason}.*; save it with 8 or 16 bits"):
        open_rgb(made, "x")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_exif_rotation_is_ignored(photo: Image.Image, kind: str) -> None:
    rotated = Image.Exif()
    rotated[274] = 6
    assert np.array_equal(pixels(encode(photo, kind, exif=rotated)), pixels(encode(photo, kind)))


def test_tiffs_own_orientation_is_applied() -> None:
    made = tiff(2, 1, (8,), bytes([10, 20]), orientation=6)
    assert pixels(made)[..., 0].tolist() == [[10], [20]]
    assert size_of(made, "x") == (1, 2)


def test_a_colour_profile_changes_nothing(photo: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(pixels(encode(photo, icc_profile=profile)), np.asarray(photo))


def test_tiny_and_long_images(tmp_path: Path) -> None:
    assert pixels(encode(Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]
    Image.new("RGB", (20000, 4), (9, 9, 9)).save(tmp_path / "long.png")
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "tiny.png")
    dataset = open_dataset(str(tmp_path), TOKBENCH, size=32)
    (batch,) = dataset.batches(4)
    assert batch.reference.shape == (2, 3, 32, 32)
    assert dataset.unreadable == []
    (tmp_path / "tiny.png").unlink()  # the other one's short side to 256: 1,280,000 x 256 before its crop
    dataset = open_dataset(str(tmp_path), TOKBENCH, size=256)
    assert list(dataset.batches(4)) == []
    assert [name for name, _ in dataset.unreadable] == ["long.png"]
    assert "1280000x256 before its crop" in dataset.unreadable[0][1]


@pytest.mark.parametrize("claimed", [(10_000, 10_000), (60_000, 60_000)])
def test_decompression_bombs_are_refused_by_their_header(claimed: tuple[int, int]) -> None:
    small = png(8, 2, np.zeros((1, 1, 3), np.uint8))
    head = b"IHDR" + struct.pack(">II", *claimed) + small[24:29]
    bomb = small[:12] + head + struct.pack(">I", zlib.crc32(head)) + small[33:]
    for read in (open_rgb, size_of):
        with pytest.raises(
            UnreadableImage, match=r"x: .*over the limit of 89478485.*decompression bomb\); scale it down"
        ):
            read(bomb, "x")


def test_files_that_are_too_large_are_not_read(
    tmp_path: Path,
) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(image_module.MAX_BYTES + 1)  # a hole, which takes no room
    with pytest.raises(UnreadableImage, match=r"huge.png: 1,073,741,825 bytes, over the limit"):
        open_source(tmp_path).open(0)


def test_an_unreadable_and_a_vanished_file_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions do not bind the superuser, so the system's answer is put in its place."""
    for i in range(4):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.png")
    dataset = open_dataset(str(tmp_path), TOKBENCH)
    read = Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self.name == "1.png":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    (tmp_path / "2.png").unlink()
    names = [name for batch in dataset.batches(4) for name in batch.names]
    assert names == ["0.png", "3.png"]
    assert dataset.unreadable == [
        ("1.png", "1.png: cannot be read (Permission denied); check its permissions"),
        ("2.png", "2.png: cannot be read (No such file or directory); it existed when the run began"),
    ]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_files_without_permission_are_bad_images(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(UnreadableImage, match=r"a.png: cannot be read \(Permission denied\); check its permissions"):
        open_source(tmp_path).open(0)


def test_reading_sizes_agrees_with_decoding(photo: Image.Image) -> None:
    for kind in ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP"):
        made = encode(photo, kind)
        assert size_of(made, "x") == open_rgb(made, "x").size == photo.size


# Metadata of PNG files


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    """A chunk of a PNG, with a checksum that may be wrong."""
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


LARGE = zlib.compress(b"x" * (2 << 20))
METADATA = {
    "large text": chunk(b"zTXt", b"workflow\0\0" + LARGE),
    "large international text": chunk(b"iTXt", b"workflow\0\1\0\0\0" + LARGE),
    "much text": chunk(b"tEXt", b"workflow\0" + b"x" * (1 << 20)) * 70,
    "large profile": chunk(b"iCCP", b"name\0\0" + LARGE),
    "text with a wrong checksum": chunk(b"tEXt", b"Comment\0hi", 0),
    "profile with a wrong checksum": chunk(b"iCCP", b"name\0\0" + zlib.compress(b"x"), 1),
    "EXIF with a wrong checksum": chunk(b"eXIf", b"II*\0", 1),
    "EXIF that is none": chunk(b"eXIf", b"no EXIF at all"),
    "text that is not compressed": chunk(b"zTXt", b"workflow\0\0not compressed"),
    "text of another compression": chunk(b"zTXt", b"workflow\0\x09abc"),
    "profile that is none": chunk(b"iCCP", b"name\0\0no profile"),
    "text without a key": chunk(b"iTXt", b"\xff"),
    "short physical size": chunk(b"pHYs", b"\0"),
    "short gamma": chunk(b"gAMA", b"\0"),
}


@pytest.mark.parametrize("place", ["before the pixels", "after the pixels"])
@pytest.mark.parametrize("kind", METADATA)
def test_metadata_of_a_png_never_cost_its_pixels(kind: str, place: str) -> None:
    """Image generators store their workflow in the file, and Pillow limits such text to 1 MiB."""
    picture = Image.fromarray(noise_pixels(np.random.default_rng(0), 9, 12))
    whole = encode(picture)
    at = whole.index(b"IDAT") - 4 if place == "before the pixels" else whole.index(b"IEND") - 4
    data = whole[:at] + METADATA[kind] + whole[at:]
    assert np.array_equal(np.asarray(open_rgb(data, "x.png")), np.asarray(picture))
    assert size_of(data, "x.png") == (12, 9)


def test_metadata_do_not_hide_damaged_pixels() -> None:
    whole = encode(Image.fromarray(noise_pixels(np.random.default_rng(0), 9, 12)))
    at = whole.index(b"IDAT")
    data = bytearray(whole[: at - 4] + METADATA["large text"] + whole[at - 4 :])
    data[-20] ^= 1
    with pytest.raises(UnreadableImage):
        open_rgb(bytes(data), "x.png")
    with pytest.raises(UnreadableImage):
        open_rgb(bytes(data[: len(data) // 2]), "x.png")


def test_transparency_is_kept_when_metadata_are_dropped() -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    whole = encode(picture, transparency=1)
    at = whole.index(b"IDAT") - 4
    expected = open_rgb(whole, "x.png").getpixel((0, 0))
    assert open_rgb(whole[:at] + METADATA["large text"] + whole[at:], "x.png").getpixel((0, 0)) == expected


# HEIC


def test_heic_is_read_with_its_plug_in(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    made = pillow_heif.from_pillow(Image.new("RGB", (64, 48), (10, 200, 30)))
    for suffix in ("heic", "HEIF", "hif"):
        made.save(tmp_path / f"a.{suffix}", quality=-1, format="HEIF")
    source = open_source(tmp_path)
    assert source.names == ["a.HEIF", "a.heic", "a.hif"] and source.left_out == {}
    assert source.size(0) == (64, 48)
    assert np.abs(np.asarray(source.open(1)).astype(int) - (10, 200, 30)).max() <= 4


def test_heic_without_its_plug_in_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokbench.data.decode.heif_is_readable", lambda: False)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(DataError, match=r"1 .heic, which are not read: .*pip install pillow-heif reads .heic"):
        open_dataset(str(tmp_path), TOKBENCH)
