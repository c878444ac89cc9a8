"""Every autoencoder class of diffusers: small random networks against the library's own encode and decode."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.builtin.diffusers_classes import CLASSES, SUPPORTED
from tokbench.tokenizers.builtin.diffusers_models import adapter_of
from tokbench.tokenizers.registry import load_adapter

diffusers = pytest.importorskip("diffusers", reason="needs tokbench[hf]")

EIGHT = (8, 8, 8, 8)
LAYERS = (1, 1, 1, 1, 1)
STAGES = {"latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 4}
SHARED = {"layers_per_block": 1, "spatial_compression_ratio": 4, "latent_channels": 8}
REFINER = {**SHARED, "block_out_channels": (16, 32, 32), "temporal_compression_ratio": 2}
WAN = {"base_dim": 8, "z_dim": 4, "num_res_blocks": 1}
VIDTOK = {"ch": 32, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1}


def blocks(name: str, count: int = 4) -> dict[str, Any]:
    return {"down_block_types": (name.format("Down"),) * count, "up_block_types": (name.format("Up"),) * count}


TINY: dict[str, dict[str, Any]] = {
    "AsymmetricAutoencoderKL": {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "down_block_out_channels": (8, 8, 16),
        "up_block_out_channels": (8, 16, 16),
        "norm_num_groups": 4,
    },
    "AutoencoderKLFlux2": {
        **STAGES,
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (8, 8, 16),
    },
    "AutoencoderKLHunyuanImage": {
        **SHARED, "in_channels": 3, "out_channels": 3, "block_out_channels": (32, 64, 64), "sample_size": 64,
    },
    "AutoencoderKLKVAE": {"channels": 32, "num_enc_blocks": 1, "num_dec_blocks": 1, "z_channels": 4, "ch_mult": (1, 2)},
    "AutoencoderKLTemporalDecoder": {"down_block_types": ("DownEncoderBlock2D",) * 2, "block_out_channels": (32, 32)},
    "AutoencoderKLCogVideoX": {**STAGES, **blocks("CogVideoX{}Block3D"), "block_out_channels": EIGHT},
    "AutoencoderKLCosmos": {
        "latent_channels": 4, "encoder_block_out_channels": EIGHT, "decode_block_out_channels": EIGHT,
        "attention_resolutions": (8,), "resolution": 64, "num_layers": 1, "latents_mean": None, "latents_std": None,
    },
    "AutoencoderKLHunyuanImageRefiner": REFINER,
    "AutoencoderKLHunyuanVideo": {**STAGES, "block_out_channels": EIGHT},
    "AutoencoderKLHunyuanVideo15": REFINER,
    "AutoencoderKLKVAEVideo": {"ch": 32, "ch_mult": (1, 1, 1), "num_res_blocks": 1, "z_channels": 4},
    "AutoencoderKLLTXVideo": {
        "latent_channels": 8, "block_out_channels": EIGHT, "decoder_block_out_channels": EIGHT,
        "layers_per_block": LAYERS, "decoder_layers_per_block": LAYERS,
    },
    "AutoencoderKLLTX2Video": {
        "latent_channels": 8, "block_out_channels": (8, 16, 32, 64), "decoder_block_out_channels": (8, 16, 32),
        "layers_per_block": LAYERS, "decoder_layers_per_block": LAYERS[1:],
    },
    "AutoencoderKLMagvit": {**STAGES, "block_out_channels": EIGHT},
    "AutoencoderKLMochi": {
        "encoder_block_out_channels": (32,) * 4, "decoder_block_out_channels": (32,) * 4, "latent_channels": 4,
        "layers_per_block": LAYERS, "latents_mean": (0.0,) * 4, "latents_std": (1.0,) * 4,
    },
    "AutoencoderKLQwenImage": {**WAN, "dim_mult": [1, 1, 1, 1]},
    "AutoencoderKLQwenImage21": {
        **WAN, "dim_mult": [1, 1, 1, 1, 1], "decoder_base_dim": 8, "patch_size": 2, "in_channels": 12,
        "out_channels": 12,
    },
    "AutoencoderKLWan": {**WAN, "dim_mult": [1, 1, 1, 1]},
    "AutoencoderVidTok": {**VIDTOK, "z_channels": 4},
    "Kandinsky6SRVAE": {
        "latent_channels": 4, "encoder_block_out_channels": EIGHT[:3], "decoder_block_out_channels": EIGHT[:3],
        "layers_per_block": 1,
    },
}  # fmt: skip
"""Small configs of the supported classes, except the four of test_diffusers.py and those with a test of their own."""

CONSISTENCY = {
    "encoder_block_out_channels": (32, 32),
    "encoder_down_block_types": ("DownEncoderBlock2D",) * 2,
    "encoder_layers_per_block": 1,
    "encoder_norm_num_groups": 8,
    "decoder_block_out_channels": (32, 32),
    "decoder_down_block_types": ("ResnetDownsampleBlock2D",) * 2,
    "decoder_up_block_types": ("ResnetUpsampleBlock2D",) * 2,
    "decoder_layers_per_block": 1,
}
TESTED_ELSEWHERE = {
    "AutoencoderKL", "VQModel", "AutoencoderTiny", "AutoencoderDC", "ConsistencyDecoderVAE", "AutoencoderRAE",
}  # fmt: skip
NORMALISERS = {"scaling_factor": 7.25, "shift_factor": 1.5}


def make(kind: str, config: dict[str, Any], folder: Path) -> Any:
    """Save a random network of a class and return it."""
    if not hasattr(diffusers, kind):
        pytest.skip(f"diffusers {diffusers.__version__} has no {kind}")
    torch.manual_seed(0)
    network = getattr(diffusers, kind)(**config).eval()
    network.save_pretrained(folder)
    return network


def load(argument: object) -> Tokenizer:
    model = load_adapter(f"diffusers:{argument}").model
    assert isinstance(model, Tokenizer)
    return model


@pytest.fixture
def images(photos: Tensor) -> Tensor:
    """(2, 3, 64, 64) in [-1, 1]."""
    return photos[:2, :, 100:164, 100:164] * 2 - 1


def librarys_own(network: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the latents and the images that the library computes, one image at a time."""
    latents, decoded = [], []
    for image in images.split(1):
        if CLASSES[type(network).__name__].frames:
            image = image[:, :, None].repeat(1, 1, getattr(network, "temporal_compression_ratio", 1) if
                                             type(network).__name__ == "AutoencoderVidTok" else 1, 1, 1)  # fmt: skip
        mean = network.encode(image).latent_dist.mode()
        words = {"num_frames": 1} if "num_frames" in inspect.signature(network.decode).parameters else {}
        made = network.decode(mean.half().float(), **words)
        decoded.append(made if isinstance(made, Tensor) else made.sample)
        latents.append(mean)
    return torch.cat(latents), torch.cat(decoded)


