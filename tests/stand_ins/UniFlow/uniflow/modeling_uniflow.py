"""Stand-in for uniflow/modeling_uniflow.py of ZhengrongYue/UniFlow at e6322d0: the same calls, tiny networks."""

from types import SimpleNamespace

import torch
from torch import nn

from .configuration_uniflow import UniFlowVisionConfig


class UniFlowVisionEmbeddings(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, patch = config.vit_hidden_size, config.patch_size
        self.num_patches = (config.image_size // patch) ** 2
        self.class_embedding = nn.Parameter(torch.randn(1, 1, width))
        self.patch_embedding = nn.Conv2d(3, width, patch, patch)
        self.position_embedding = nn.Parameter(torch.randn(1, self.num_patches + 1, width))

    def forward(self, pixel_values):
        assert pixel_values.min() < -1  # normalised with ImageNet's mean and standard deviation
        patches = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        return torch.cat([self.class_embedding.expand(len(patches), 1, -1), patches], 1) + self.position_embedding


class UniFlowVisionEncoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(config.vit_hidden_size, config.vit_hidden_size)])

    def forward(self, inputs_embeds, output_hidden_states=None, return_dict=None, attn_mask=None):
        assert return_dict
        return SimpleNamespace(last_hidden_state=self.layers[0](inputs_embeds))


class SimpleMLPAdaLN(nn.Module):
    def __init__(self, values, width):
        super().__init__()
        self.cond_embed, self.final_layer = nn.Linear(width, 8), nn.Linear(8 + values, values)

    def forward(self, x, t, c):
        assert t.ndim == 1 and float(t.max()) < 1000
        return self.final_layer(torch.cat([self.cond_embed(c) + t[:, None] / 1000, x], -1))


class FlowDecoder(nn.Module):
    def __init__(self, values, width):
        super().__init__()
        self.net = SimpleMLPAdaLN(values, width)

    def forward(self, z):
        raise AssertionError("the authors' sampler draws unseeded noise on a GPU")


class UniFlowVisionModel(nn.Module):
    def __init__(self, config: UniFlowVisionConfig):
        super().__init__()
        print("Sampling Step:", config.num_sampling_steps)
        self.config, width, latent = config, config.vit_hidden_size, config.latent_ch
        self.embeddings, self.encoder = UniFlowVisionEmbeddings(config), UniFlowVisionEncoder(config)
        self.chal_proj, self.chal_unproj = nn.Linear(width, latent), nn.Linear(latent, width)
        self.global_block_pos_embed, self.decoder_pos_embed = (
            nn.Parameter(torch.randn(1, self.embeddings.num_patches, width)) for _ in range(2)
        )
        self.global_blocks = nn.ModuleList([nn.Linear(width, width)])
        self.flow_head = FlowDecoder(3 * config.patch_size**2, width)
