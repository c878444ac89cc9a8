"""`diffusers:`: tiny random models of the four commonest classes against the library's own encode and decode."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
import torch

from tokbench.data.stream import PairedBatch
from tokbench.errors import AdapterError
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import plain_step
from tokbench.metrics.batch import DerivedCache
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.registry import load_adapter
from tokbench.tokenizers.tokens import Tokens

diffusers = pytest.importorskip("diffusers", reason="needs tokbench[hf]")

SMALL = {"block_out_channels": (16, 16, 32), "norm_num_groups": 4, "layers_per_block": 1}
UP_DOWN = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
VQ = {"latent_channels": 4, "vq_embed_dim": 3, "num_vq_embeddings": 50}
MOVQ_BLOCKS = {
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
}
DC_STAGES = {
    side: value
    for part in ("encoder", "decoder")
    for side, value in {
        f"{part}_block_out_channels": (16, 32, 32),
        f"{part}_layers_per_block": (1, 1, 1),
        f"{part}_qkv_multiscales": ((), (), (5,)),
        f"{part}_block_types": ("ResBlock", "ResBlock", "EfficientViTBlock"),
    }.items()
}

CONFIGS = {
    "kl": ("AutoencoderKL", {**SMALL, **UP_DOWN, "latent_channels": 4}, 4),
    "kl-without-quant-conv": (
        "AutoencoderKL",
        {**SMALL, **UP_DOWN, "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
        4,
    ),
    "tiny": (
        "AutoencoderTiny",
        {
            "encoder_block_out_channels": (16, 16),
            "decoder_block_out_channels": (16, 16),
            "num_encoder_blocks": (1, 1),
            "num_decoder_blocks": (1, 1),
            "latent_channels": 4,
        },
        2,
    ),
    "dc": ("AutoencoderDC", {**DC_STAGES, "latent_channels": 8, "attention_head_dim": 8, "scaling_factor": 0.41}, 4),
    "vq": ("VQModel", {**SMALL, **UP_DOWN, **VQ}, 4),
    "movq": (
        "VQModel",
        {**SMALL, **MOVQ_BLOCKS, **VQ, "norm_type": "spatial", "vq_embed_dim": 4, "block_out_channels": (32, 32, 64)},
        4,
    ),
    "vq-lookup": ("VQModel", {**SMALL, **UP_DOWN, **VQ, "lookup_from_codebook": True, "force_upcast": True}, 4),
}
CONTINUOUS = ["kl", "kl-without-quant-conv", "tiny", "dc"]
DISCRETE = ["vq", "movq", "vq-lookup"]


def make(kind: str) -> torch.nn.Module:
    cls, config, _ = CONFIGS[kind]
    torch.manual_seed(0)
    model = getattr(diffusers, cls)(**config).eval()
    for name, parameter in model.named_parameters():
        if name == "quantize.embedding.weight":  # the library's initial codes all but coincide
            torch.nn.init.normal_(parameter)
    return model


def load(folder: Path) -> Tokenizer:
    model = load_adapter(f"diffusers:{folder}").model
    assert isinstance(model, Tokenizer)
    return model


@pytest.fixture
def saved(tmp_path: Path):
    def save(kind: str, sub: str = "model") -> tuple[torch.nn.Module, Path]:
        model = make(kind)
        model.save_pretrained(tmp_path / sub)
        return model, tmp_path / sub

    return save


@pytest.fixture
def images(photos: torch.Tensor) -> torch.Tensor:
    """(2, 3, 48, 64) in [-1, 1]."""
    return photos[:2, :, 100:148, 100:164] * 2 - 1


@pytest.mark.parametrize("kind", CONTINUOUS)
@torch.inference_mode()
def test_latents_and_images_are_the_librarys_own(kind: str, saved, images: torch.Tensor) -> None:
    library, folder = saved(kind)
    ours = load(folder)
    encoded = library.encode(images)
    latents = {
        "AutoencoderKL": lambda: encoded.latent_dist.mode(),
        "AutoencoderTiny": lambda: encoded.latents,
        "AutoencoderDC": lambda: encoded.latent,
    }[CONFIGS[kind][0]]()
    tokens = ours.encode(images)
    assert torch.equal(tokens.tensor, latents.half())
    assert torch.equal(ours.decode(tokens, [0, 1]), library.decode(latents.half().float()).sample)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DISCRETE)
@torch.inference_mode()
def test_indices_alone_give_the_librarys_images(kind: str, saved, images: torch.Tensor) -> None:
    """In float64: the library's straight-through sum z + (q - z) rounds, and a random network amplifies that."""
    library, folder = saved(kind)
    ours = load(folder)
    library.double()
    ours.module.double()
    images = images.double()
    tokens = ours.encode(images)
    assert tokens.tensor.shape == (2, 12, 16)
    assert tokens.tensor.unique().numel() > 1
    distances = torch.cdist(library.encode(images).latents.permute(0, 2, 3, 1), library.quantize.embedding.weight)
    assert torch.equal(tokens.tensor, distances.argmin(-1))
    expected = library(images).sample
    assert (ours.decode(tokens, [0, 1]) - expected).abs().max() < 1e-6
    other = Tokens.from_indices((tokens.tensor + 1) % 50, 50)
    assert (ours.decode(other, [0, 1]) - expected).abs().max() > 1e-3


