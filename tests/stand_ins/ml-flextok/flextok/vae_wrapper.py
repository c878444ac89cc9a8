"""Stand-in for flextok/vae_wrapper.py of apple/ml-flextok at 87d00cc."""

import os  # noqa: F401  # a config must not be able to call this

import torch
from torch import nn


class StableDiffusionVAE(nn.Module):
    def __init__(self, latent_channels=16, hf_hub_path=None, sample_posterior=True):
        super().__init__()
        assert hf_hub_path is None, "it would download"
        self.sample_posterior = sample_posterior
        self.vae = nn.ModuleList([nn.Conv2d(3, latent_channels, 8, 8), nn.ConvTranspose2d(latent_channels, 3, 8, 8)])

    def encode(self, data):
        assert not self.sample_posterior, "encoding must not be a matter of chance"
        images = torch.cat(data["rgb"])
        assert images.shape[1:] == (3, 256, 256) and images.min() < 0
        return self.vae[0](images).split(1)

    def decode(self, latents):
        return [self.vae[1](one).tanh() for one in latents]
