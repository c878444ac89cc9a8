"""The authors' RobustTok and RobusTok checkpoints (lxa9867/ImageFolder, 76ddfb9; qiuk2/RobusTok, c4c6760).

Sources: tokenizer/tokenizer_image/xqgan_model.py and dino_enc/dinov2.py, equal in both repositories, and the configs.
Images are in [-1, 1], 256 px. `encode` returns latents (B, D, 16, 16), the quantizer's `f_to_idxBl_or_fhat` a list with
flat indices (B 256,), and `fhat_to_img` takes l2-normalised codes (B, D, 16, 16). A checkpoint is a dict that contains
the weights under `ema` or else `model`; its options may be objects of ruamel.yaml, which are not read.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, tensors
from tokbench.tokenizers.tokens import Tokens

SIDE = 16
UNUSED = ("semantic_model.", "semantic_loss.", "sem_linear.")
"""Prefixes of DINOv2 and the layers of the semantic loss; only training uses them."""


class OfficialRobusTok(Tokenizer):
    """The authors' tokenizer: 16x16 indices from learned queries that a ViT processes together with the patches."""

    def __init__(self, name: str, net: Any, codes: int) -> None:
        self.module, self._net, self._codes = net, net, codes
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(-1.0, 1.0),
            size=256,
            num_tokens=SIDE**2,
            codebook={"codes": codes},
            bits_per_token=math.log2(codes),
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, 256, 256) in [-1, 1] to indices (B, 16, 16)."""
        latents = self._net.encode(images)
        indices = self._net.quantize.f_to_idxBl_or_fhat(latents, to_fhat=False, v_patch_nums=None)[0]
        return Tokens.from_indices(indices.reshape(len(images), SIDE, SIDE), self._codes)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        vectors = F.normalize(self._net.quantize.embedding(tokens.tensor), dim=-1)
        return self._net.fhat_to_img(vectors.permute(0, 3, 1, 2))


def load(variant: AdapterConfig, device: str) -> OfficialRobusTok:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    code, given = import_upstream(variant, "tokenizer.tokenizer_image.xqgan_model"), variant.config["official"]
    state, found = tensors(variant, "model", ("ema", "model"))
    backbone = "vit_base_patch14_dinov2.lvd142m"
    with _untrained(importlib.import_module("tokenizer.tokenizer_image.dino_enc.dinov2")):
        net: nn.Module = code.VQ_models["VQ-16"](
            codebook_size=given["codes"],
            codebook_embed_dim=given["dim"],
            v_patch_nums=[SIDE],
            enc_type="dinov2",
            dec_type="dinov2",
            encoder_model=backbone,
            decoder_model=backbone,
            semantic_guide="none",
            detail_guide="none",
            num_latent_tokens=SIDE**2,
            abs_pos_embed=True,
            product_quant=1,
        )
    return OfficialRobusTok(
        variant.name, load_checkpoint(variant, net, state, found, UNUSED).to(device), given["codes"]
    )


@contextmanager
def _untrained(module: ModuleType) -> Iterator[None]:
    """Make the authors' constructor create DINOv2 without downloading weights, which the checkpoint replaces anyway."""
    create = module.create_model
    module.create_model = lambda name, **options: create(name, **{**options, "pretrained": False})
    try:
        yield
    finally:
        module.create_model = create
