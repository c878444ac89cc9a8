"""Stand-in for models/rectok.py of Shi-qingyu/RecTok at ee87aaf: the same calls and names, tiny networks."""

import torch
import torch.nn.functional as F
from torch import nn


class Encoder(nn.Module):
    def __init__(self, patch_size, token_channels):
        super().__init__()
        self.patch_embed = nn.Sequential(nn.Conv2d(3, 8, patch_size, patch_size))
        self.latent_head = nn.Linear(8, 2 * token_channels)

    def forward(self, x):
        return {"z": self.latent_head(self.patch_embed(x).flatten(2).transpose(1, 2))}


class Decoder(nn.Module):
    def __init__(self, patch_size, token_channels):
        super().__init__()
        self.patch_size, self.mask_token = patch_size, nn.Parameter(torch.zeros(1, 1, 8))
        self.decoder_embed, self.ffn = nn.Linear(token_channels, 8), nn.Linear(8, 3 * patch_size**2)

    def forward(self, z):
        patches = self.ffn(self.decoder_embed(z)).transpose(1, 2)
        return F.fold(patches, (256, 256), self.patch_size, stride=self.patch_size)


class RecTok(nn.Module):
    def __init__(
        self, img_size=256, patch_size=16, vit_enc_model_size="base", vit_dec_model_size="base", token_channels=16,
        foundation_model_type="", mean=0.0, std=1.0,
    ):  # fmt: skip
        super().__init__()
        assert img_size == 256 and foundation_model_type == ""  # else the constructor would download the model
        self.token_channels, self.seq_h = token_channels, img_size // patch_size
        self.encoder, self.decoder = Encoder(patch_size, token_channels), Decoder(patch_size, token_channels)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def tokenize(self, x, sampling=False):
        assert x.shape[1:] == (3, 256, 256) and x.min() < 0 and not sampling and not self.training
        z = self.encoder(x)["z"].chunk(2, -1)[0]
        return ((z - self.mean) / self.std).transpose(1, 2).unflatten(2, (self.seq_h, self.seq_h))

    def detokenize(self, z):
        decoded = self.decoder(z.flatten(2).transpose(1, 2) * self.std + self.mean)
        return torch.clamp(decoded * 0.5 + 0.5, 0.0, 1.0)


def rectok_BB(**kwargs):
    return RecTok(vit_enc_model_size="base", vit_dec_model_size="base", **kwargs)
