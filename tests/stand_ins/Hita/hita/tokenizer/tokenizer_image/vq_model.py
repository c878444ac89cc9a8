"""Stand-in for hita/tokenizer/tokenizer_image/vq_model.py of CVMI-Lab/Hita at e10a95c: the same calls and names, tiny
networks."""

import torch
import torch.nn.functional as F
from hita.core.layers import instantiate_from_config
from torch import nn


class VectorQuantizer(nn.Module):
    def __init__(self, n_e, e_dim):
        super().__init__()
        self.embedding = nn.Embedding(n_e, e_dim)
        self.register_buffer("codebook_used", torch.zeros(16))

    def forward(self, z):
        flat = F.normalize(z.permute(0, 2, 3, 1).flatten(0, 2), dim=-1)
        indices = torch.cdist(flat, F.normalize(self.embedding.weight, dim=-1)).argmin(1)
        return z, None, (None, None, indices)

    def get_codebook_entry(self, indices, shape=None, channel_first=True):
        entries = F.normalize(self.embedding.weight, dim=-1)[indices]
        if shape is None:
            return entries
        return entries.reshape(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)


class VQModel(nn.Module):
    def __init__(self, codebook_size, codebook_embed_dim, codebook_slots_embed_dim, transformer_config, z_channels):
        super().__init__()
        assert z_channels == 512
        self.encoder = nn.Conv2d(3, 16, 16, 16)
        self.encode_transformer = instantiate_from_config(transformer_config.encoder_config)
        self.decode_transformer = instantiate_from_config(transformer_config.decoder_config)
        self.quantize = VectorQuantizer(codebook_size, codebook_embed_dim)
        self.quant_conv = nn.Conv2d(16, codebook_embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(codebook_embed_dim, 16, 1)
        self.slot_quantize = VectorQuantizer(codebook_size, codebook_slots_embed_dim)
        self.pre_slots_quant = nn.Linear(16, codebook_slots_embed_dim)
        self.post_slots_quant = nn.Linear(codebook_slots_embed_dim, 16)
        self.decoder = nn.ConvTranspose2d(16, 3, 16, 16)

    def encode(self, x):
        assert x.shape[1:] == (3, 336, 336) and x.min() < 0
        z, slots, latent = self.encode_transformer(x, self.encoder(x))
        local, _, (_, _, z_indices) = self.quantize(self.quant_conv(z))
        queries = self.pre_slots_quant(slots).permute(0, 2, 1)[:, :, None]
        holistic, _, (_, _, q_indices) = self.slot_quantize(queries)
        return (local, holistic, latent), None, (z_indices, q_indices)

    def decode_from_indices(self, z_indices, q_indices, z_shape=None, channel_first=True):
        z = self.quantize.get_codebook_entry(z_indices, z_shape, channel_first)
        slots = self.slot_quantize.get_codebook_entry(q_indices, channel_first=False).unflatten(0, (z_shape[0], -1))
        z, recon_latent = self.decode_transformer(self.post_quant_conv(z), self.post_slots_quant(slots))
        return self.decoder(z).tanh(), recon_latent


VQ_models = {"VQ-16": VQModel}
