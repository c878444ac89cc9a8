"""Voxels: their readers, distances by algebra and against SciPy's, and the lossless floors."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from factories import evaluate_model, run_eval
from media_files import CUBE, media_batch

from tokbench.errors import NotApplicable, UsageError
from tokbench.modalities.open import modality_of, open_dataset
from tokbench.modalities.shapes import solids
from tokbench.modalities.shapes.metrics import ColourPSNR, IoU, SurfaceDistance
from tokbench.modalities.shapes.modality import Voxels
from tokbench.protocol.protocol import TOKBENCH
from tokbench.tokenizers.registry import load_adapter
from tokbench.tokenizers.spec import TokenizerSpec


def voxels(*points: tuple[int, int, int], side: int = 8, colour: float = 1.0) -> torch.Tensor:
    """A grid (1, 4, side, side, side) with some occupied voxels of one grey."""
    grid = torch.zeros(1, 4, side, side, side)
    for x, y, z in points:
        grid[0, 0, x, y, z] = 1
        grid[0, 1:, x, y, z] = colour
    return grid


def test_meshes_become_surface_voxels(tmp_path: Path) -> None:
    (tmp_path / "cube.obj").write_text(CUBE)
    (tmp_path / "broken.ply").write_bytes(b"ply\nformat")
    (tmp_path / "empty.obj").write_text("v 0 0 0\n")
    (tmp_path / "link.obj").symlink_to(tmp_path / "cube.obj")
    assert modality_of(str(tmp_path)) == "shape"
    data = open_dataset(str(tmp_path), TOKBENCH, 8)
    (batch,) = data.batches(4)
    assert batch.names == ["cube.obj"]
    occupied = batch.reference[0, 0].numpy() > 0.5
    shell = np.ones((8, 8, 8), bool)
    shell[1:-1, 1:-1, 1:-1] = False
    assert np.array_equal(occupied, shell)
    assert set(dict(data.unreadable)) == {"broken.ply", "empty.obj", "link.obj"}
    assert data.shape == (4, 8, 8, 8)


def test_rows_of_a_parquet_file_are_shapes(tmp_path: Path) -> None:
    coords = np.array([[0, 1, 2], [31, 31, 31]], np.uint8)
    colours = np.array([[10, 20, 30], [255, 0, 0]], np.uint8)
    rows = {"coords": [coords.tobytes(), coords[:1].tobytes()[:2]], "colours": [colours.tobytes()] * 2}
    pq.write_table(pa.table(rows), tmp_path / "shapes.parquet")
    data = open_dataset(str(tmp_path / "shapes.parquet"), TOKBENCH)
    (batch,) = data.batches(4)
    grid = batch.levels[0].numpy()
    assert grid[:, 0, 1, 2].tolist() == [255, 10, 20, 30]
    assert grid[:, 31, 31, 31].tolist() == [255, 255, 0, 0]
    assert int((grid[0] > 0).sum()) == 2
    assert "three of each per voxel" in data.unreadable[0][1]
    with pytest.raises(UsageError, match="--size must be 32"):
        open_dataset(str(tmp_path / "shapes.parquet"), TOKBENCH, 16)


def test_iou_counts_common_voxels() -> None:
    reference, image = voxels((0, 0, 0), (1, 0, 0), (2, 0, 0)), voxels((1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0))
    assert IoU().per_sample(media_batch(reference, image))["iou"] == pytest.approx([2 / 5])
    empty = voxels()
    assert IoU().per_sample(media_batch(empty, empty))["iou"] == [1]
    assert IoU().per_sample(media_batch(reference, empty))["iou"] == [0]


def test_chamfer_and_f_score_of_two_points() -> None:
    reference, image = voxels((0, 0, 0)), voxels((0, 0, 0), (4, 0, 0))
    found = SurfaceDistance().per_sample(media_batch(reference, image))
    assert found["chamfer"] == pytest.approx([(0 + 0.5) / 2])
    assert found["f_score"] == pytest.approx([2 * 0.5 * 1 / 1.5])
    gone = SurfaceDistance().per_sample(media_batch(reference, voxels()))
    assert gone["chamfer"] == pytest.approx([2 * math.sqrt(3)])
    assert gone["f_score"] == [0]
    assert math.isnan(SurfaceDistance().per_sample(media_batch(voxels(), image))["f_score"][0])


def test_distances_are_those_of_all_pairs() -> None:
    generator = np.random.default_rng(0)
    grids = [torch.from_numpy((generator.random((1, 4, 8, 8, 8)) > 0.9).astype(np.float32)) for _ in range(2)]
    points = [np.argwhere(grid[0, 0].numpy()) / 8 for grid in grids]
    gaps = np.linalg.norm(points[0][:, None] - points[1][None], axis=2)
    found = SurfaceDistance().per_sample(media_batch(*grids))
    assert found["chamfer"] == pytest.approx([gaps.min(0).mean() + gaps.min(1).mean()])
    precision, recall = (gaps.min(0) <= 0.05).mean(), (gaps.min(1) <= 0.05).mean()
    assert found["f_score"] == pytest.approx([2 * precision * recall / (precision + recall)])


def test_colours_count_where_both_are_occupied() -> None:
    reference, image = voxels((0, 0, 0), (1, 0, 0), colour=100 / 255), voxels((0, 0, 0), (5, 0, 0), colour=110 / 255)
    found = ColourPSNR().per_sample(media_batch(reference, image))["colour_psnr"]
    assert found == pytest.approx([10 * math.log10(255**2 / 100)])
    assert math.isnan(ColourPSNR().per_sample(media_batch(reference, reference))["colour_psnr"][0])
    assert math.isnan(ColourPSNR().per_sample(media_batch(reference, voxels()))["colour_psnr"][0])


def test_the_floors_keep_every_voxel() -> None:
    data = open_dataset("solids", TOKBENCH, 20, limit=3)
    adapters = [load_adapter(name) for name in ("voxels.zlib", "octree.c8", "octree.c2")]
    names = ("shape_rate", "iou", "surface_distance", "colour_psnr", "speed")
    packed, fine, coarse = run_eval(adapters, data, names)
    for result in (packed, fine, coarse):
        assert result.error is None
        assert (result["iou"].value, result["chamfer"].value, result["f_score"].value) == (1, 0, 1)
    assert math.isnan(packed["colour_psnr"].value) and math.isnan(fine["colour_psnr"].value)
    assert 15 < coarse["colour_psnr"].value < 30
    assert coarse["bytes_per_shape"].value < fine["bytes_per_shape"].value < packed["bytes_per_shape"].value
    assert packed.group == "solids.v20.n3-reconstruct"


@pytest.mark.parametrize("side", [1, 5, 8])
def test_the_octree_decodes_any_grid(side: int) -> None:
    generator = torch.Generator().manual_seed(side)
    grid = (torch.rand(2, 4, side, side, side, generator=generator) > 0.6).float()
    grid[1, 0] = 0
    grid[:, 1:] *= grid[:, :1]
    codec = load_adapter("octree.c8").model
    assert torch.equal(codec.decode(codec.encode(grid), [0, 0]), grid)


def test_image_tokenizers_are_refused() -> None:
    result = evaluate_model(load_adapter("jpeg.q50").model, open_dataset("solids", TOKBENCH, limit=1), ("iou",))
    assert "it takes data of the kind image, but these are shapes" in result.error


def test_solids_never_change_and_lie_on_their_surface() -> None:
    """Results name these data, so the same name must always mean the same voxels."""
    digest = hashlib.sha256()
    for position in range(8):
        solid = solids.make_solid("test", position)
        coords, colours = solids.surface(solid, 16)
        digest.update(coords.astype(np.uint8).tobytes() + colours.tobytes())
        assert len(coords) > 20
    assert digest.hexdigest()[:16] == SOLIDS
    sphere = solids.Part("sphere", (0, 0, 0), (0.5, 0.5, 0.5), 0, False, (9, 9, 9))
    coords, _ = solids.surface(solids.Solid((sphere,)), 32)
    radius = np.linalg.norm((coords + 0.5) / 16 - 1, axis=1)
    assert radius.max() < 0.5 and radius.min() > 0.5 - 2 / 16


SOLIDS = "47fc09593c16640e"


def test_a_tokenizer_of_one_grid_pads_smaller_ones_and_refuses_larger_ones() -> None:
    spec = TokenizerSpec("any.one", "continuous", size=32, multiple=8, modalities=("shape",))
    plan = Voxels().plan(spec, (4, 20, 20, 20))
    assert plan.cut(torch.ones(1, 4, 20, 20, 20)).shape == (1, 4, 32, 32, 32)
    with pytest.raises(NotApplicable, match="grids of 32 voxels per side, not 40; give --size 32"):
        Voxels().plan(spec, (4, 40, 40, 40))