def test_every_autoencoder_of_the_library_is_supported_or_refused_with_a_reason() -> None:
    from diffusers.models import autoencoders

    listed = {name for name, kind in vars(autoencoders).items() if inspect.isclass(kind)}
    assert listed - CLASSES.keys() == set()
    assert set(SUPPORTED) == TINY.keys() | TESTED_ELSEWHERE
    assert all(CLASSES[name].refused for name in CLASSES.keys() - set(SUPPORTED))


FAST = ("AutoencoderKLFlux2", "AutoencoderKLQwenImage")


@pytest.mark.parametrize(
    "kind", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in TINY]
)
@torch.inference_mode()
def test_images_are_the_librarys_own_and_no_normaliser_enters(kind: str, tmp_path: Path, images: Tensor) -> None:
    network = make(kind, TINY[kind], tmp_path / "m")
    ours = load(tmp_path / "m")
    latents, decoded = librarys_own(network, images)
    tokens = ours.encode(images)
    assert (tokens.tensor.float() - latents.flatten(2).reshape(tokens.tensor.shape)).abs().max() < 1e-2
    own = ours.decode(tokens, [0, 1])
    assert own.shape == images.shape
    assert (own - decoded.reshape(own.shape)).abs().max() < 1e-2
    assert ours.spec.bits_per_token == 16 * tokens.tensor.shape[1]
    assert ours.spec.downsample == 64 // tokens.tensor.shape[2]
    config = tmp_path / "m" / "config.json"
    content = json.loads(config.read_text())
    content |= {key: value for key, value in NORMALISERS.items() if key in content}
    content |= {key: [3.0] * len(content[key]) for key in ("latents_mean", "latents_std") if content.get(key)}
    config.write_text(json.dumps(content))
    other = load(tmp_path / "m")
    assert torch.equal(other.encode(images).tensor, tokens.tensor)
    assert torch.equal(other.decode(tokens, [0, 1]), own)


