"""TAEF2, the tiny autoencoder of FLUX.2's latent space, with published weights that users download."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens
from tokbench.weights.state_dict import load_strict, read_state

from .model import LATENTS, decoder, encoder


class TAEF2(Tokenizer):
    """A continuous tokenizer with 32 float16 values per 8x8 px and a convolutional decoder."""

    def __init__(self, name: str, networks: nn.ModuleDict) -> None:
        self.module = networks
        self.spec = TokenizerSpec(
            name, kind="continuous", range=(0.0, 1.0), multiple=8, downsample=8, bits_per_token=16 * LATENTS
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, H, W) in [0, 1] to latents (B, 32, H / 8, W / 8)."""
        latents = self.module["encoder"](images)
        return Tokens.from_latents(latents, tokens=latents.shape[2] * latents.shape[3])

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return self.module["decoder"](tokens.tensor.float())


def load(variant: AdapterConfig, device: str) -> TAEF2:
    """Load the tokenizer. Raises MissingWeights if a file is missing or has other keys or shapes."""
    networks = nn.ModuleDict({"encoder": encoder(), "decoder": decoder()})
    for part, network in networks.items():
        found = variant.weights(part)
        # The file stores float16; the network computes in float32, as all tokenizers do.
        load_strict(variant.name, network, read_state(variant.name, found), found)
    return TAEF2(variant.name, networks.to(device))
