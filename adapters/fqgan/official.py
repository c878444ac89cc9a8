"""The authors' FQGAN checkpoints (showlab/FQGAN, commit dc34256; CC-BY-NC-4.0).

Sources: tokenizer/vq_model_dual.py, vq_model_triple.py and reconstruction_vq_ddp_*.py. Images are in [-1, 1] and
256 px, the size that its position embeddings require. `encode` returns the latents of all codebooks, then a tuple
(_, _, indices) for each, with flat indices (B h w,). `decode_code` takes the indices and then the latents' shapes
(B, D, h, w), in the same order: semantic and visual for dual models, visual, middle and high for triple models. A
checkpoint is a dict that contains the weights under `ema` or else `model`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, silent, tensors
from tokbench.tokenizers.tokens import Tokens

SIZE, DIM = 256, 8
BOOKS = {"dual": ("semantic", "visual"), "triple": ("visual", "middle", "high")}
UNUSED = ("feat_pred_head.", "mid_sem_feat_pred.", "high_sem_feat_pred.")
"""Prefixes of the heads that predict CLIP's and DINOv2's features; only training uses them."""


class OfficialFQGAN(Tokenizer):
    """The authors' tokenizer; every position has one index per codebook, each codebook in its own stream."""

    def __init__(self, name: str, net: Any, books: Sequence[str], codes: int, side: int) -> None:
        self.module, self._net, self._books, self._codes, self._side = net, net, books, codes, side
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(-1.0, 1.0),
            size=SIZE,
            num_tokens=len(books) * side**2,
            codebook=dict.fromkeys(books, codes),
            bits_per_token=math.log2(codes),
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, 256, 256) in [-1, 1] to streams of indices (B, h, w)."""
        found = self._net.encode(images)[len(self._books) :]
        grid = (len(images), self._side, self._side)
        streams = {book: indices.reshape(grid) for book, (_, _, indices) in zip(self._books, found, strict=True)}
        return Tokens.from_indices(streams, self._codes)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        shape, flat = (len(tokens), DIM, self._side, self._side), []
        for book in self._books:
            indices = tokens.streams[book].data
            assert isinstance(indices, Tensor)
            flat.append(indices.flatten())
        return self._net.decode_code(*flat, *[shape] * len(flat))


def load(variant: AdapterConfig, device: str) -> OfficialFQGAN:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    given = variant.config["official"]
    code, factor = import_upstream(variant, f"tokenizer.vq_model_{given['books']}"), given["factor"]
    state, found = tensors(variant, "model", ("ema", "model", "state_dict"))
    with silent():
        net: nn.Module = code.VQ_models[f"VQ-{factor}"](codebook_size=given["codes"], codebook_embed_dim=DIM)
    load_checkpoint(variant, net, state, found, UNUSED)
    return OfficialFQGAN(variant.name, net.to(device), BOOKS[given["books"]], given["codes"], SIZE // factor)