@pytest.mark.slow
@torch.inference_mode()
def test_a_video_tokenizer_with_indices(tmp_path: Path, images: Tensor) -> None:
    config = {**VIDTOK, "z_channels": 2, "double_z": False, "regularizer": "fsq", "codebook_size": 64}
    network = make("AutoencoderVidTok", config, tmp_path)
    ours = load(tmp_path)
    assert (ours.spec.kind, ours.spec.codebook, ours.spec.downsample) == ("discrete", {"codes": 64}, 8)
    tokens = ours.encode(images)
    video = images[:, :, None].repeat(1, 1, network.temporal_compression_ratio, 1, 1)
    codes, indices = network.encode(video)
    assert torch.equal(tokens.tensor, indices[:, 0].long())
    assert (ours.decode(tokens, [0, 1]) - network.decode(codes)[:, :, 0]).abs().max() < 1e-4
    with pytest.raises(AdapterError, match="has no posterior to sample"):
        load(f"{tmp_path},posterior=sample")


@pytest.mark.slow
def test_a_network_of_several_frames_only_is_refused(tmp_path: Path) -> None:
    make("AutoencoderVidTok", {**VIDTOK, "z_channels": 4, "is_causal": False}, tmp_path)
    with pytest.raises(AdapterError, match="is_causal false takes only videos of several frames"):
        load(tmp_path)


@pytest.mark.slow
@torch.inference_mode()
def test_a_consistency_decoder_draws_its_noise_from_the_seeds(tmp_path: Path, images: Tensor) -> None:
    """Its decoder takes scaled latents by itself, as the library's own forward pass does."""
    network = make("ConsistencyDecoderVAE", CONSISTENCY, tmp_path)
    ours = load(tmp_path)
    tokens = ours.encode(images)
    both = ours.decode(tokens, [3, 4])
    for at, seed in enumerate([3, 4]):
        generator = torch.Generator().manual_seed(seed)
        alone = network.decode(tokens.tensor[[at]].float(), generator=generator).sample
        assert (both[[at]] - alone).abs().max() < 1e-4
    assert (ours.decode(tokens, [3, 5])[1] - both[1]).abs().max() > 1e-3


@pytest.mark.slow
@torch.inference_mode()
def test_noise_inside_a_decoder_belongs_to_the_image(tmp_path: Path, images: Tensor) -> None:
    """The layers of LTX draw from torch's global generator; the seeds of the images set it, and it is restored."""
    config = TINY["AutoencoderKLLTXVideo"] | {"decoder_inject_noise": (True,) * 5, "timestep_conditioning": True}
    network = make("AutoencoderKLLTXVideo", config, tmp_path)
    for name, parameter in network.named_parameters():
        if "per_channel_scale" in name:
            torch.nn.init.constant_(parameter, 0.5)
    network.save_pretrained(tmp_path)
    ours = load(tmp_path)
    tokens = ours.encode(images)
    state = torch.get_rng_state()
    both = ours.decode(tokens, [3, 4])
    assert torch.equal(torch.get_rng_state(), state)
    reordered = ours.decode(tokens.select([1, 0]), [4, 3])
    assert (reordered[[1, 0]] - both).abs().max() < 1e-4
    assert (ours.decode(tokens, [5, 4])[0] - both[0]).abs().max() > 1e-4


