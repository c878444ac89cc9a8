"""The authors' WeTok checkpoints (zhuangshaobin/WeTok, commit caa2ad7, Apache-2.0).

Sources: src/WeTok/models/lfqgan.py, modules/diffusionmodules/improved_model.py, modules/vqvae/lookup_free_quantize.py,
modules/ema.py and configs/WeToK/Inference. Images are in [-1, 1], with sides that are multiples of the downsampling.
The authors' VQModel needs Lightning and builds losses whose networks are downloaded; this file uses only its encoder,
quantizer and decoder, which need neither. As in the authors' evaluation the weights are the moving averages, stored
under `model_ema.` and the parameter's name without dots.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, seeded, tensors
from tokbench.tokenizers.tokens import Tokens

BITS = 8
"""Bits of one group, which has a codebook of 256 sign vectors."""


class OfficialWeTok(Tokenizer):
    """The authors' tokenizer: `groups` indices of 8 bits per patch.

    noisy: whether the decoder is the generative one, which uses torch's global generator; images are then decoded one
    by one with their seeds.
    """

    def __init__(self, name: str, parts: nn.ModuleDict, groups: int, factor: int, noisy: bool) -> None:
        self.module, self._parts, self._groups, self._noisy = parts, parts, groups, noisy
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(-1.0, 1.0),
            multiple=factor,
            downsample=factor,
            codebook={"codes": 2**BITS},
            bits_per_token=float(BITS * groups),
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, H, W) in [-1, 1] to indices (B, H / f, W / f, G)."""
        latents = self._parts["encoder"](images)
        _, _, flat = self._parts["quantize"](latents)  # one axis over images, positions and groups
        indices = flat.reshape(len(latents), *latents.shape[2:], self._groups)
        return Tokens.from_indices(indices, 2**BITS, groups=self._groups)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        signs = self._parts["quantize"].decode(tokens.tensor).permute(0, 3, 1, 2).contiguous()
        if not self._noisy:
            return self._parts["decoder"](signs)
        images = []
        for image_signs, seed in zip(signs, seeds, strict=True):
            with seeded(seed, image_signs.device):
                images.append(self._parts["decoder"](image_signs[None]))
        return torch.cat(images)


def load(variant: AdapterConfig, device: str) -> OfficialWeTok:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    given: dict[str, Any] = variant.config["official"]["model"]
    layers = import_upstream(variant, "src.WeTok.modules.diffusionmodules.improved_model")
    quantizers = import_upstream(variant, "src.WeTok.modules.vqvae.lookup_free_quantize")
    state, found = tensors(variant, "model", ("state_dict",))
    groups, noisy, channels = given["groups"], given["generative"], given["groups"] * BITS
    shape = {"ch": 256, "out_ch": 3, "in_channels": 3, "num_res_blocks": 4, "resolution": 128, "double_z": False}
    shape |= {"z_channels": channels, "ch_mult": given["ch_mult"]}
    decoder = layers.GANDecoder if noisy else layers.Decoder
    parts = nn.ModuleDict({"encoder": layers.Encoder(**shape), "decoder": decoder(**shape)})
    names = [name for name, _ in parts.named_parameters()]
    averages = {name: f"model_ema.{name.replace('.', '')}" for name in names}
    load_checkpoint(variant, parts, {name: state[key] for name, key in averages.items() if key in state}, found)
    # The quantizer has no parameters; its buffers are moved to the device with the other modules.
    parts["quantize"] = quantizers.LFQ(dim=channels, codebook_size=2**BITS, num_codebooks=groups)
    return OfficialWeTok(variant.name, parts.eval().to(device), groups, 2 ** (len(given["ch_mult"]) - 1), noisy)
