"""Stand-in for tokenizer/vq_model_triple.py of showlab/FQGAN at dc34256."""

import torch
from tokenizer.vq_model_dual import ModelArgs, VectorQuantizer
from torch import nn


class VQModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        dim, factor = config.codebook_embed_dim, config.factor
        self.encoder = nn.Conv2d(3, 3 * dim, factor, factor)
        self.quantize_vis = VectorQuantizer(config.codebook_size, dim)
        self.quantize_sem_mid = VectorQuantizer(config.codebook_size, dim)
        self.quantize_sem_high = VectorQuantizer(config.codebook_size, dim)
        self.decoder = nn.ConvTranspose2d(3 * dim, 3, factor, factor)

    def encode(self, x):
        h_vis, h_mid, h_high = self.encoder(x).chunk(3, dim=1)
        quant_vis, _, info_vis = self.quantize_vis(h_vis)
        quant_mid, _, info_mid = self.quantize_sem_mid(h_mid)
        quant_high, _, info_high = self.quantize_sem_high(h_high)
        return quant_vis, quant_mid, quant_high, info_vis, info_mid, info_high

    def decode_code(self, indices_vis, indices_sem_mid, indices_sem_high, shape_vis=None, shape_sem_mid=None,
                    shape_sem_high=None, channel_first=True):  # fmt: skip
        quants = [
            self.quantize_vis.get_codebook_entry(indices_vis, shape_vis, channel_first),
            self.quantize_sem_mid.get_codebook_entry(indices_sem_mid, shape_sem_mid, channel_first),
            self.quantize_sem_high.get_codebook_entry(indices_sem_high, shape_sem_high, channel_first),
        ]
        return self.decoder(torch.cat(quants, dim=1)).tanh()


def VQ_8(**kwargs):
    return VQModel(ModelArgs(8, **kwargs))


def VQ_16(**kwargs):
    return VQModel(ModelArgs(16, **kwargs))


VQ_models = {"VQ-16": VQ_16, "VQ-8": VQ_8}
