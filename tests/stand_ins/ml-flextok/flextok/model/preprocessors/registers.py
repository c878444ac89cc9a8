"""Stand-in for flextok/model/preprocessors/registers.py of apple/ml-flextok at 87d00cc."""

from torch import nn


class Registers1D(nn.Module):
    def __init__(self, n_max, dim):
        super().__init__()
        self.n_max, self.squeeze = n_max, nn.Linear(dim, 6)

    def forward(self, latents):
        return [self.squeeze(one.flatten(2).transpose(1, 2)[:, : self.n_max]) for one in latents]
