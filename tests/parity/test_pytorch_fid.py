"""pytorch-fid: its own protocol on PNG files, and its network for SEED-Voken's FID of unrounded images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from spans import on_their_span

from tokbench.protocol.protocol import load_protocol

LAYERS = {64: 0, 192: 1, 768: 2, 2048: 3}
pytestmark = [  # of scipy's square root, which is not used here
    pytest.mark.filterwarnings("ignore:.*disp.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Matrix is (singular|ill-conditioned)"),
]


class Pooled(torch.nn.Module):
    """All layers of pytorch-fid's network side by side (B, D, 1, 1), pooled as it pools them: one pass serves all."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: torch.Tensor) -> list[torch.Tensor]:
        return [torch.cat([output.mean((2, 3), keepdim=True) for output in self.network(batch)], 1)]


@pytest.fixture
def network(private_cache: Path, inception_file: Path):
    """pytorch-fid's network with these layers, its weights where torch.hub keeps what it downloaded."""
    inception = pytest.importorskip("pytorch_fid.inception")
    place = private_cache / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    (place / Path(inception.FID_WEIGHTS_URL).name).symlink_to(inception_file)
    return lambda *layers: inception.InceptionV3([LAYERS[layer] for layer in layers])


@pytest.fixture
def folders(references, images, pixels, tmp_path: Path) -> list[list[Path]]:
    """The references and the images, rounded to nearest, as PNG files."""
    files: list[list[Path]] = []
    for name, arrays in (("reference", pixels(references)), ("image", pixels(images))):
        (tmp_path / name).mkdir()
        files.append([tmp_path / name / f"{i:03}.png" for i in range(len(arrays))])
        for path, array in zip(files[-1], arrays, strict=True):
            Image.fromarray(array).save(path)
    return files


def test_pytorch_fid(record, ours, inception, network, folders, references, images) -> None:
    score = pytest.importorskip("pytorch_fid.fid_score")
    protocol = load_protocol("pytorch-fid")
    names = {layer: "rfid" if layer == 2048 else f"rfid_{layer}" for layer in LAYERS}
    found = ours([(protocol, name) for name in names.values()], references, images, inception)
    model, together, start = Pooled(network(*LAYERS)), sum(LAYERS), 0
    statistics = [score.calculate_activation_statistics(files, model, 8, together, "cpu", 0) for files in folders]
    for layer, name in names.items():
        part = slice(start, start + layer)
        start += layer
        parts = [(mean[part], covariance[part, part]) for mean, covariance in statistics]
        value = score.calculate_frechet_distance(*on_their_span(parts, len(images)))
        record("pytorch-fid", f"FID {layer}", "pytorch-fid", found["pytorch-fid", name], value, 1e-5, relative=True)


def test_seed_voken(record, ours, inception, network, references, images) -> None:
    """SEED-Voken's metrics/inception.py is this network, fed with floats, and its statistics are of float32 rows."""
    score = pytest.importorskip("pytorch_fid.fid_score")
    references, images = references[::2], images[::2]
    found = ours([(load_protocol("seed-voken"), "rfid_192")], references, images, inception)
    model, statistics = network(192).eval(), []
    for side in (references, images):
        with torch.inference_mode():
            features = torch.cat([model(batch)[0].mean((2, 3)) for batch in side.split(8)]).numpy()
        statistics += [features.mean(0), np.cov(features, rowvar=False)]
    value = score.calculate_frechet_distance(*statistics)
    record("seed-voken", "FID 192, unrounded", "pytorch-fid", found["seed-voken", "rfid_192"], value, 1e-5, True)


def test_clean_fid(record, ours, inception, network, references, images, pixels) -> None:
    """clean-fid's resize and distance around this network, since its own comes from a TorchScript file."""
    clean = pytest.importorskip("cleanfid.fid")
    references, images = references[::2], images[::2]
    resize = pytest.importorskip("cleanfid.resize").build_resizer("clean")
    found = ours([(load_protocol("clean-fid"), "rfid_192")], references, images, inception)
    model, statistics = network(192).eval(), []
    model.resize_input = model.normalize_input = False
    for side in (references, images):
        resized = torch.from_numpy(np.stack([resize(array) for array in pixels(side)])).permute(0, 3, 1, 2)
        with torch.inference_mode():
            features = torch.cat([model((batch - 128) / 128)[0].mean((2, 3)) for batch in resized.split(8)]).numpy()
        statistics += [features.mean(0), np.cov(features, rowvar=False)]
    value = clean.frechet_distance(*statistics)
    record("clean-fid", "FID 192", "clean-fid", found["clean-fid", "rfid_192"], value, 1e-5, relative=True)
