"""The authors' KARL checkpoints (ShivamDuggal4/karl, commit 5c1a569), over MAGE's VQGAN, with quantized latents.

Sources: kolmogorov_tokenizers/karl_vqgan.py, __init__.py, modules/ and the demo. Images are in [0, 1], 256 px. The
authors' `encode` returns no tokens, prints, and requires a GPU, so this file calls their modules step by step. Their
decoder repeats the masks of a batch in another order than the attention expects, which would exchange masks between
images; therefore images are decoded one by one. A checkpoint is a dict with the weights, including the VQGAN's, under
`ema`.
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
"""Bits of an index into 4,096 codes."""
UNUSED = ("gan_losses.", "criterion.")


class OfficialKARL(Tokenizer):
    """The authors' tokenizer; an image keeps those of `count` tokens that do not halt at the target `error`.

    Any tokens of the sequence may halt. Stream `codes` (B, N): the indices of the kept tokens, followed by zeros.
    Stream `kept` (B, N): one bit per position that says whether it is kept; these bits count towards the rate.
    error: mean absolute error of pixels in [0, 1].
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
        """Encode (B, 3, 256, 256) in [0, 1] to the streams `codes` and `kept`."""
        net, batch = self._net, len(images)
        patches, _, grid = net.get_2d_tokens(images)
        _, positions = net.get_positional_embeddings(patches, grid)
        _, target = net.get_discretized_loss_and_embedding(torch.full((batch, 1), self._error, device=images.device))
        row = net.latent_tokens[: self._count].expand(batch, -1, -1)
        features = torch.cat([target[:, 0], patches + positions, row], 1)
        features = net.encoder(net.encoder_ln_pre(features), attn_mask=None, adaln_timestep_cond=None)[
            :, -self._count :
        ]
        kept = net.halting_mlp(net.encoder_ln_post_halt(features)).sigmoid()[..., 0] <= HALTED
        _, details = net.quantize(net.pre_quantizer_mlp(net.encoder_ln_post(features)), is_quantize=True)
        order = kept.logical_not().to(torch.uint8).argsort(dim=1, stable=True)  # kept tokens first, in order
        codes = (details["min_encoding_indices"] * kept).gather(1, order)
        length = kept.sum(1).cpu()
        streams = {"codes": TokenStream("index", codes, 2**BITS), "kept": TokenStream("index", kept.to(torch.int64), 2)}
        return Tokens(streams, length, BITS * length.double() + self._count)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        codes, kept = tokens.streams["codes"].data, tokens.streams["kept"].data
        assert isinstance(codes, Tensor)
        assert isinstance(kept, Tensor)
        return torch.cat([self._image(one, places.bool()) for one, places in zip(codes, kept, strict=True)])

    def _image(self, codes: Tensor, kept: Tensor) -> Tensor:
        """Decode one image (1, 3, 256, 256) from its codes (N,) and the mask of kept positions (N,)."""
        net, grid = self._net, (SIDE, SIDE)
        indices = torch.zeros_like(codes)
        indices[kept] = codes[: int(kept.sum())]
        vectors = F.normalize(net.quantize.get_codebook_entry(indices), dim=-1)[None]
        blank, _ = net.get_positional_embeddings(vectors.new_zeros(1, SIDE**2, 1), grid)
        hidden = torch.cat([kept.new_zeros(SIDE**2), ~kept])
        mask = (hidden[:, None] | hidden) & ~torch.eye(len(hidden), dtype=torch.bool, device=hidden.device)
        places = net.decoder_latent_tokens_timestep_embed[: self._count]
        logits = net.decoder(net.decoder_embed(vectors), blank, places, attn_mask=mask[None])
        expected = logits.softmax(-1) @ net.base_tokenizer.vqgan.quantize.embedding.weight
        return net.reconstruct_images(logits, expected, grid)


def load(variant: AdapterConfig, device: str) -> OfficialKARL:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    given = variant.config["official"]
    spec = importlib.util.find_spec(PACKAGE)
    root = Path(spec.origin).parents[1] if spec and spec.origin else Path.cwd()
    with chdir(root), silent():  # their code reads its configs relative to this folder
        code = import_upstream(variant, PACKAGE)
        # The checkpoint contains the VQGAN's weights, too. A stage other than the training stages builds no losses.
        base = {"id": "vqgan", "pretrained_ckpt_path": None, "is_requires_grad": False}
        net: nn.Module = code.karl_small(
            base_tokenizer_args=base, quantize_latent=True, factorize_latent=True, train_stage="evaluation"
        )
    state, found = tensors(variant, "model", ("ema", "model"))
    return OfficialKARL(
        variant.name, load_checkpoint(variant, net, state, found, UNUSED).to(device), given["tokens"], given["error"]
    )
