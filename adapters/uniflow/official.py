"""The authors' UniFlow checkpoint (ZhengrongYue/UniFlow, commit e6322d0, MIT; weights: yuezhengrong/UniFlow).

Sources: uniflow/modeling_uniflow.py, quick_start.ipynb, and configuration_uniflow.py, which only the hub has. Images
are normalised with ImageNet's mean and standard deviation before and after, 448 px. The authors' forward pass gives
only the reconstruction, and their sampler draws unseeded noise on a GPU, so that the parts are called one by one here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.flow import seeded_noise
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, silent, tensors
from tokbench.tokenizers.tokens import Tokens

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class OfficialUniFlow(Tokenizer):
    """The authors' tokenizer: `latent_ch` values per patch, decoded by a flow of `num_sampling_steps` Euler steps.

    The noise of each image comes from its seed. steps: None for the number in the authors' config.
    """

    def __init__(self, name: str, net: Any, steps: int | None) -> None:
        self.module, self._net, config = net, net, net.config
        self._steps = steps or int(config.num_sampling_steps)
        self._side, self._patch = config.image_size // config.patch_size, config.patch_size
        self._mean, self._deviation = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, DEVIATION))
        self.spec = TokenizerSpec(
            name,
            kind="continuous",
            range=(0.0, 1.0),
            size=config.image_size,
            downsample=config.patch_size,
            num_tokens=self._side**2,
            bits_per_token=16.0 * config.latent_ch,
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, size, size) in [0, 1] to latents (B, side, side, C)."""
        normalised = (images - self._mean.to(images)) / self._deviation.to(images)
        hidden = self._net.embeddings(normalised)
        features = self._net.encoder(inputs_embeds=hidden, output_hidden_states=False, return_dict=True)
        latents = self._net.chal_proj(features.last_hidden_state[:, 1:])  # the first token is CLS
        return Tokens.from_latents(latents.unflatten(1, (self._side, self._side)), tokens=self._side**2)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        latents = tokens.tensor.float().flatten(1, 2)
        condition = self._net.chal_unproj(latents) + self._net.global_block_pos_embed
        for block in self._net.global_blocks:
            condition = block(condition)
        condition = (condition + self._net.decoder_pos_embed).flatten(0, 1)
        noise = seeded_noise(seeds, (self._side**2, 3 * self._patch**2))
        x = noise.to(condition).flatten(0, 1)
        for step in range(self._steps):  # their time runs from 0 (noise) to 1 (image)
            time = torch.full((len(x),), 1000 * step / self._steps, device=x.device)
            x = x + self._net.flow_head.net(x=x, t=time, c=condition) / self._steps
        grid = x.unflatten(0, (len(seeds), self._side, self._side)).permute(0, 3, 1, 2)
        return F.pixel_shuffle(grid, self._patch) * self._deviation.to(grid) + self._mean.to(grid)


def load(variant: AdapterConfig, device: str) -> OfficialUniFlow:
    """Load the authors' model. Raises MissingWeights if their code, their config or the weights are not available."""
    config = import_upstream(variant, "uniflow.configuration_uniflow")
    code = import_upstream(variant, "uniflow.modeling_uniflow")
    state, found = tensors(variant, "model")
    given = config.UniFlowVisionConfig.from_json_file(variant.weights("config").path)
    with silent():
        net: nn.Module = code.UniFlowVisionModel(given)
    steps = variant.config["official"].get("steps")
    return OfficialUniFlow(variant.name, load_checkpoint(variant, net, state, found).to(device), steps)
