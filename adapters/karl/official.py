"""KARL as its authors trained it (ShivamDuggal4/karl, commit 5c1a569), over MAGE's VQGAN, with quantized latents.

Facts from kolmogorov_tokenizers/karl_vqgan.py, __init__.py, modules/ and the demo: images in [0, 1], 256 px. Their
`encode` returns no tokens, prints, and asks for a GPU, so its steps are taken here one by one, with their own parts.
Their decoder repeats the masks of a batch in another order than attention reads them, so that each image would get
other images' masks: it is run image by image. A checkpoint is a dict whose `ema` holds the weights, those of the VQGAN
included.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, silent, tensors
from tokbench.tokenizers.tokens import Tokens, TokenStream

PACKAGE, SIDE, HALTED = "kolmogorov_tokenizers", 16, 0.75
BITS = 12
"""Of an index: 4,096 codes."""
UNUSED = ("gan_losses.", "criterion.")


class OfficialKARL(Tokenizer):
    """Asked for a mean absolute error, an image gets those of `count` tokens that do not halt: any of the row.

    Stream `codes` (B, N): the indices of an image's first `length` kept tokens, then zeros. Stream `kept` (B, N): which
    places of the row these are, a bit each, charged beside the indices.
    """

    def __init__(self, name: str, net: Any, count: int, error: float) -> None:
        self.module, self._net, self._count, self._error = net, net, count, error
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(0.0, 1.0),
            size=256,
            num_tokens=count,
            codebook={"codes": 2**BITS, "kept": 2},
            bits_per_token=float(BITS),
            variable=True,
        )

    def encode(self, images: Tensor) -> Tokens:
        """(B, 3, 256, 256) in [0, 1]."""
        net, batch = self._net, len(images)
        patches, _, grid = net.get_2d_tokens(images)
        _, positions = net.get_positional_embeddings(patches, grid)
        _, asked = net.get_discretized_loss_and_embedding(torch.full((batch, 1), self._error, device=images.device))
        row = net.latent_tokens[: self._count].expand(batch, -1, -1)
        seen = torch.cat([asked[:, 0], patches + positions, row], 1)
        seen = net.encoder(net.encoder_ln_pre(seen), attn_mask=None, adaln_timestep_cond=None)[:, -self._count :]
        kept = net.halting_mlp(net.encoder_ln_post_halt(seen)).sigmoid()[..., 0] <= HALTED
        _, told = net.quantize(net.pre_quantizer_mlp(net.encoder_ln_post(seen)), is_quantize=True)
        order = kept.logical_not().to(torch.uint8).argsort(dim=1, stable=True)  # the kept ones first, in their order
        codes = (told["min_encoding_indices"] * kept).gather(1, order)
        length = kept.sum(1).cpu()
        streams = {"codes": TokenStream("index", codes, 2**BITS), "kept": TokenStream("index", kept.to(torch.int64), 2)}
        return Tokens(streams, length, BITS * length.double() + self._count)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        codes, kept = tokens.streams["codes"].data, tokens.streams["kept"].data
        assert isinstance(codes, Tensor)
        assert isinstance(kept, Tensor)
        return torch.cat([self._image(one, places.bool()) for one, places in zip(codes, kept, strict=True)])

    def _image(self, codes: Tensor, kept: Tensor) -> Tensor:
        """From an image's codes (N,) and their places (N,) to it, (1, 3, 256, 256)."""
        net, grid = self._net, (SIDE, SIDE)
        indices = torch.zeros_like(codes)
        indices[kept] = codes[: int(kept.sum())]
        vectors = F.normalize(net.quantize.get_codebook_entry(indices), dim=-1)[None]
        blank, _ = net.get_positional_embeddings(vectors.new_zeros(1, SIDE**2, 1), grid)
        hidden = torch.cat([kept.new_zeros(SIDE**2), ~kept])
        mask = (hidden[:, None] | hidden) & ~torch.eye(len(hidden), dtype=torch.bool, device=hidden.device)
        places = net.decoder_latent_tokens_timestep_embed[: self._count]
        logits = net.decoder(net.decoder_embed(vectors), blank, places, attn_mask=mask[None])
        soft = logits.softmax(-1) @ net.base_tokenizer.vqgan.quantize.embedding.weight
        return net.reconstruct_images(logits, soft, grid)


def load(variant: AdapterConfig, device: str) -> OfficialKARL:
    """Raises MissingWeights where the code or the weights are not here."""
    given = variant.config["official"]
    spec = importlib.util.find_spec(PACKAGE)
    root = Path(spec.origin).parents[1] if spec and spec.origin else Path.cwd()
    with chdir(root), silent():  # it reads its configs from there
        code = import_upstream(variant, PACKAGE)
        # The checkpoint holds the VQGAN's weights, too. Any other stage than theirs builds no losses.
        base = {"id": "vqgan", "pretrained_ckpt_path": None, "is_requires_grad": False}
        net: nn.Module = code.karl_small(
            base_tokenizer_args=base, quantize_latent=True, factorize_latent=True, train_stage="evaluation"
        )
    state, found = tensors(variant, "model", ("ema", "model"))
    return OfficialKARL(
        variant.name, load_checkpoint(variant, net, state, found, UNUSED).to(device), given["tokens"], given["error"]
    )
