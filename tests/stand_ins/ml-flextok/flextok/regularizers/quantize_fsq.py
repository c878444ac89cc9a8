"""Stand-in for flextok/regularizers/quantize_fsq.py of apple/ml-flextok at 87d00cc."""

import torch
from torch import nn


class FSQ(nn.Module):
    def __init__(self, levels):
        super().__init__()
        self.register_buffer("_levels", torch.tensor(levels, dtype=torch.int32), persistent=False)
        basis = torch.cumprod(torch.tensor([1, *levels[:-1]]), 0, dtype=torch.int32)
        self.register_buffer("_basis", basis, persistent=False)
        self.codebook_size = self._levels.prod().item()

    def forward(self, z):  # (1, N, 6)
        steps = ((z.tanh() + 1) / 2 * (self._levels - 1)).round()
        return (steps * self._basis).sum(-1).to(torch.int32).long()

    def indices_to_embedding(self, indices):
        return (indices[..., None] // self._basis) % self._levels / self._levels - 0.5
