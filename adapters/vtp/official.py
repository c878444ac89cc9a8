"""The authors' VTP checkpoints (MiniMax-AI/VTP, commit 6fa4e19).

Sources: vtp/models/vtp_hf/modeling_vtp.py and tools/test_reconstruction_hf.py. Images are normalised with ImageNet's
mean and standard deviation before and after. `get_reconstruction_latents` returns (B, 64, H / 16, W / 16); nothing is
sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, silent, tensors
from tokbench.tokenizers.tokens import Tokens

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class OfficialVTP(Tokenizer):
    """The authors' tokenizer: the values of the bottleneck for each patch."""

    def __init__(self, name: str, net: Any) -> None:
        self.module, self._net, patch = net, net, net.config.vision_patch_size
        self._mean, self._deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
        self.spec = TokenizerSpec(
            name,
            kind="continuous",
            range=(0.0, 1.0),
            multiple=patch,
            downsample=patch,
            bits_per_token=16.0 * net.config.vision_feature_bottleneck,
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, H, W) in [0, 1] to latents (B, H / p, W / p, C)."""
        latents = self._net.get_reconstruction_latents((images - self._mean.to(images)) / self._deviation.to(images))
        return Tokens.from_latents(latents.permute(0, 2, 3, 1), tokens=latents.shape[2] * latents.shape[3])

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        decoded = self._net.get_latents_decoded_images(tokens.tensor.float().permute(0, 3, 1, 2))
        return decoded * self._deviation.to(decoded) + self._mean.to(decoded)


def load(variant: AdapterConfig, device: str) -> OfficialVTP:
    """Load the authors' model. Raises MissingWeights if their code, their config or the weights are not available."""
    code = import_upstream(variant, "vtp.models.vtp_hf")
    state, found = tensors(variant, "model")
    config = code.VTPConfig.from_json_file(variant.weights("config").path)
    with silent():
        net: nn.Module = code.VTPModel(config)
    return OfficialVTP(variant.name, load_checkpoint(variant, net, state, found).to(device))
