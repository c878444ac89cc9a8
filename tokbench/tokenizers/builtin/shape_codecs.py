"""`voxels.zlib`: 8-bit voxels compressed by zlib; `octree.c4`: an octree with colours of that many bits per channel."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tokbench.errors import UsageError
from tokbench.protocol.rounding import from_uint8, to_uint8
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

_LEVEL = 9
"""The level of zlib, the best one."""

_SIDE = struct.Struct("<H")


class PackedVoxels(Tokenizer):
    """All voxels, 8 bits for occupancy and each colour, channel by channel, compressed by zlib. It is lossless."""

    def __init__(self, name: str) -> None:
        self.spec = TokenizerSpec(name, "codec", modalities=("shape",))

    def encode(self, images: Tensor) -> Tokens:
        grids = to_uint8(images).cpu().numpy()
        return Tokens.from_bytes([_SIDE.pack(grid.shape[-1]) + zlib.compress(grid.tobytes(), _LEVEL) for grid in grids])

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        grids = []
        for file in tokens.files:
            (side,) = _SIDE.unpack_from(file)
            grids.append(np.frombuffer(zlib.decompress(file[_SIDE.size :]), np.uint8).reshape(4, side, side, side))
        return from_uint8(torch.from_numpy(np.stack(grids)))


class Octree(Tokenizer):
    """The octree of the occupied voxels, one byte per inner node that says which of its eight parts have voxels, and
    the colours of the voxels, quantised to `bits` per channel, in the order of the leaves; both compressed by zlib.

    The grid is padded to a power of two. Voxels with an occupancy of at most one half are empty.
    """

    def __init__(self, name: str, bits: int) -> None:
        self._bits = bits
        self.spec = TokenizerSpec(name, "codec", modalities=("shape",))

    def encode(self, images: Tensor) -> Tokens:
        grids = to_uint8(images).cpu().numpy()
        return Tokens.from_bytes([self._encode(grid) for grid in grids])

    def _encode(self, grid: np.ndarray) -> bytes:
        side = grid.shape[-1]
        depth = max(1, (side - 1).bit_length())
        coords = np.argwhere(grid[0] > 127)
        keys = _interleave(coords, depth)
        order = np.argsort(keys)
        keys, coords = keys[order], coords[order]
        masks = []
        for level in range(depth):  # from the root to the last inner nodes
            parents, children = keys >> 3 * (depth - level), np.unique(keys >> 3 * (depth - level - 1))
            nodes = np.unique(parents)
            found = np.zeros(len(nodes), np.uint8)
            np.bitwise_or.at(found, np.searchsorted(nodes, children >> 3), (1 << (children & 7)).astype(np.uint8))
            masks.append(found)
        levels = (1 << self._bits) - 1
        colours = np.round(grid[1:, coords[:, 0], coords[:, 1], coords[:, 2]].T / 255 * levels).astype(np.uint8)
        packed = np.packbits((colours.reshape(-1)[:, None] >> np.arange(self._bits)[::-1]) & 1)
        tree = zlib.compress(np.concatenate(masks).tobytes() if len(keys) else b"", _LEVEL)
        return _SIDE.pack(side) + struct.pack("<I", len(tree)) + tree + zlib.compress(packed.tobytes(), _LEVEL)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return from_uint8(torch.from_numpy(np.stack([self._decode(file) for file in tokens.files])))

    def _decode(self, file: bytes) -> np.ndarray:
        (side,) = _SIDE.unpack_from(file)
        (size,) = struct.unpack_from("<I", file, _SIDE.size)
        start = _SIDE.size + 4
        masks = np.frombuffer(zlib.decompress(file[start : start + size]), np.uint8)
        bits = np.unpackbits(np.frombuffer(zlib.decompress(file[start + size :]), np.uint8))
        depth = max(1, (side - 1).bit_length())
        keys, at = np.zeros(1, np.int64), 0
        if not len(masks):
            keys = keys[:0]
        for _ in range(depth if len(masks) else 0):
            own = masks[at : at + len(keys)]
            at += len(keys)
            node, child = np.nonzero((own[:, None] >> np.arange(8)) & 1)
            keys = keys[node] * 8 + child
        grid = np.zeros((4, side, side, side), np.uint8)
        x, y, z = _separate(keys, depth).T
        levels = (1 << self._bits) - 1
        values = bits[: 3 * len(keys) * self._bits].reshape(-1, self._bits) @ (1 << np.arange(self._bits)[::-1])
        grid[0, x, y, z] = 255
        grid[1:, x, y, z] = np.round(values.reshape(-1, 3).T * (255 / levels))
        return grid


def _interleave(coords: np.ndarray, depth: int) -> np.ndarray:
    """Return the positions (n,) of voxels (n, 3) in the order of the octree's leaves: bits of x, y, z in turn."""
    keys = np.zeros(len(coords), np.int64)
    for level in range(depth):
        for axis in range(3):
            keys |= ((coords[:, axis] >> level) & 1) << (3 * level + 2 - axis)
    return keys


def _separate(keys: np.ndarray, depth: int) -> np.ndarray:
    """Return the coordinates (n, 3) of leaves; the inverse of `_interleave`."""
    coords = np.zeros((len(keys), 3), np.int64)
    for level in range(depth):
        for axis in range(3):
            coords[:, axis] |= ((keys >> (3 * level + 2 - axis)) & 1) << level
    return coords


def load(name: str) -> Tokenizer:
    """Return the codec for `voxels.zlib` or a name such as `octree.c4`. Raises UsageError for other arguments."""
    family, _, argument = name.partition(".")
    if family == "voxels":
        if argument != "zlib":
            raise UsageError(f"'{name}': the only form is voxels.zlib")
        return PackedVoxels(name)
    if not re.fullmatch(r"c[1-8]", argument):
        raise UsageError(f"'{name}': the bits per colour channel must be c1 to c8, as in octree.c4")
    return Octree(name, int(argument[1:]))
