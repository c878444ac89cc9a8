"""Vision transformers from safetensors, on tiny stand-ins: equal to timm's for both naming schemes, and strict."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm.layers
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tokbench.errors import MissingWeights
from tokbench.extractors import vit
from tokbench.extractors.pool import ExtractorPool
from tokbench.extractors.vit import ViTShape

DINO = ViTShape(24, 2, 3, 14, 16)
CLIP = ViTShape(24, 2, 3, 14, 24, projection=10, clip=True)


def reference(side: int, **options: Any) -> VisionTransformer:
    torch.manual_seed(0)
    net = VisionTransformer(side, 14, num_classes=0, embed_dim=24, depth=2, num_heads=3, global_pool="token", **options)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return net.eval()


def dino() -> VisionTransformer:
    return reference(224, init_values=1.0)


def clip() -> tuple[VisionTransformer, Tensor]:
    """The tower and its projection (10, 24)."""
    norm = partial(nn.LayerNorm, eps=1e-5)
    net = reference(336, pre_norm=True, norm_layer=norm, act_layer=timm.layers.QuickGELU)
    return net, torch.randn(10, 24, generator=torch.Generator().manual_seed(1))


def in_transformers(state: dict[str, Tensor], schemes: dict[str, str], qkv: tuple[str, ...]) -> dict[str, Tensor]:
    """Tensors of timm under the names of transformers: `schemes` maps parts of a name, q, k and v are apart."""
    found = {}
    for name, value in state.items():
        for old, new in schemes.items():
            name = name.replace(old, new)
        if "QKV" in name:
            for part, third in zip(qkv, value.chunk(3), strict=True):
                found[name.replace("QKV", part)] = third.clone()
        else:
            found[name] = value
    return found


DINO_NAMES = {
    "cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection", "blocks.": "encoder.layer.",
    "attn.qkv": "attention.attention.QKV", "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1",
}  # fmt: skip
CLIP_NAMES = {
    "patch_embed.proj": "vision_model.embeddings.patch_embedding", "norm_pre": "vision_model.pre_layrnorm",
    "blocks.": "vision_model.encoder.layers.", "attn.qkv": "self_attn.QKV", "attn.proj": "self_attn.out_proj",
    ".norm1": ".layer_norm1", ".norm2": ".layer_norm2",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOKBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(vit.SHAPES, "dinov2-vitl14", DINO)
    monkeypatch.setitem(vit.SHAPES, "clip-vitl14-336", CLIP)
    return tmp_path


def features(name: str, images: Tensor) -> Tensor:
    network = ExtractorPool().get(name)
    network.request_layer("features")
    assert len(network.sha256) == 64 and network.describe()["backend"].startswith("torch")
    return network(images)["features"]


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    mean_of, std_of = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return (images - mean_of) / std_of


@pytest.mark.parametrize("names", ["authors", "transformers 4", "transformers 5"])
def test_dinov2_equals_timm(folder: Path, names: str) -> None:
    net = dino()
    state = dict(net.state_dict())
    if names == "transformers 4":
        state = in_transformers(state, DINO_NAMES, ("query", "key", "value"))
    elif names == "transformers 5":
        attention = {"attn.qkv": "attention.QKV", "attn.proj": "attention.o_proj"}
        state = in_transformers(state, DINO_NAMES | attention, ("q_proj", "k_proj", "v_proj"))
    if names != "authors":
        state = {
            name.replace("norm.", "layernorm.") if name.startswith("norm.") else name: state[name] for name in state
        }
    mask = "mask_token" if names == "authors" else "embeddings.mask_token"
    save_file(state | {mask: torch.zeros(1, 24)}, folder / "dinov2-vitl14.safetensors")
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = net(normalised(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(features("dinov2-vitl14", images), expected, rtol=1e-4, atol=1e-4)


def test_clip_equals_timm_with_its_projection(folder: Path) -> None:
    net, projection = clip()
    state = in_transformers(dict(net.state_dict()), CLIP_NAMES, ("q_proj", "k_proj", "v_proj"))
    state["vision_model.embeddings.class_embedding"] = state.pop("cls_token").flatten()
    state["vision_model.embeddings.position_embedding.weight"] = state.pop("pos_embed")[0].clone()
    for end in ("weight", "bias"):
        state[f"vision_model.post_layernorm.{end}"] = state.pop(f"norm.{end}")
    state |= {"visual_projection.weight": projection, "text_model.final_layer_norm.bias": torch.zeros(3)}
    save_file(state, folder / "clip-vitl14-336.safetensors")
    images = torch.rand(1, 3, 336, 336, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        expected = net(normalised(images, mean, std)) @ projection.T
    torch.testing.assert_close(features("clip-vitl14-336", images), expected, rtol=1e-4, atol=1e-4)


def test_positions_are_interpolated_to_other_sizes(folder: Path) -> None:
    """DINOv2 has positions for 37x37 patches and gets 16x16: a ramp of positions stays a ramp."""
    net = vit.ViT(ViTShape(8, 1, 1, 14, 37))
    ramp = torch.linspace(0, 1, 37).view(1, 37, 1, 1).expand(1, 37, 37, 8).reshape(1, 37 * 37, 8)
    net.pos_embed.data = torch.cat([torch.full((1, 1, 8), 7.0), ramp], dim=1)
    found = net._positions(16, 16)
    assert found.shape == (1, 257, 8) and found[0, 0, 0] == 7
    rows = found[0, 1:].view(16, 16, 8)[2:-2, :, 0]
    torch.testing.assert_close((rows[-1] - rows[0]) / 11, torch.full((16,), 37 / 16.1 / 36), rtol=0, atol=3e-4)


def test_a_file_of_another_network_is_refused(folder: Path) -> None:
    state = dino().state_dict()
    save_file({name: value for name, value in state.items() if name != "blocks.1.mlp.fc1.bias"},
              folder / "dinov2-vitl14.safetensors")  # fmt: skip
    with pytest.raises(MissingWeights, match=r"dinov2-vitl14.*lacks blocks\.1\.fc1\.bias"):
        ExtractorPool().get("dinov2-vitl14")
    save_file({**state, "register_tokens": torch.zeros(1, 4, 24)}, folder / "dinov2-vitl14.safetensors")
    with pytest.raises(MissingWeights, match="has unknown register_tokens"):
        ExtractorPool().get("dinov2-vitl14")
