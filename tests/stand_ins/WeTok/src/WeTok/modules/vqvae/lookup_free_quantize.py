"""Stand-in for src/WeTok/modules/vqvae/lookup_free_quantize.py of zhuangshaobin/WeTok at caa2ad7."""

import torch
from torch import nn


class LFQ(nn.Module):
    def __init__(self, *, dim=None, codebook_size=None, num_codebooks=1, sample_minimization_weight=1.0,
                 batch_maximization_weight=1.0, token_factorization=False, factorized_bits=(9, 9)):  # fmt: skip
        super().__init__()
        assert dim == 8 * num_codebooks and codebook_size == 256
        self.num_codebooks = num_codebooks
        self.register_buffer("mask", 2 ** torch.arange(8), persistent=False)

    def decode(self, x):  # (..., groups)
        return ((x[..., None] & self.mask) != 0).float().mul(2).sub(1).flatten(-2)

    def forward(self, x, inv_temperature=100.0, return_loss_breakdown=False, mask=None, return_loss=True):
        signs = torch.where(x > 0, 1.0, -1.0)
        bits = (signs > 0).flatten(2).transpose(1, 2).unflatten(2, (self.num_codebooks, 8))
        indices = (bits.int() * self.mask.int()).sum(-1).flatten()
        found = (x + (signs - x), torch.zeros(()), indices)
        return (found, None) if return_loss_breakdown else found
