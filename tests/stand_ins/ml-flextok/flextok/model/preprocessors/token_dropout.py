"""Stand-in for flextok/model/preprocessors/token_dropout.py of apple/ml-flextok at 87d00cc."""

import torch
from torch import nn


class MaskedNestedDropout(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.eval_keep_k_read_key, self.dropout_mask_token = "eval_keep_k", nn.Parameter(torch.randn(dim))
        self.spread = nn.Linear(dim, 16)

    def forward(self, data):
        for quants, keep in zip(data["quants"], data["eval_keep_k"], strict=True):
            quants[:, keep:] = self.dropout_mask_token
        return [self.spread(quants) for quants in data["quants"]]
