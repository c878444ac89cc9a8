"""The authors' Hita checkpoints (CVMI-Lab/Hita, commit e10a95c, MIT licence).

Sources: hita/tokenizer/tokenizer_image/vq_model.py, hita/core/layers.py, configs/*.yaml and vqgan_test.py. Images are
in [-1, 1] and 336 px. `encode` returns ((local vectors, holistic vectors, _), _, (local indices, holistic indices)),
with flat indices; `decode_from_indices` takes both and the shape (B, 8, 21, 21). A checkpoint is a dict that contains
the weights under `ema`, `model` or `state_dict`, without those of DINOv2, which its authors publish. The authors' class
for DINOv2 runs only on CUDA devices; the one here computes the same on any.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, silent, tensors
from tokbench.tokenizers.tokens import Tokens

SIZE, SIDE, HOLISTIC, CODES, DIM = 336, 21, 128, 16_384, 8
EMBEDDER = "hita.modules.encoders.pretrained_enc_arch"
DINO = "encode_transformer.backbone.pretrained_encoder."
"""Prefix of the names of DINOv2's weights in the model."""

COMMON: dict[str, Any] = {
    "layer_type": "normal",
    "image_size": SIZE,
    "patch_size": 16,
    "dim": 512,
    "depth": 3,
    "num_head": 8,
    "mlp_dim": 2048,
    "dim_head": 64,
    "dropout": 0.1,
    "n_carrier": HOLISTIC,
}
"""The options that the encoder's and the decoder's transformers have in common."""


class OfficialHita(Tokenizer):
    """The authors' tokenizer: 128 holistic indices and a grid of local ones, each in its own stream."""

    def __init__(self, name: str, net: Any) -> None:
        self.module, self._net = net, net
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(-1.0, 1.0),
            size=SIZE,
            num_tokens=HOLISTIC + SIDE**2,
            codebook=dict.fromkeys(("holistic", "local"), CODES),
            bits_per_token=math.log2(CODES),
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, 336, 336) in [-1, 1] to streams of indices, (B, 128) and (B, 21, 21)."""
        _, _, (local, holistic) = self._net.encode(images)
        count = len(images)
        streams = {"holistic": holistic.reshape(count, HOLISTIC), "local": local.reshape(count, SIDE, SIDE)}
        return Tokens.from_indices(streams, CODES)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        local, holistic = (tokens.streams[name].data for name in ("local", "holistic"))
        assert isinstance(local, Tensor) and isinstance(holistic, Tensor)
        shape = (len(tokens), DIM, SIDE, SIDE)
        return self._net.decode_from_indices(local.flatten(), holistic.flatten(), shape)[0]


def load(variant: AdapterConfig, device: str) -> OfficialHita:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    code = import_upstream(variant, "hita.tokenizer.tokenizer_image.vq_model")
    state, found = tensors(variant, "model", ("ema", "model", "state_dict"))
    teacher, _ = tensors(variant, "dinov2")
    visual = {"pretrained_enc_arch": "dinov2_vitl14_reg", "proj_dim": 1024}
    encoder = {
        **COMMON,
        "in_channels": 1024,
        "visual_encoder_config": {"target": f"{EMBEDDER}.SelfSupervisedCondtionEmbedder", "params": visual},
    }
    decoder = {**COMMON, "enable_vfm_recon": variant.config["official"]["features"], "shift_k": 4}
    with silent(), _any_device(importlib.import_module(EMBEDDER)):
        net: nn.Module = code.VQ_models["VQ-16"](
            codebook_size=CODES,
            codebook_embed_dim=DIM,
            codebook_slots_embed_dim=12,
            transformer_config=SimpleNamespace(
                encoder_config={"target": "hita.core.layers.Encoder", "params": encoder},
                decoder_config={"target": "hita.core.layers.Decoder", "params": decoder},
            ),
            z_channels=512,
        )
    state = {**state, **{f"{DINO}{key}": value for key, value in teacher.items()}}
    return OfficialHita(variant.name, load_checkpoint(variant, net, state, found).to(device))


@contextmanager
def _any_device(module: ModuleType) -> Iterator[None]:
    """Replace the authors' class for DINOv2, which moves itself to CUDA and reads its weights from a fixed path."""
    original = module.SelfSupervisedCondtionEmbedder

    class Embedder(original):  # type: ignore[misc, valid-type]
        def __init__(self, pretrained_enc_arch: str, proj_dim: int) -> None:
            module.AbstractEmbModel.__init__(self)
            self.is_trainable, self.antialias = False, True
            self.pretrained_encoder = getattr(module.models_pretrained_enc, pretrained_enc_arch)(pretrained=False)

        def forward(self, x: Tensor) -> Tensor:
            mean, deviation = (
                torch.tensor(values, device=x.device)[:, None, None]
                for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
            )
            output = self.pretrained_encoder.forward_features((self.preprocess(x) - mean) / deviation)
            return torch.cat((output["x_norm_clstoken"][:, None], output["x_norm_patchtokens"]), 1)

    module.SelfSupervisedCondtionEmbedder = Embedder
    try:
        yield
    finally:
        module.SelfSupervisedCondtionEmbedder = original
