"""Stand-in for tokenflow/tokenizer/vq_model.py of ByteFlow-AI/TokenFlow at 9812da0: the same calls and names, tiny
networks."""

import torch
import torch.nn.functional as F
from torch import nn

from . import clip


class SiglipVisionConfig:
    pass


class SiglipVisionModel:
    @staticmethod
    def from_pretrained(name):
        raise AssertionError("it would download")


class VectorQuantizer(nn.Module):
    def __init__(self, n_e, split):
        super().__init__()
        self.split = split
        self.embedding_vqkd = nn.Embedding(n_e, split[0])
        self.embedding_vqgan = nn.Embedding(n_e, split[1])
        self.register_buffer("codebook_used", torch.zeros(16))

    def table(self):
        parts = (self.embedding_vqkd, self.embedding_vqgan)
        return torch.cat([F.normalize(part.weight, dim=-1) for part in parts], dim=-1)

    def forward(self, z):
        flat = z.permute(0, 2, 3, 1)
        flat = torch.cat([F.normalize(part, dim=-1) for part in flat.split(self.split, dim=-1)], dim=-1)
        indices = torch.cdist(flat.flatten(0, 2), self.table()).argmin(1)
        return self.table()[indices].view(flat.shape).permute(0, 3, 1, 2), indices

    def get_codebook_entry(self, indices, shape=None, channel_first=True):
        return self.table()[indices]


class TokenFlow(nn.Module):
    def __init__(self, teacher, codebook_size, codebook_embed_dim, semantic_code_dim, infer_interpolate):
        super().__init__()
        print("Using 2 times enhanced pixel decoder")
        assert teacher == "clipb_224" and infer_interpolate
        self.scale_rq_layers = [1, 2, 4, 6, 8, 10, 12, 14, 16]
        self.encoder_vqkd = clip.load_clip_vision("ViT-B/16", "./clip_model")
        self.encode_task_layer = nn.Linear(8, semantic_code_dim)
        self.encoder = nn.Conv2d(3, codebook_embed_dim, 16, 16)
        self.quantize = VectorQuantizer(codebook_size, [semantic_code_dim, codebook_embed_dim])
        self.decoder = nn.ConvTranspose2d(codebook_embed_dim, 3, 16, 16)

    def encode(self, x):
        assert x.shape[1:] == (3, 256, 256) and x.min() < 0
        semantic = self.encode_task_layer(self.encoder_vqkd(x, return_patch_tokens=True))
        semantic = semantic.transpose(1, 2).unflatten(2, (16, 16))
        residual, total, found = torch.cat([semantic, self.encoder(x)], 1), 0.0, []
        for side in self.scale_rq_layers:
            quantized, indices = self.quantize(F.interpolate(residual, size=(side, side), mode="area"))
            quantized = F.interpolate(quantized, size=(16, 16), mode="bicubic")
            total, residual = total + quantized, residual - quantized
            found.append(indices.reshape(-1, side**2))
        return total, [None], torch.cat(found, 1)

    def decode(self, quant):
        semantic, pixels = quant.split(self.quantize.split, dim=1)
        return semantic, self.decoder(pixels).tanh()


def TokenFlowFunc(
    codebook_size, codebook_embed_dim, teacher, enhanced_decoder, infer_interpolate, semantic_code_dim=32
):
    assert enhanced_decoder
    return TokenFlow(teacher, codebook_size, codebook_embed_dim, semantic_code_dim, infer_interpolate)


VQ_models = {"TokenFlow": TokenFlowFunc}
