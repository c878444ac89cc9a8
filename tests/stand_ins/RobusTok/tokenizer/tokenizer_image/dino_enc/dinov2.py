"""Stand-in for tokenizer/tokenizer_image/dino_enc/dinov2.py of qiuk2/RobusTok at c4c6760 (alike in lxa9867/ImageFolder
at 76ddfb9), and for timm.models.create_model, which it imports by name."""

import torch
from torch import nn


def create_model(model_name, pretrained=False, **kwargs):
    assert not pretrained, "it would download"
    assert model_name == "vit_base_patch14_dinov2.lvd142m" and kwargs["img_size"] == 256
    return nn.Conv2d(3, 8, 16, 16)


class DINOv2Encoder(nn.Module):
    embed_dim = 8

    def __init__(self, model_name, model_kwargs, num_latent_tokens, pretrained=True, abs_pos_embed=False):
        super().__init__()
        assert num_latent_tokens == 256 and abs_pos_embed
        self.model = create_model(model_name, pretrained=pretrained, **model_kwargs)
        self.register_buffer("lvl1LC", torch.arange(4))

    def forward(self, x):
        assert x.shape[1:] == (3, 256, 256) and x.min() < 0
        return self.model(x).flatten(2).transpose(1, 2)


class DINOv2Decoder(nn.Module):
    embed_dim = 8

    def __init__(self, model_name, model_kwargs, num_latent_tokens, pretrained=True, abs_pos_embed=False):
        super().__init__()
        self.model = create_model(model_name, pretrained=pretrained, **model_kwargs)
        self.to_pixel = nn.Linear(8, 3 * 16 * 16)

    def forward(self, x):
        return nn.functional.fold(self.to_pixel(x).transpose(1, 2), (256, 256), 16, stride=16)
