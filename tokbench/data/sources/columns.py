"""Finds the column of images in the schema of a Parquet or Arrow file, and takes the images out of its values.

struct {bytes, path}     image files, as Hugging Face's `datasets` writes them
binary                   image files; their names are those of a text column beside it, if there is one
list of one of these     several images per row
lists (H, W, C) of uint8 pixels, also (C, H, W) and (H, W)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from tokbench.data.decode import MAGIC_BYTES, begins_as_image
from tokbench.data.pixel_arrays import as_rgb
from tokbench.errors import DataError, UnreadableImage, UsageError

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

_USUAL = "image"
"""The usual name of the column. If there is such a column of images, it is used, whatever other columns contain."""

NAME_COLUMNS = ("__key__", "file_name", "filename", "image_path", "path", "name")
"""Columns of text that name the images of a column without paths; the first one that exists is used."""


@dataclass(frozen=True)
class ImageColumn:
    """A column that can contain images.

    form: `files` for encoded images, `pixels` for nested lists of uint8. struct: whether each image is a struct, whose
    field `bytes` contains the image. has_path: whether the struct has names of images in a field `path`. several:
    whether each row contains a list of images.
    """

    name: str
    form: Literal["files", "pixels"]
    struct: bool = False
    has_path: bool = False
    several: bool = False

    def images(self, column: pa.Array) -> pa.Array:
        """Return the encoded images, binary, or the pixels, nested lists, of the values of this column."""
        import pyarrow.compute as pc

        column = _flat(column, self.several)
        return pc.struct_field(column, "bytes") if self.struct else column

    def paths(self, column: pa.Array) -> pa.Array:
        """Return the names of the images in the values of this column, if `has_path`."""
        import pyarrow.compute as pc

        return pc.struct_field(_flat(column, self.several), "path")

    def count(self, column: pa.Array) -> int:
        """Return the number of images in the values of this column."""
        return len(_flat(column, self.several))


def _flat(column: pa.Array, several: bool) -> pa.Array:
    import pyarrow.compute as pc

    return pc.list_flatten(column) if several else column


def image_columns(schema: pa.Schema) -> dict[str, ImageColumn]:
    """Return the columns whose type can be that of images, by name."""
    found = {}
    for field in schema:
        if (column := _image_column(field.name, field.type)) is not None:
            found[field.name] = column
    return found


def _image_column(name: str, kind: pa.DataType) -> ImageColumn | None:
    if _depth_of_uint8(kind) in (2, 3):
        return ImageColumn(name, "pixels")
    several = _is_list(kind)
    if several:
        kind = kind.value_type
    if _is_bytes(kind):
        return ImageColumn(name, "files", several=several)
    field = _field_type(kind, "bytes")
    if field is not None and _is_bytes(field):
        path = _field_type(kind, "path")
        return ImageColumn(name, "files", True, path is not None and _is_text(path), several)
    return None


def choose_column(where: str, schema: pa.Schema, requested: str | None, heads: Mapping[str, bytes]) -> ImageColumn:
    """Return the column of images of a file.

    where: the file, for messages. requested: the column that the user named. heads: the first bytes of the first value
    of each column of files, which show whether it contains images.

    Raises UsageError if there is no such column, or if several columns contain images and none is requested; DataError
    if the requested column, or every column, has a type that images cannot have.
    """
    candidates = image_columns(schema)
    _check_struct(where, schema, requested or _USUAL)
    if requested is not None:
        if requested not in schema.names:
            raise UsageError(f"{where} has no column '{requested}'; {_listed(schema, candidates)}")
        if requested not in candidates:
            raise DataError(
                f"{where}: its column '{requested}' has type {schema.field(requested).type}, which is not that of "
                f"images; {_listed(schema, candidates)}"
            )
        return candidates[requested]
    if _USUAL in candidates:
        return candidates[_USUAL]
    if not candidates:
        raise DataError(
            f"{where} has no column of images (image files as bytes, {{bytes, path}}, or uint8 pixels); its columns "
            f"are {', '.join(schema.names)}"
        )
    sure = [
        name for name, found in candidates.items() if found.form == "pixels" or begins_as_image(heads.get(name, b""))
    ]
    chosen = sure or list(candidates)
    if len(chosen) > 1:
        raise UsageError(
            f"{where} has several columns of images ({', '.join(chosen)}); choose one with --column {chosen[0]}"
        )
    return candidates[chosen[0]]


def _listed(schema: pa.Schema, candidates: Mapping[str, ImageColumn]) -> str:
    if candidates:
        return f"its columns of images are {', '.join(candidates)}"
    return f"its columns are {', '.join(schema.names)}"


def _check_struct(where: str, schema: pa.Schema, name: str) -> None:
    """Raise DataError if a struct is that of an image, but a field has a type that cannot be read."""
    from pyarrow import types

    if name not in schema.names:
        return
    kind = schema.field(name).type
    bytes_type, path_type = _field_type(kind, "bytes"), _field_type(kind, "path")
    if bytes_type is None:
        return
    for field, found, fits, expected in (
        ("bytes", bytes_type, _is_bytes, "bytes"),
        ("path", path_type, _is_text, "text"),
    ):
        if found is not None and not types.is_null(found) and not fits(found):
            raise DataError(f"{where}: its column {name}.{field} has type {found}, not {expected}; write it again")


def needs_heads(schema: pa.Schema, requested: str | None) -> list[ImageColumn]:
    """Return the columns whose first bytes `choose_column` requires; none if the choice is clear without them."""
    candidates = image_columns(schema)
    if requested is not None or _USUAL in candidates or len(candidates) < 2:
        return []
    return [column for column in candidates.values() if column.form == "files"]


def head_of(column: ImageColumn, pieces: Iterable[pa.Array]) -> bytes:
    """Return the first bytes of the first image in the values of a column; b"" if there is none."""
    for piece in pieces:
        images = column.images(piece).drop_null()
        if len(images):
            return bytes(images[0].as_buffer()[:MAGIC_BYTES])
    return b""


def name_column(schema: pa.Schema, column: ImageColumn) -> str | None:
    """Return the column of text that names the images; None if they have paths or there is no such column."""
    if column.struct or column.several:
        return None
    return next((name for name in NAME_COLUMNS if name in schema.names and _is_text(schema.field(name).type)), None)


def image_of(value: pa.Scalar, name: str) -> Image.Image:
    """Return the image of one value of a column of pixels. Raises UnreadableImage if the lists form no image."""
    import pyarrow.compute as pc
    from PIL import Image

    shape: list[int] = []
    values = value.values
    length, equal = 1, True
    while values is not None and _is_list(_storage(values.type)):
        values = getattr(values, "storage", values)
        shape.append(len(values) // length)
        length = len(values)
        equal = equal and len(pc.list_value_length(values).unique()) <= 1  # [2, 4] has the total of [3, 3]
        values = values.flatten()
    shape.append(len(values) // length if length else 0)
    if not equal or values.null_count or not shape or len(values) != int(np.prod(shape)):
        raise UnreadableImage(f"{name}: its lists of pixels have different lengths; write it as an image file")
    try:
        return Image.fromarray(as_rgb(values.to_numpy(zero_copy_only=False).reshape(shape)))
    except ValueError as error:
        raise UnreadableImage(f"{name}: {error}; write it as an image file") from error


def has_bytes(schema: pa.Schema) -> bool:
    """Return whether a file has a column that can contain images."""
    return bool(image_columns(schema))


def _storage(kind: pa.DataType) -> pa.DataType:
    return getattr(kind, "storage_type", kind)


def _is_list(kind: pa.DataType) -> bool:
    from pyarrow import types

    kind = _storage(kind)
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _depth_of_uint8(kind: pa.DataType) -> int:
    """Return the number of nested lists around uint8; 0 for other types."""
    from pyarrow import types

    depth = 0
    while _is_list(kind):
        kind, depth = _storage(kind).value_type, depth + 1
    return depth if types.is_uint8(kind) else 0


def _field_type(kind: pa.DataType, name: str) -> pa.DataType | None:
    from pyarrow import types

    return kind.field(name).type if types.is_struct(kind) and kind.get_field_index(name) >= 0 else None


def _is_bytes(kind: pa.DataType) -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
