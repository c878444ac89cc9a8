"""Stand-in for tokenizer/vq_model_dual.py of showlab/FQGAN at dc34256: the same calls and names, tiny networks."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class ModelArgs:
    factor: int
    codebook_size: int = 16384
    codebook_embed_dim: int = 8
    with_clip_supervision: bool = False


class VectorQuantizer(nn.Module):
    def __init__(self, n_e, e_dim):
        super().__init__()
        self.embedding = nn.Embedding(n_e, e_dim)

    def forward(self, z):
        flat = F.normalize(z.permute(0, 2, 3, 1).flatten(0, 2), dim=-1)
        indices = torch.cdist(flat, F.normalize(self.embedding.weight, dim=-1)).argmin(1)
        return z, (None, None, None, 0), (None, None, indices)

    def get_codebook_entry(self, indices, shape=None, channel_first=True):
        batch, _, rows, columns = shape
        return F.normalize(self.embedding(indices), dim=-1).unflatten(0, (batch, rows, columns)).movedim(-1, 1)


class VQModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        print("Visual codebook")
        dim, factor = config.codebook_embed_dim, config.factor
        self.encoder = nn.Conv2d(3, 2 * dim, factor, factor)
        self.quantize_sem = VectorQuantizer(config.codebook_size, dim)
        self.quantize_vis = VectorQuantizer(config.codebook_size, dim)
        self.decoder = nn.ConvTranspose2d(2 * dim, 3, factor, factor)
        if config.with_clip_supervision:
            self.feat_pred_head = nn.Linear(dim, 1024)

    def encode(self, x):
        assert x.shape[1:] == (3, 256, 256) and x.min() < 0
        parts = zip((self.quantize_sem, self.quantize_vis), self.encoder(x).chunk(2, dim=1), strict=True)
        (semantic, _, of_semantic), (visual, _, of_visual) = (quantize(part) for quantize, part in parts)
        return semantic, visual, of_semantic, of_visual

    def decode_code(self, indices_sem, indices_vis, shape_sem=None, shape_vis=None, channel_first=True):
        semantic = self.quantize_sem.get_codebook_entry(indices_sem, shape_sem)
        visual = self.quantize_vis.get_codebook_entry(indices_vis, shape_vis)
        return self.decoder(torch.cat([visual, semantic], 1)).tanh()


def VQ_8(**kwargs):
    return VQModel(ModelArgs(8, **kwargs))


def VQ_16(**kwargs):
    return VQModel(ModelArgs(16, **kwargs))


VQ_models = {"VQ-16": VQ_16, "VQ-8": VQ_8}
