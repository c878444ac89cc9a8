"""Stand-in for hita/core/layers.py of CVMI-Lab/Hita at e10a95c: tiny networks."""

import importlib

import torch
from torch import nn


def instantiate_from_config(config):
    module, name = config["target"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(**config.get("params", {}))


class Encoder(nn.Module):
    def __init__(self, image_size, layer_type, n_carrier, patch_size, dim, depth, num_head, mlp_dim, in_channels=1024,
                 dim_head=64, visual_encoder_config=None, dropout=0.0):  # fmt: skip
        super().__init__()
        assert (image_size, patch_size, dim, depth, in_channels) == (336, 16, 512, 3, 1024)
        self.backbone = instantiate_from_config(visual_encoder_config)
        assert self.backbone.is_trainable is False
        self.parts(n_carrier)

    def parts(self, n_carrier):
        self.carrier_tokens = nn.Parameter(torch.randn(1, n_carrier, 16))
        self.proj = nn.Linear(16, 16)

    def forward(self, imgs, h):
        latent = self.backbone(imgs)
        return h, self.carrier_tokens * self.proj(latent).mean(1, keepdim=True), latent[:, 1:]


class Decoder(nn.Module):
    def __init__(self, dim, n_carrier, shift_k, enable_vfm_recon=False, **options):
        super().__init__()
        assert not options or (options["image_size"], options["depth"], dim) == (336, 3, 512)
        self.slot_position_embedding = nn.Parameter(torch.randn(1, n_carrier, 16))
        assert shift_k == 4
        if enable_vfm_recon:
            self.mask_embedding = nn.Parameter(torch.randn(1, 1, 16))

    def forward(self, z, slots):
        return z + (slots * self.slot_position_embedding).mean(1)[:, :, None, None], None
