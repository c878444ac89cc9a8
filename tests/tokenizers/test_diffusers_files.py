"""Where diffusers checkpoints lie as people publish them: pipelines, variants, shards and single files."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.evaluation.provenance import describe_adapter
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.builtin.diffusers_files import split_options, variant_of
from tokbench.tokenizers.registry import load_adapter

diffusers = pytest.importorskip("diffusers", reason="needs tokbench[hf]")

WEIGHTS = "diffusion_pytorch_model.safetensors"
CONFIG: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "latent_channels": 4,
}
"""A small AutoencoderKL with the 32 groups per normalisation layer of latent diffusion."""


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(**CONFIG).eval()


@pytest.fixture
def images(photos: Tensor) -> Tensor:
    return photos[:2, :, 100:132, 100:132] * 2 - 1


def load(argument: object) -> Tokenizer:
    model = load_adapter(f"diffusers:{argument}").model
    assert isinstance(model, Tokenizer)
    return model


@torch.inference_mode()
def same(argument: object, network: Any, images: Tensor, tolerance: float = 0.0) -> bool:
    """Whether an argument gives the network's latents."""
    expected = network.encode(images).latent_dist.mode()
    return bool((load(argument).encode(images).tensor.float() - expected.half().float()).abs().max() <= tolerance)


@pytest.mark.parametrize("sub", ["vae_ema", "first_stage_model", "vae"])
def test_a_pipeline_gives_its_autoencoder_whatever_its_folder(
    sub: str, network: Any, images: Tensor, tmp_path: Path
) -> None:
    network.save_pretrained(tmp_path / sub)
    (tmp_path / "model_index.json").write_text("{}")
    for name, kind in (("unet", "UNet2DConditionModel"), ("audio", "AutoencoderOobleck")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"_class_name": kind}))
    assert same(tmp_path, network, images)


def test_one_of_several_autoencoders_must_be_named(network: Any, images: Tensor, tmp_path: Path) -> None:
    for sub in ("first", "second"):
        network.save_pretrained(tmp_path / sub)
    choice = re.escape(f"diffusers:{tmp_path / 'first'}, diffusers:{tmp_path / 'second'}")
    with pytest.raises(AdapterError, match=f"holds 2 autoencoders; name one of them: {choice}"):
        load(tmp_path)
    assert same(tmp_path / "second", network, images)


def test_a_repository_of_the_hub_cache_is_read_at_its_current_snapshot(
    network: Any, images: Tensor, tmp_path: Path
) -> None:
    repository = tmp_path / "models--someone--kl"
    network.save_pretrained(repository / "snapshots" / "0a1b" / "vae")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0a1b\n")
    assert same(repository, network, images)
    assert load_adapter(f"diffusers:{repository}").name.startswith("diffusers.kl-")


def test_the_only_variant_is_read_and_recorded(network: Any, images: Tensor, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path, variant="fp16")
    assert same(tmp_path, network, images)
    loaded = load_adapter(f"diffusers:{tmp_path}")
    assert describe_adapter(loaded)["variant"] == "fp16"
    network.save_pretrained(tmp_path)
    assert "variant" not in describe_adapter(load_adapter(f"diffusers:{tmp_path}"))
    assert describe_adapter(load_adapter(f"diffusers:{tmp_path},variant=fp16"))["variant"] == "fp16"
    (tmp_path / WEIGHTS).rename(tmp_path / "diffusion_pytorch_model.ema.safetensors")
    with pytest.raises(AdapterError, match=r"several variants .*,variant=ema: it has 'ema', 'fp16'"):
        load(tmp_path)
    with pytest.raises(AdapterError, match="no weights of the variant 'bf16'; it has 'ema', 'fp16'"):
        load(f"{tmp_path},variant=bf16")


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_are_read_through_their_index(variant: str | None, network: Any, images: Tensor, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path, max_shard_size="200KB", variant=variant)
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert same(tmp_path, network, images)
    assert load(tmp_path).recorded == ({"variant": variant} if variant else {})
    shards[1].unlink()
    with pytest.raises(AdapterError, match=rf"lacks 1 of the {len(shards)} files .*{re.escape(shards[1].name)}"):
        load(tmp_path)


def test_variants_in_file_names() -> None:
    stem = "diffusion_pytorch_model"
    names = {
        WEIGHTS: "",
        f"{stem}.fp16.safetensors": "fp16",
        f"{stem}.safetensors.index.json": "",
        f"{stem}.safetensors.index.fp16.json": "fp16",
        "model.safetensors": "",
    }
    assert {name: variant_of(name) for name in names} == names


def test_options_follow_a_path_that_does_not_exist_with_them(tmp_path: Path) -> None:
    assert split_options("a/b,variant=fp16,posterior=sample") == ("a/b", {"variant": "fp16", "posterior": "sample"})
    assert split_options("a,b=c") == ("a,b=c", {})
    folder = tmp_path / "a,variant=fp16"
    folder.mkdir()
    assert split_options(str(folder)) == (str(folder), {})
    with pytest.raises(AdapterError, match="the options are variant=, posterior=, class=, config="):
        load("nowhere,varant=fp16")