@pytest.mark.slow
@torch.inference_mode()
def test_spatial_norm_looks_at_the_codes(saved, images: torch.Tensor) -> None:
    """MoVQ's decoder without its condition is another function, so the equality above is not by accident."""
    library, folder = saved("movq")
    ours = load(folder)
    codes = library.quantize.embedding(ours.encode(images).tensor).permute(0, 3, 1, 2)
    blind = library.decoder(library.post_quant_conv(codes), torch.zeros_like(codes))
    assert (ours.decode(ours.encode(images), [0, 1]) - blind).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(CONFIGS))
def test_spec_and_module(kind: str, saved, photos: torch.Tensor) -> None:
    library, folder = saved(kind)
    ours = load(folder)
    factor, spec = CONFIGS[kind][2], ours.spec
    assert spec.name == f"diffusers:{folder}"
    assert (spec.range, spec.multiple, spec.downsample) == ((-1.0, 1.0), factor, factor)
    if kind in DISCRETE:
        assert (spec.kind, spec.codebook, spec.bits_per_token) == ("discrete", {"codes": 50}, math.log2(50))
    else:
        assert (spec.kind, spec.codebook, spec.bits_per_token) == (
            "continuous",
            {},
            16 * library.config.latent_channels,
        )
    assert ours.module is not None
    assert not ours.module.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in ours.module.parameters())
    assert not getattr(ours.module, "use_tiling", False)
    assert not getattr(ours.module, "use_slicing", False)
    odd = PairedBatch(torch.arange(2), ["a", "b"], photos[:2, :, :41, :30])
    batch = reconstruct(ours, odd, plain_step(ours), RunSettings("cpu", 2), DerivedCache())
    tokens = -(-41 // factor) * -(-30 // factor)
    assert batch.image.shape == (2, 3, 41, 30)
    assert batch.tokens.length.tolist() == [tokens] * 2
    assert batch.tokens.bits.tolist() == pytest.approx([tokens * spec.bits_per_token] * 2)


@torch.inference_mode()
def test_half_precision_files_run_in_float32(saved, tmp_path: Path, images: torch.Tensor) -> None:
    library, _ = saved("kl")
    library.half().save_pretrained(tmp_path / "half")
    ours = load(tmp_path / "half")
    tokens = ours.encode(images)
    library.float()
    assert torch.equal(tokens.tensor, library.encode(images).latent_dist.mode().half())


@pytest.mark.slow
@pytest.mark.parametrize("sub", ["vae", "vqvae", "movq"])
def test_a_pipeline_folder_gives_its_autoencoder(sub: str, saved, tmp_path: Path) -> None:
    kind = "kl" if sub == "vae" else "movq"
    saved(kind, f"pipeline/{sub}")
    (tmp_path / "pipeline" / "model_index.json").write_text("{}")
    ours = load(tmp_path / "pipeline")
    assert ours.spec.kind == ("continuous" if sub == "vae" else "discrete")


def test_a_repository_in_the_hub_cache_is_found(saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--someone--tiny"
    saved("kl", f"hub/models--someone--tiny/snapshots/{'0' * 40}/vae")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    assert load_adapter("diffusers:someone/tiny").model.spec.name == "diffusers:someone/tiny"
    (repository / "snapshots" / ("0" * 40) / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(AdapterError, match=r"has no diffusion_pytorch_model.safetensors; get it with 'hf download"):
        load_adapter("diffusers:someone/tiny")


def test_pickled_weights_are_refused(saved, tmp_path: Path) -> None:
    make("kl").save_pretrained(tmp_path / "pickled", safe_serialization=False)
    with pytest.raises(
        AdapterError, match=r"only pickled weights \(diffusion_pytorch_model.bin\).*use_safetensors=False"
    ):
        load(tmp_path / "pickled")


@pytest.mark.parametrize("argument", ["nobody-here/no-such-model", "no-such-folder", "./no/such", "/no/such/folder"])
def test_an_absent_model_is_reported_at_once(argument: str) -> None:
    start = time.perf_counter()
    with pytest.raises(AdapterError) as caught:
        load_adapter(f"diffusers:{argument}")
    assert time.perf_counter() - start < 5
    assert argument in str(caught.value)
    if argument.startswith("nobody"):
        assert f"hf download {argument}" in str(caught.value)
        assert "--allow-download" in str(caught.value)
    else:
        assert "hub id such as" in str(caught.value)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"it has none of config\.json, vae/config.json"):
        load_adapter(f"diffusers:{tmp_path}")


def test_another_class_is_refused(saved) -> None:
    _, folder = saved("kl")
    edit(folder, _class_name="PaellaVQModel")
    with pytest.raises(
        AdapterError,
        match="'PaellaVQModel'; tokbench supports AutoencoderKL, VQModel, AutoencoderTiny, AutoencoderDC",
    ):
        load(folder)


@pytest.mark.parametrize("text", ["not json", "[]", "{}"])
def test_a_broken_config_is_named(text: str, saved) -> None:
    _, folder = saved("kl")
    (folder / "config.json").write_text(text)
    with pytest.raises(AdapterError, match=r"config\.json is not a diffusers config"):
        load(folder)


def test_missing_tensors_are_not_made_up(saved) -> None:
    from safetensors.torch import load_file, save_file

    _, folder = saved("kl")
    path = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.conv_in.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(AdapterError, match=r"lacks 1 of the AutoencoderKL's tensors \(encoder.conv_in.weight\)"):
        load(folder)


def reconfigure(folder: Path, **changes: object) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))


