"""Stand-in for modeling/titok.py of bytedance/1d-tokenizer at 942a96f: the same calls and names, tiny networks."""

import torch
import torch.nn.functional as F
from torch import nn


class VectorQuantizer(nn.Module):
    def __init__(self, codebook_size, token_size, commitment_cost, use_l2_norm):
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, token_size)
        self.use_l2_norm = use_l2_norm

    def forward(self, z):  # (B, C, 1, N)
        flat = z.permute(0, 2, 3, 1).flatten(0, 2)
        indices = torch.cdist(F.normalize(flat, dim=-1), F.normalize(self.embedding.weight, dim=-1)).argmin(1)
        info = {"quantizer_loss": 0, "min_encoding_indices": indices.view(z.shape[0], z.shape[2], z.shape[3])}
        return self.get_codebook_entry(indices).view(z.shape[0], 1, -1, z.shape[1]).permute(0, 3, 1, 2), info

    def get_codebook_entry(self, indices):
        assert indices.ndim == 1
        return F.normalize(self.embedding(indices), dim=-1) if self.use_l2_norm else self.embedding(indices)


class DiagonalGaussianDistribution:
    def __init__(self, parameters):
        self.mean, self.logvar = parameters.chunk(2, dim=1)

    def mode(self):
        return self.mean

    def sample(self):
        raise AssertionError("encoding must not be a matter of chance")


class TiTok(nn.Module):
    def __init__(self, config):
        super().__init__()
        vq, self.crop = config["model"]["vq_model"], config["dataset"]["preprocessing"]["crop_size"]
        assert vq["vit_enc_model_size"] in ("small", "base", "large") and vq["vit_dec_patch_size"] == 16
        self.num_latent_tokens, self.quantize_mode = vq["num_latent_tokens"], vq.get("quantize_mode", "vq")
        self.strict = vq.get("strict_length_assertion", True)
        size = vq["token_size"]
        self.encoder = nn.Conv2d(3, size * (2 if self.quantize_mode == "vae" else 1), 16, 16)
        self.decoder = nn.Linear(size, 3 * 16 * 16)
        if self.quantize_mode == "vq":
            self.quantize = VectorQuantizer(
                vq["codebook_size"], size, commitment_cost=vq["commitment_cost"], use_l2_norm=vq["use_l2_norm"]
            )
        else:
            self.quantize = DiagonalGaussianDistribution

    def encode(self, x):
        assert x.shape[1:] == (3, self.crop, self.crop) and x.min() >= 0 and x.max() <= 1
        z = self.encoder(x).flatten(2)[:, :, None, : self.num_latent_tokens]
        if self.quantize_mode == "vae":
            posterior = self.quantize(z)
            return posterior.mean, posterior
        return self.quantize(z)

    def decode(self, z):
        assert z.shape[3] == self.num_latent_tokens or (not self.strict and z.shape[3] < self.num_latent_tokens)
        patches = self.decoder(z.squeeze(2).transpose(1, 2))
        patches = patches.repeat(1, -(-256 // patches.shape[1]), 1)[:, :256]
        return F.fold(patches.transpose(1, 2), (self.crop, self.crop), 16, stride=16).sigmoid()

    def decode_tokens(self, tokens):
        if self.quantize_mode == "vae":
            return self.decode(tokens)
        assert tokens.ndim == 3 and tokens.shape[1] == 1
        vectors = self.quantize.get_codebook_entry(tokens.flatten()).unflatten(0, tokens.shape)
        return self.decode(vectors.movedim(-1, 1))