def original_names(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The tensors with the names of latent diffusion, in which attention consists of convolutions."""
    last = len(CONFIG["block_out_channels"]) - 1
    changed = {}
    for name, tensor in state.items():
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
        new = new.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        for here, there in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
            new = new.replace(f".{here}.", f".{there}.")
        attention = "attn_1" in new and tensor.dim() == 2
        changed[prefix + new] = (tensor[:, :, None, None] if attention else tensor).contiguous()
    return changed


def save_file(tensors: dict[str, Tensor], path: Path) -> Path:
    from safetensors.torch import save_file as save

    save(tensors, path, metadata={"format": "pt"})
    return path


def test_a_lone_file_with_the_names_of_latent_diffusion(network: Any, images: Tensor, tmp_path: Path) -> None:
    """Its config follows from its tensors, so nothing is downloaded."""
    state = network.state_dict()
    path = save_file(original_names(state), tmp_path / "vae-ft-mse.safetensors")
    assert same(path, network, images)
    assert load_adapter(f"diffusers:{path}").name.startswith("diffusers.vae-ft-mse-")
    whole = original_names(state, "first_stage_model.") | {
        "model.diffusion_model.out.2.bias": torch.zeros(4),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(4),
    }
    assert same(save_file(whole, tmp_path / "v1.safetensors"), network, images)


def test_a_lone_file_of_diffusers_without_its_config(network: Any, images: Tensor, tmp_path: Path) -> None:
    assert same(save_file(network.state_dict(), tmp_path / WEIGHTS), network, images)
    with pytest.raises(AdapterError, match=r"has no config\.json|point to its folder"):
        load(tmp_path)


def test_a_file_of_another_name_beside_its_config(network: Any, images: Tensor, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "vae.safetensors")
    assert same(tmp_path, network, images)
    assert same(tmp_path / "vae.safetensors", network, images)
    shutil.copy(tmp_path / "vae.safetensors", tmp_path / "other.safetensors")
    with pytest.raises(AdapterError, match=r"has 2 \.safetensors files and none is named"):
        load(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config.json").rename(tmp_path / "config" / "config.json")
    assert same(f"{tmp_path / 'other.safetensors'},config={tmp_path / 'config'}", network, images)


def test_a_class_without_single_files_is_read_beside_its_config(images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = diffusers.VQModel(
        **CONFIG | {"num_vq_embeddings": 16, "vq_embed_dim": 4, "norm_num_groups": 8}
    ).eval()  # fmt: skip
    network.save_pretrained(tmp_path)
    expected = load(tmp_path).encode(images).tensor
    (tmp_path / WEIGHTS).rename(tmp_path / "vq.safetensors")
    assert torch.equal(load(tmp_path).encode(images).tensor, expected)


def test_a_single_file_with_other_tensors_is_refused(network: Any, tmp_path: Path) -> None:
    state = original_names(network.state_dict())
    lacking = {name: tensor for name, tensor in state.items() if name != "decoder.conv_in.bias"}
    with pytest.raises(AdapterError, match=r"1 tensors of the network are not in the file .*decoder\.conv_in\.bias"):
        load(save_file(lacking, tmp_path / "lacking.safetensors"))
    more = state | {"decoder.up.0.block.9.conv1.weight": torch.zeros(1), "loss.logvar": torch.zeros(1)}
    with pytest.raises(AdapterError, match=r"holds .* tensors|of the file are not in the network"):
        load(save_file(more, tmp_path / "more.safetensors"))
    with pytest.raises(AdapterError, match=r"its tensors do not determine its class .*class=AutoencoderDC,config="):
        load(save_file({"a": torch.zeros(1)}, tmp_path / "else.safetensors"))
    quantized = state | {"encoder.conv_in.weight": state["encoder.conv_in.weight"].mul(100).to(torch.int8)}
    with pytest.raises(AdapterError, match="quantized weights are not supported"):
        load(save_file(quantized, tmp_path / "quantized.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "more.safetensors").read_bytes()[:500])
    with pytest.raises(AdapterError, match=r"cut\.safetensors is not a readable safetensors file"):
        load(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("suffix", ["bin", "ckpt", "pt", "pth"])
def test_a_pickled_file_is_refused_with_the_remedy(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"diffusion_pytorch_model.{suffix}"
    path.write_bytes(b"\x80\x04N.")
    with pytest.raises(AdapterError, match=r"is pickled.*weights_only=True.*save_file"):
        load(path)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(AdapterError, match=r"only pickled weights .*save_pretrained"):
        load(tmp_path)


def test_a_download_asks_for_the_files_of_one_variant(
    network: Any, images: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    network.save_pretrained(tmp_path, variant="fp16")
    asked = []

    def download(repository: str, allow_patterns: list[str], local_files_only: bool = False) -> str:
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    loaded = load_adapter("diffusers:someone/kl,variant=fp16", allow_download=True)
    assert loaded.name.startswith("diffusers.kl-")
    assert len(asked) == 1
    assert "vae/diffusion_pytorch_model*fp16*.safetensors" in asked[0]
    assert f"vae/{WEIGHTS}" not in asked[0]