LEFT_OVER = {
    "fewer layers": ("kl", {"up_block_types": ["UpDecoderBlock2D"] * 3, "mid_block_add_attention": False}, 20),
    "no quant_conv": ("kl", {"use_quant_conv": False, "use_post_quant_conv": False}, 4),
    "fewer blocks": ("tiny", {"num_encoder_blocks": [1, 0]}, 8),
    "no attention": ("movq", {"down_block_types": ["DownEncoderBlock2D"] * 3}, 10),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LEFT_OVER)
def test_tensors_that_the_network_has_no_place_for_are_refused(case: str, saved) -> None:
    """The config of another network beside the weights: the library drops the rest and goes on."""
    kind, changes, count = LEFT_OVER[case]
    _, folder = saved(kind)
    load(folder)
    reconfigure(folder, **changes)
    with pytest.raises(AdapterError, match=rf"holds {count} tensors that the \w+ of config\.json does not have \("):
        load(folder)


def test_tensors_of_another_shape_are_refused(saved) -> None:
    _, folder = saved("kl")
    reconfigure(folder, latent_channels=8)
    with pytest.raises(AdapterError, match=r"diffusers cannot load this AutoencoderKL .*(shape|size)"):
        load(folder)


def change(folder: Path, edit) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "diffusion_pytorch_model.safetensors"
    save_file(edit(load_file(path)), path, metadata={"format": "pt"})


def test_quantized_weights_are_refused(saved) -> None:
    """Copied into a float32 network they would be whole numbers without their scale."""
    _, folder = saved("kl")
    change(folder, lambda state: {k: v.mul(100).to(torch.int8) if k.endswith("conv_in.weight") else v
                                  for k, v in state.items()})  # fmt: skip
    with pytest.raises(AdapterError, match=r"integers in 2 of the AutoencoderKL's tensors, such as"):
        load(folder)


@pytest.mark.slow
def test_names_that_the_library_renames_are_no_fault(saved, images: torch.Tensor) -> None:
    """Attention as the first releases of diffusers saved it."""
    _, folder = saved("kl")
    before = load(folder).encode(images).tensor
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def renamed(name: str) -> str:
        for new, first in old.items():
            name = name.replace(new, first)
        return name

    change(folder, lambda state: {renamed(name): tensor for name, tensor in state.items()})
    assert torch.equal(load(folder).encode(images).tensor, before)


def test_a_truncated_file_is_named(saved) -> None:
    _, folder = saved("kl")
    path = folder / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(AdapterError, match="diffusers cannot load this AutoencoderKL"):
        load(folder)


def test_a_model_that_contradicts_its_config_is_refused(tmp_path: Path) -> None:
    _, config, _ = CONFIGS["tiny"]
    model = diffusers.AutoencoderTiny(**{**config, "upsampling_scaling_factor": 4})
    model.save_pretrained(tmp_path)
    with pytest.raises(
        AdapterError, match="one token per 2x2 pixels, but a 4x4 image was encoded to 4 tokens and decoded to 8x8"
    ):
        load(tmp_path)


def test_images_other_than_rgb_are_refused(tmp_path: Path) -> None:
    diffusers.AutoencoderKL(**{**CONFIGS["kl"][1], "in_channels": 1}).save_pretrained(tmp_path)
    with pytest.raises(AdapterError, match="not an autoencoder of RGB images"):
        load(tmp_path)


def test_without_diffusers_the_message_names_the_remedy(saved, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    _, folder = saved("kl")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(AdapterError, match=r"pip install 'tokbench\[hf\]'"):
        load(folder)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(AdapterError, match=r"pip install 'tokbench\[hf\]'"):
        load_adapter("diffusers:nobody-here/no-such-model")


def edit(folder: Path, **entries: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
