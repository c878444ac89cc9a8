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

    def books(self):
        return self.quantize_vis, self.quantize_sem_mid, self.quantize_sem_high

    def encode(self, x):
        parts = zip(self.books(), self.encoder(x).chunk(3, dim=1), strict=True)
        found = [quantize(part) for quantize, part in parts]
        return (*(one[0] for one in found), *(one[2] for one in found))

    def decode_code(self, indices_vis, indices_sem_mid, indices_sem_high, shape_vis=None, shape_sem_mid=None,
                    shape_sem_high=None, channel_first=True):  # fmt: skip
        given = (indices_vis, shape_vis), (indices_sem_mid, shape_sem_mid), (indices_sem_high, shape_sem_high)
        codes = [book.get_codebook_entry(*one) for book, one in zip(self.books(), given, strict=True)]
        return self.decoder(torch.cat(codes, 1)).tanh()


def VQ_8(**kwargs):
    return VQModel(ModelArgs(8, **kwargs))


def VQ_16(**kwargs):
    return VQModel(ModelArgs(16, **kwargs))


VQ_models = {"VQ-16": VQ_16, "VQ-8": VQ_8}
