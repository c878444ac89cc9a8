"""Stand-in for tokenizer/tokenizer_image/vq/vq_vit_model.py of SilentView/GigaTok at 182920c."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class VQVitModelPlusArgs:
    codebook_size: int = 16384
    codebook_embed_dim: int = 8
    codebook_l2_norm: bool = True
    codebook_show_usage: bool = True
    commit_loss_beta: float = 0.25
    entropy_loss_ratio: float = 0.0
    encoder_ch_mult: list = field(default_factory=lambda: [1, 1, 2, 2, 4])
    decoder_ch_mult: list = field(default_factory=lambda: [1, 1, 2, 2, 4])
    model_size: str = "small"
    encoder_size: str = None
    decoder_size: str = None
    num_latent_tokens: int = 256
    z_channels: int = 256
    dropout_p: float = 0.0
    multi_level_query_init: bool = False
    last_level_2d_query_init: bool = False
    multi_level_2d_query_init: bool = False
    adaptive_gn: bool = False
    d2s_up: bool = False
    use_attn: bool = True
    rot: bool = False
    distill_depth: int = None
    out_inner_dim: int = 768


class VectorQuantizer(nn.Module):
    def __init__(self, codes, dim):
        super().__init__()
        self.embedding = nn.Embedding(codes, dim)
        self.register_buffer("codebook_used", nn.Parameter(torch.zeros(65536)))

    def forward(self, z):
        flat = F.normalize(z.permute(0, 2, 3, 1).flatten(0, 2), dim=-1)
        indices = torch.cdist(flat, F.normalize(self.embedding.weight, dim=-1)).argmin(1)
        return z, (None, None, 0, None, 0), (None, None, indices)

    def get_codebook_entry(self, indices, shape=None, channel_first=True):
        batch, _, rows, columns = shape
        return F.normalize(self.embedding(indices), dim=-1).unflatten(0, (batch, rows, columns)).movedim(-1, 1)


class VQVitModelPlus(nn.Module):
    def __init__(self, config):
        super().__init__()
        assert config.model_size is None and not config.use_attn and config.rot
        self.config = config
        self.quant_conv = nn.Conv2d(3, config.codebook_embed_dim, 16, 16)
        self.quantize = VectorQuantizer(config.codebook_size, config.codebook_embed_dim)
        self.s1to2decoder = nn.ModuleDict({"embed": nn.Linear(config.codebook_embed_dim, 768)})
        if config.distill_depth is not None:
            self.s1to2decoder["distill_mlp"] = nn.Linear(8, config.out_inner_dim)

    def encode(self, x, return_code=True, num_en_q_level=None, causal_type=None):
        assert x.shape[1:] == (3, 256, 256) and x.min() < 0
        return self.quantize(self.quant_conv(x).flatten(2)[:, :, None])

    def decode_code(self, code_b, shape=None, channel_first=True):
        assert code_b.ndim == 1 and tuple(shape[1:]) == (8, 1, 256)
        quant = self.quantize.get_codebook_entry(code_b, shape, channel_first)
        patches = self.s1to2decoder["embed"](quant[:, :, 0].transpose(1, 2))
        return F.fold(patches.transpose(1, 2), (256, 256), 16, stride=16).tanh()
