"""Tokenizers around the networks of the diffusers library.

`scaling_factor`, `shift_factor`, `latents_mean` and `latents_std` normalise latents for a diffusion model. Encoders and
decoders do not use them, so they are not applied here. Two classes apply them themselves: AutoencoderRAE, where they
are undone, and ConsistencyDecoderVAE, whose decoder takes scaled latents as its input.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.builtin.diffusers_classes import CLASSES
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import seeded
from tokbench.tokenizers.tokens import Tokens

_NO_POSTERIOR = ("AutoencoderTiny", "AutoencoderDC", "AutoencoderRAE", "AutoencoderKLCosmos", "VQModel")
"""The classes whose encoder returns latents and no distribution."""


class Continuous(Tokenizer):
    """An autoencoder with latents (B, C, h, w): the mean of the posterior, or a sample from it.

    class_name: the class in diffusers. sample: draw from the posterior with noise that depends only on the pixels of an
    image, so that the same image always has the same tokens.
    """

    def __init__(self, name: str, net: Any, kind: str, sample: bool = False) -> None:
        self.module, self._net, self.class_name, self._sample = net, net, kind, sample
        self._how, self._repeat = CLASSES[kind], _frames(net, kind)
        factor = factor_of(net, kind)
        self.spec = TokenizerSpec(
            name,
            "continuous",
            range=self._how.range,
            multiple=factor,
            downsample=factor,
            size=net.decoder_image_size if kind == "AutoencoderRAE" else None,
            bits_per_token=16.0 * _channels(net.config, kind),
        )

    def encode(self, images: Tensor) -> Tokens:
        given = images[:, :, None].expand(-1, -1, self._repeat, -1, -1) if self._how.frames else images
        if self._how.one_by_one:
            latents = torch.cat([self._latents(given[[at]], images[[at]]) for at in range(len(images))])
        else:
            latents = self._latents(given, images)
        if latents.dim() == 5:
            latents = _only_frame(latents, self.spec.name, "encoded to")
        return Tokens.from_latents(latents, latents.shape[2] * latents.shape[3], channels_last=False)

    def _latents(self, given: Tensor, images: Tensor) -> Tensor:
        encoded = self._net.encode(given)
        if self.class_name == "AutoencoderTiny":
            return encoded.latents
        if self.class_name in ("AutoencoderDC", "AutoencoderRAE"):
            return encoded.latent / _own_scale(self._net, self.class_name)
        posterior = encoded.latent_dist
        if not self._sample:
            return posterior.mode()
        noise = [torch.randn(posterior.mean.shape[1:], generator=_generator_of(image)) for image in images]
        return posterior.mean + posterior.std * torch.stack(noise).to(posterior.mean)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        latents = tokens.tensor.float()
        given = latents[:, :, None] if self._how.frames else latents
        if not self._how.one_by_one and not _draws_noise(self._net.config):
            return self._images(given, seeds)
        images = []
        for at, seed in enumerate(seeds):
            with seeded(seed, latents.device):
                images.append(self._images(given[[at]], [seed]))
        return torch.cat(images)

    def _images(self, given: Tensor, seeds: Sequence[int]) -> Tensor:
        words: dict[str, Any] = {}
        if self.class_name == "AutoencoderKLTemporalDecoder":
            words["num_frames"] = 1
        elif self.class_name == "ConsistencyDecoderVAE":
            words["generator"] = [torch.Generator().manual_seed(seed) for seed in seeds]
        elif self._net.config.get("timestep_conditioning"):
            words["temb"] = given.new_zeros(len(given))  # no noise is left in the latents
        decoded = self._net.decode(given * _own_scale(self._net, self.class_name), **words)
        images: Tensor = decoded if isinstance(decoded, Tensor) else decoded.sample
        return _only_frame(images, self.spec.name, "decoded to") if images.dim() == 5 else images


class DiffusersVQ(Tokenizer):
    """VQModel, with indices (B, h, w) of the nearest codebook vectors. Images are decoded from the indices alone."""

    def __init__(self, name: str, net: Any) -> None:
        self.module, self._net, self._codes = net, net, int(net.config.num_vq_embeddings)
        self.class_name = "VQModel"
        self.spec = _discrete(name, self._codes, factor_of(net, "VQModel"))

    def encode(self, images: Tensor) -> Tokens:
        latents = self._net.encode(images).latents
        _, _, (_, _, indices) = self._net.quantize(latents)  # one flat axis over images, rows and columns
        return Tokens.from_indices(indices.reshape(len(latents), *latents.shape[2:]), self._codes)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        codes = self._net.quantize.embedding(tokens.tensor).permute(0, 3, 1, 2).contiguous()
        # MoVQ's normalisation layers also take the quantised codes as input (Zheng et al. 2022, arXiv:2209.09002).
        condition = codes if self._net.config.norm_type == "spatial" else None
        return self._net.decoder(self._net.post_quant_conv(codes), condition)


class DiffusersFSQ(Tokenizer):
    """AutoencoderVidTok with finite scalar quantization, with indices (B, h, w)."""

    def __init__(self, name: str, net: Any) -> None:
        self.module, self._net, self._codes = net, net, int(net.config.codebook_size)
        self.class_name = "AutoencoderVidTok"
        self._repeat = _frames(net, self.class_name)
        self.spec = _discrete(name, self._codes, factor_of(net, self.class_name))

    def encode(self, images: Tensor) -> Tokens:
        _, indices = self._net.encode(images[:, :, None].expand(-1, -1, self._repeat, -1, -1))
        return Tokens.from_indices(indices[:, 0], self._codes)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        images = self._net.decode(tokens.tensor[:, None], decode_from_indices=True)
        return _only_frame(images, self.spec.name, "decoded to")


def adapter_of(name: str, net: Any, kind: str, sample: bool = False) -> Continuous | DiffusersVQ | DiffusersFSQ:
    """Return the tokenizer for a network of one of the supported classes. sample: see `Continuous`.

    Raises AdapterError if its config makes it a network of videos only.
    """
    if kind == "VQModel":
        return DiffusersVQ(name, net)
    if kind == "AutoencoderVidTok" and net.config.regularizer == "fsq":
        return DiffusersFSQ(name, net)
    return Continuous(name, net, kind, sample)


def has_posterior(kind: str, net: Any) -> bool:
    """Return whether the encoder returns a distribution of latents."""
    return kind not in _NO_POSTERIOR and net.config.get("regularizer") != "fsq"


def factor_of(net: Any, kind: str) -> int:
    """Return the number of pixels per side of a latent."""
    if stages := CLASSES[kind].stages:
        return 2 ** (len(net.config[stages]) - 1)
    if kind == "AutoencoderRAE":
        return int(net.config.patch_size)
    if kind == "AutoencoderVidTok":
        return 2 ** len(net.encoder.spatial_ds)
    if not CLASSES[kind].frames:
        return int(net.spatial_compression_ratio)
    return _measured_factor(net)


@torch.inference_mode()
def _measured_factor(net: Any) -> int:
    """Return the factor of a video autoencoder. What it states itself is that of its defaults, which configs change."""
    side = max(64, 2 * int(getattr(net, "spatial_compression_ratio", 8)))
    weight = next(net.parameters())
    encoded = net.encode(torch.zeros(1, 3, 1, side, side, device=weight.device, dtype=weight.dtype))
    return side // int(encoded.latent_dist.mode().shape[-1])


def _channels(config: Any, kind: str) -> int:
    key = next(key for key in ("latent_channels", "z_dim", "z_channels", "encoder_hidden_size") if config.get(key))
    return int(config[key])


def _discrete(name: str, codes: int, factor: int) -> TokenizerSpec:
    return TokenizerSpec(
        name,
        "discrete",
        range=(-1.0, 1.0),
        multiple=factor,
        downsample=factor,
        codebook={"codes": codes},
        bits_per_token=math.log2(codes),
    )


def _frames(net: Any, kind: str) -> int:
    """Return how often an image is repeated as a video. Raises AdapterError if one frame is too few."""
    if kind != "AutoencoderVidTok":
        return 1
    if not net.config.is_causal:
        raise AdapterError(f"{kind} with is_causal false takes only videos of several frames")
    return int(net.temporal_compression_ratio)  # the first latent frame stands for one frame, repeated


def _only_frame(video: Tensor, name: str, action: str) -> Tensor:
    """Return the only frame (B, C, H, W) of a video (B, C, 1, H, W)."""
    if video.shape[2] != 1:
        raise AdapterError(
            f"{name}: one image was {action} {video.shape[2]} frames, so it cannot be evaluated on images"
        )
    return video[:, :, 0]


def _own_scale(net: Any, kind: str) -> float:
    """Return the factor by which the network itself multiplies latents when it encodes and divides when it decodes."""
    return float(net.config.scaling_factor) if kind == "AutoencoderRAE" else 1.0


def _draws_noise(config: Any) -> bool:
    """Return whether a decoder draws noise from torch's global generator."""
    injected = config.get("decoder_inject_noise") or ()
    return any(injected) if isinstance(injected, list | tuple) else bool(injected)


def _generator_of(image: Tensor) -> torch.Generator:
    """Return a generator that is seeded with the pixels of an image (3, H, W)."""
    digest = hashlib.sha256(image.detach().float().cpu().contiguous().numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
