"""The authors' TokenBridge (YuqingWang1029/TokenBridge, commit 3ede281): MAR's KL-16 VAE with quantized latents.

Sources: reconstruction.py and models/vae.py. Images are in [-1, 1], latents (B, 16, H / 16, W / 16), multiplied by
0.2325. Values in [-5, 5] are mapped to [-3, 3] and rounded to the nearest of 64 values, the means of the normal
distribution in 64 bins of equal probability. The VAE's class unpickles its checkpoint, a dict with the weights under
`model`, only if it is given a path.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokbench.nn.quantizers.gaussian_bins import GaussianBins
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, silent, tensors
from tokbench.tokenizers.tokens import Tokens

CHANNELS, FACTOR, SCALE = 16, 16, 0.2325
UNUSED = ("loss.",)


class OfficialTokenBridge(Tokenizer):
    """The authors' tokenizer: one token per 16x16 px, with an index below 2^bits for each of the 16 channels.

    The mean of the posterior is quantized, so that encoding is deterministic; the authors quantize a sample.
    """

    def __init__(self, name: str, parts: nn.ModuleDict, bits: int) -> None:
        self.module, self._parts, self._codes = parts, parts, 2**bits
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(-1.0, 1.0),
            multiple=FACTOR,
            downsample=FACTOR,
            codebook={"codes": self._codes},
            bits_per_token=float(bits * CHANNELS),
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, H, W) in [-1, 1] to indices (B, H / 16, W / 16, 16)."""
        latents = self._parts["vae"].encode(images).mode().mul(SCALE).permute(0, 2, 3, 1).contiguous()
        indices = self._parts["bins"](latents.flatten(1, 2)).indices.unflatten(1, latents.shape[1:3])
        return Tokens.from_indices(indices, self._codes, groups=CHANNELS)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        indices = tokens.tensor
        latents = self._parts["bins"].lookup(indices.flatten(1, 2)).unflatten(1, indices.shape[1:3])
        return self._parts["vae"].decode(latents.permute(0, 3, 1, 2).div(SCALE))


def load(variant: AdapterConfig, device: str) -> OfficialTokenBridge:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    code, given = import_upstream(variant, "models.vae"), variant.config["official"]
    state, found = tensors(variant, "vae", ("model",))
    with silent():
        net: nn.Module = code.AutoencoderKL(embed_dim=CHANNELS, ch_mult=(1, 1, 2, 2, 4))
    parts = nn.ModuleDict({"vae": load_checkpoint(variant, net, state, found, UNUSED)})
    parts["bins"] = GaussianBins(given["bits"], CHANNELS, limit=5.0, span=3.0)
    return OfficialTokenBridge(variant.name, parts.eval().to(torch.device(device)), given["bits"])
