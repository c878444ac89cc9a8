"""Stand-in for vtp/models/vtp_hf of MiniMax-AI/VTP at 6fa4e19: the same calls and names, tiny networks."""

import json
from pathlib import Path
from types import SimpleNamespace

import torch.nn.functional as F
from torch import nn


class VTPConfig(SimpleNamespace):
    @classmethod
    def from_json_file(cls, json_file):
        return cls(**json.loads(Path(json_file).read_text()))


class VTPModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, patch = config, config.vision_patch_size
        self.trunk = nn.Conv2d(3, config.vision_feature_bottleneck, patch, patch)
        self.visual_proj = nn.Linear(config.vision_embed_dim, 8, bias=False)
        self.pixel_decoder = nn.Conv2d(config.vision_feature_bottleneck, 3 * patch**2, 1)

    def get_reconstruction_latents(self, image):
        assert image.min() < -1  # normalised with ImageNet's mean and standard deviation
        return self.trunk(image)

    def get_latents_decoded_images(self, latents):
        return F.pixel_shuffle(self.pixel_decoder(latents), self.config.vision_patch_size)
