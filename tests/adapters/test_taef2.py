"""TAEF2: quality and batch invariance with the real weights, the error without them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tokbench.errors import MissingWeights
from tokbench.tokenizers.registry import load_adapter
from tokbench.weights.hashing import hash_module
from tokbench.weights.registry import search_dirs

pytestmark = pytest.mark.finds


@pytest.fixture
def taef2(root: Path):
    try:
        return load_adapter("taef2", root=root)
    except MissingWeights as error:
        pytest.skip(str(error))


@pytest.fixture
def adapter(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The adapter's Python module, loaded where no weights are."""
    monkeypatch.setenv("TOKBENCH_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    with pytest.raises(MissingWeights):
        load_adapter("taef2", root=root)
    return next(module for name, module in sys.modules.items() if name.startswith("tokbench_adapter_taef2_"))


@pytest.mark.slow
@torch.inference_mode()
def test_reconstructs_photos(taef2, photos: torch.Tensor) -> None:
    image = taef2.model.decode(taef2.model.encode(photos), seeds=range(len(photos)))
    image = (image.clamp(0, 1) * 255).round() / 255
    psnr = 10 * torch.log10(1 / (image - photos).square().mean((1, 2, 3)))
    assert psnr[0] == pytest.approx(31.76, abs=0.05)  # the top left 256x256 of scikit-image's astronaut
    assert psnr.mean() > 27


@pytest.mark.slow
@torch.inference_mode()
def test_an_image_does_not_depend_on_its_batch(taef2, photos: torch.Tensor) -> None:
    together = taef2.model.module["encoder"](photos[:3])
    for i in range(3):
        alone = taef2.model.module["encoder"](photos[i : i + 1])
        assert (together[i] - alone[0]).abs().max() < 1e-5
    latents = together.half().float()
    together = taef2.model.module["decoder"](latents)
    for i in range(3):
        alone = taef2.model.module["decoder"](latents[i : i + 1])
        assert (together[i] - alone[0]).abs().max() < 1e-5


@torch.inference_mode()
def test_tokens_bits_and_parameters(taef2, photos: torch.Tensor) -> None:
    tokens = taef2.model.encode(photos[:2, :, :64, :40])
    assert tokens.tensor.shape == (2, 32, 8, 5)
    assert tokens.length.tolist() == [40, 40]
    assert tokens.bits.tolist() == [40 * 512.0] * 2
    assert sum(p.numel() for p in taef2.model.module.parameters()) == 2_677_027
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in taef2.model.module.parameters())
    assert len(taef2.weights) == 2


def test_both_forms_hold_the_same_numbers(taef2, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a machine has both forms, either gives the same networks."""
    folders = search_dirs()
    for part in ("encoder", "decoder"):
        path = next((f / f"taef2_{part}.pth" for f in folders if (f / f"taef2_{part}.pth").is_file()), None)
        if path is None:
            pytest.skip(f"needs taef2_{part}.pth beside its safetensors form")
        shutil.copy(path, tmp_path)
    monkeypatch.setenv("TOKBENCH_WEIGHTS", str(tmp_path))
    published = load_adapter("taef2", root=root)
    assert set(published.weights) == {"taef2_encoder.pth", "taef2_decoder.pth"}
    assert hash_module(published.model.module) == hash_module(taef2.model.module)


def test_missing_weights_are_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKBENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(MissingWeights) as caught:
        load_adapter("taef2", root=root)
    message = str(caught.value)
    for part in ("taef2_encoder.pth", "taef2-encoder.safetensors", str(tmp_path / "weights"), "weights add"):
        assert part in message
    assert str(Path(os.environ["TOKBENCH_CACHE"]) / "weights") in message
    assert "madebyollin/taesd" in message
    assert "--allow-download" in message


def test_a_damaged_file_is_not_used(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "taef2-encoder.safetensors").write_bytes(b"damaged")
    with pytest.raises(MissingWeights, match="damaged or another file"):
        load_adapter("taef2", root=root)


@torch.inference_mode()
def test_the_networks_invert_each_others_sizes(adapter) -> None:
    latents = adapter.encoder()(torch.zeros(2, 3, 24, 40))
    assert latents.shape == (2, 32, 3, 5)
    assert adapter.decoder()(latents).shape == (2, 3, 24, 40)
