"""Stand-in for vision_tokenizer/tokenizer/quantizer.py of huangrh99/illume at cf0676b, with few entries searched."""

import torch
from torch import nn

from tokenizer.builder import QUANTIZERS

SEARCHED = 512


@QUANTIZERS.register_module()
class SimVQ(nn.Module):
    def __init__(self, dim, codebook_size, channel_first=False, rotation_trick=True):
        super().__init__()
        assert channel_first
        assert not rotation_trick
        self.codebook_size = codebook_size
        self.code_transform = nn.Linear(dim, dim, bias=False)
        self.register_buffer("frozen_codebook", torch.randn(SEARCHED, dim) * dim**-0.5)

    def forward(self, x):
        flat = x.movedim(1, -1)
        table = self.code_transform(self.frozen_codebook)
        indices = torch.cdist(flat.flatten(0, -2), table).argmin(-1).view(flat.shape[:-1])
        return self.indices_to_codes(indices), torch.zeros(()), indices

    def indices_to_codes(self, indices):
        return self.code_transform(self.frozen_codebook[indices]).movedim(-1, 1)
