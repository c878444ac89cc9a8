"""Images in the array of an .npz file, as samples are exchanged."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tokbench.data.sources.open import open_source
from tokbench.errors import DataError


def test_arrays_are_read_in_place_and_unpacked(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "flat.npz", pixels, np.arange(5))
    np.savez_compressed(tmp_path / "small.npz", pixels)
    for name in ("flat", "small"):
        source = open_source(tmp_path / f"{name}.npz")
        assert len(source.names) == 5
        assert source.size(3) == (6, 8)
        assert np.array_equal(np.asarray(source.open(3)), pixels[3])
        assert source.read(3) == pixels[3].tobytes()


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"arr_0": np.zeros((2, 4, 4, 3))}, "images must be uint8"),
        ({"arr_0": np.zeros((4, 4, 3), np.uint8)}, "images must be uint8"),
        ({"arr_0": np.zeros((2, 5, 5, 7), np.uint8)}, "images must be uint8"),
        ({"x": np.zeros((2, 4, 4, 3), "f"), "y": np.zeros(2)}, r"no array of images; its arrays are x \(float32"),
        ({"arr_0": np.zeros((2, 4, 4, 3), "f")}, r"convert values in \[0, 1\] with \(255 \* x\)"),
        ({"arr_0": np.array([{}])}, "not a readable"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], match: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=match):
        open_source(tmp_path / "x.npz")


def test_a_cut_off_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", np.zeros((9, 8, 8, 3), np.uint8))
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a readable"):
        open_source(tmp_path / "x.npz")


def test_what_claims_too_much_is_refused(tmp_path: Path) -> None:
    """A few kilobytes that would unpack to hundreds of times as much, and an image beyond the limit of pixels."""
    np.savez_compressed(tmp_path / "bomb.npz", np.zeros((64, 256, 256, 3), np.uint8))
    with pytest.raises(DataError, match="save it with"):
        open_source(tmp_path / "bomb.npz")
    header = np.lib.format.magic(1, 0)
    text = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 37000, 37000, 3), }".ljust(117) + "\n"
    with zipfile.ZipFile(tmp_path / "wide.npz", "w") as archive:
        archive.writestr("arr_0.npy", header + len(text).to_bytes(2, "little") + text.encode())
    with pytest.raises(DataError, match="over the limit of"):
        open_source(tmp_path / "wide.npz")