@pytest.mark.slow
@torch.inference_mode()
def test_an_autoencoder_on_a_representation(tmp_path: Path, images: Tensor) -> None:
    pytest.importorskip("transformers", reason="AutoencoderRAE builds its encoder with transformers")
    config = {
        "encoder_type": "mae", "encoder_hidden_size": 64, "encoder_patch_size": 4, "encoder_num_hidden_layers": 1,
        "decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 32, "patch_size": 8, "encoder_input_size": 16, "scaling_factor": 3.0,
    }  # fmt: skip
    network = make("AutoencoderRAE", config, tmp_path)
    ours = load(tmp_path)
    assert (ours.spec.range, ours.spec.size, ours.spec.downsample) == ((0.0, 1.0), 32, 8)
    image = images[:, :, :32, :32] / 2 + 0.5
    expected = network.decode(network.encode(image).latent).sample
    assert (ours.decode(ours.encode(image), [0, 1]) - expected).abs().max() < 1e-2


class AutoencoderRAE(torch.nn.Module):
    """A stand-in with the attributes of the library's class, which needs transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder_image_size = 32
        entries = {"patch_size": 8, "encoder_hidden_size": 192, "scaling_factor": 3.0}
        self.config = diffusers.configuration_utils.FrozenDict(entries)

    def encode(self, images: Tensor) -> SimpleNamespace:
        return SimpleNamespace(latent=torch.nn.functional.pixel_unshuffle(images, 8) * self.config.scaling_factor)

    def decode(self, latents: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=torch.nn.functional.pixel_shuffle(latents / self.config.scaling_factor, 8))


def test_the_scaling_inside_a_representation_autoencoder_is_undone(images: Tensor) -> None:
    ours = adapter_of("rae", AutoencoderRAE(), "AutoencoderRAE")
    assert (ours.spec.range, ours.spec.size, ours.spec.downsample) == ((0.0, 1.0), 32, 8)
    image = images[:, :, :32, :32] / 2 + 0.5
    tokens = ours.encode(image)
    assert (tokens.tensor - torch.nn.functional.pixel_unshuffle(image, 8).half()).abs().max() < 1e-3
    assert (ours.decode(tokens, [0, 1]) - image).abs().max() < 1e-3


@pytest.mark.parametrize("kind", [name for name in CLASSES if CLASSES[name].refused])
def test_classes_of_other_data_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": kind}))
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    with pytest.raises(AdapterError, match=f"of class '{kind}', with which images cannot be evaluated: it "):
        load(tmp_path)


@torch.inference_mode()
def test_the_posterior_is_sampled_on_request(tmp_path: Path, images: Tensor) -> None:
    """The noise depends on the pixels alone: not on the batch, and not on torch's global generator."""
    config = {**STAGES, "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    network = make("AutoencoderKL", {**config, "block_out_channels": (8, 8)}, tmp_path / "vae")
    mean, sampled = load(tmp_path / "vae"), load(f"{tmp_path / 'vae'},posterior=sample")
    posterior = network.encode(images).latent_dist
    assert torch.equal(mean.encode(images).tensor, posterior.mode().half())
    tokens = sampled.encode(images).tensor.float()
    noise = (tokens - posterior.mean) / posterior.std
    assert 0.9 < float(noise.std()) < 1.1
    assert abs(float(noise.mean())) < 0.1
    torch.manual_seed(5)
    alone = torch.cat([sampled.encode(image).tensor for image in images.split(1)]).float()
    assert (alone - tokens).abs().max() < 1e-2
    assert dict(sampled.recorded) == {"posterior": "sample"}
    assert not mean.recorded
    with pytest.raises(AdapterError, match="posterior=mode is unknown; give posterior=sample"):
        load(f"{tmp_path / 'vae'},posterior=mode")
