"""Where shapes come from: meshes, rows of a Parquet file, and synthetic solids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.data.sources.base import Source
from tokbench.errors import UnreadableImage, UsageError
from tokbench.modalities.shapes import solids
from tokbench.modalities.sources import FileFolder, Rows

SUFFIXES = (".obj", ".ply", ".stl", ".off", ".glb")
"""Suffixes of meshes that trimesh reads without further packages."""

COLUMNS = ("coords", "colours")
"""The columns of a Parquet file of voxels: coordinates and colours, uint8 (n, 3) each, as bytes."""

GRID = 32
"""Voxels per side, if no other number is requested."""

MAX_GRID = 256
"""The largest number of voxels per side."""

_GREY = 128
"""The level of red, green and blue of meshes without colours."""


class ShapeSource(Source, ABC):
    """A source of shapes."""

    native: int | None = None
    """The only number of voxels per side; None if the source can make any grid."""

    @abstractmethod
    def voxels(self, position: int, side: int) -> np.ndarray:
        """Return voxels, uint8 (4, side, side, side): occupancy 0 or 255, then red, green and blue, which are 0 where
        there is nothing. Raises UnreadableImage."""


class Meshes(FileFolder, ShapeSource):
    """Meshes, whose surfaces are turned into voxels. The constructor raises UsageError if trimesh is not installed."""

    def __init__(self, path: Path) -> None:
        require_trimesh()
        super().__init__(path, SUFFIXES)

    def voxels(self, position: int, side: int) -> np.ndarray:
        name = self.names[position]
        points, colours = mesh_surface(self.read(position), self.path(position).suffix[1:].lower(), name, side)
        low, high = points.min(0), points.max(0)
        extent = float((high - low).max())
        if not extent > 0:
            raise UnreadableImage(f"{name}: its surface has no extent")
        # The longest side fills the grid; the others are centred.
        coords = ((points - (low + high) / 2) / extent * (side - 1e-3) + side / 2).astype(int).clip(0, side - 1)
        return fill_grid(coords, colours, side)


def mesh_surface(data: bytes, kind: str, name: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points on the surface of a mesh (n, 3), at least two per voxel width, and their colours, uint8 (n, 3).

    Faces are divided evenly, so no point is random. Raises UnreadableImage.
    """
    import io

    import trimesh

    try:
        mesh: Any = trimesh.load(io.BytesIO(data), file_type=kind, force="mesh")
        vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces)
        colours = _vertex_colours(mesh)
    except Exception as error:  # the errors of trimesh's readers have no common class
        raise UnreadableImage(f"{name}: it cannot be read as a mesh ({str(error)[:120]})") from error
    if not len(faces) or not np.isfinite(vertices).all():
        raise UnreadableImage(f"{name}: it has no faces, or vertices that are not finite")
    corners, tints = vertices[faces], colours[faces]
    extent = float(np.ptp(vertices, axis=0).max())
    if not extent > 0:
        raise UnreadableImage(f"{name}: its surface has no extent")
    longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
    steps = np.ceil(2 * longest / extent * side).astype(int).clip(1)
    points, shades = [], []
    for count in np.unique(steps):
        weights = _barycentric(int(count))
        chosen = steps == count
        points.append(np.einsum("kc,fcd->fkd", weights, corners[chosen]).reshape(-1, 3))
        shades.append(np.einsum("kc,fcd->fkd", weights, tints[chosen].astype(float)).reshape(-1, 3))
    return np.concatenate(points), np.concatenate(shades).round().astype(np.uint8)


def _barycentric(count: int) -> np.ndarray:
    """Return barycentric coordinates (k, 3) of an even grid with `count` steps per edge."""
    first, second = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
    inside = first + second <= count
    first, second = first[inside], second[inside]
    return np.stack([first, second, count - first - second], 1) / count


def _vertex_colours(mesh: Any) -> np.ndarray:
    """Return the colour of each vertex, uint8 (n, 3): its own, or that of the texture, or grey."""
    visual, count = mesh.visual, len(mesh.vertices)
    found = None
    if getattr(visual, "kind", None) == "texture":
        visual = visual.to_color()
    if getattr(visual, "kind", None) in ("vertex", "face") or hasattr(visual, "vertex_colors"):
        found = np.asarray(visual.vertex_colors)[:, :3]
    if found is None or found.shape != (count, 3):
        return np.full((count, 3), _GREY, np.uint8)
    return found.astype(np.uint8)


def require_trimesh() -> None:
    """Raise UsageError if trimesh is not installed."""
    try:
        import trimesh  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "meshes are read by trimesh, which is not installed; pip install 'tokbench[shapes]'"
        ) from error


class VoxelRows(Rows, ShapeSource):
    """Voxels in the rows of a Parquet file."""

    native = GRID

    def __init__(self, path: Path, where: dict[str, Any] | None = None, label: str | None = None) -> None:
        super().__init__(path, COLUMNS, where, label)

    def voxels(self, position: int, side: int) -> np.ndarray:
        row, name = self.row(position), self.names[position]
        found = [np.frombuffer(row[column].as_py(), np.uint8) for column in COLUMNS]
        if len(found[0]) % 3 or len(found[0]) != len(found[1]) or not len(found[0]):
            raise UnreadableImage(
                f"{name}: coords and colours have {len(found[0])} and {len(found[1])} bytes; three of each per voxel "
                "are expected"
            )
        coords, colours = (array.reshape(-1, 3) for array in found)
        if int(coords.max()) >= side:
            raise UnreadableImage(f"{name}: a coordinate is {coords.max()}, but the grid has {side} voxels per side")
        return fill_grid(coords.astype(int), colours, side)


class Solids(ShapeSource):
    """The first `count` shapes of a split of the synthetic solids, computed when they are read."""

    def __init__(self, split: str, count: int) -> None:
        solids.check_split(split)
        self._split = split
        self.names = [f"{split}/{position:06d}" for position in range(count)]

    def voxels(self, position: int, side: int) -> np.ndarray:
        solid = solids.make_solid(self._split, self._at(position))
        return fill_grid(*solids.surface(solid, side), side)

    def labels(self) -> dict[str, int]:
        found = (solids.make_solid(self._split, self._at(i)) for i in range(len(self.names)))
        return {name: solids.KINDS.index(solid.parts[0].kind) for name, solid in zip(self.names, found, strict=True)}

    def read(self, position: int) -> bytes:
        return self.voxels(position, GRID).tobytes()

    def listing(self) -> list[tuple[str, int]]:
        return [(f"solids/{self._split}", len(self.names))]


def fill_grid(coords: np.ndarray, colours: np.ndarray, side: int) -> np.ndarray:
    """Return voxels, uint8 (4, side, side, side), from coordinates (n, 3) and colours (n, 3), which are averaged where
    several points are in one voxel."""
    flat = np.ravel_multi_index(tuple(coords.T), (side,) * 3)
    counts = np.bincount(flat, minlength=side**3)
    grid = np.zeros((4, side**3), np.uint8)
    grid[0] = 255 * (counts > 0)
    for channel in range(3):
        sums = np.bincount(flat, colours[:, channel], side**3)
        grid[1 + channel] = np.round(sums / np.maximum(counts, 1))
    return grid.reshape(4, side, side, side)
