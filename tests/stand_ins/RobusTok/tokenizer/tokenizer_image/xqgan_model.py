"""Stand-in for tokenizer/tokenizer_image/xqgan_model.py of qiuk2/RobusTok at c4c6760 (in these calls alike in
lxa9867/ImageFolder at 76ddfb9)."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from tokenizer.tokenizer_image.dino_enc.dinov2 import DINOv2Decoder, DINOv2Encoder
from torch import nn


@dataclass
class ModelArgs:
    codebook_size: int = 16384
    codebook_embed_dim: int = 8
    v_patch_nums: list = field(default_factory=lambda: [1, 16])
    enc_type: str = "cnn"
    dec_type: str = "cnn"
    semantic_guide: str = "dinov2"
    detail_guide: str = "clip"
    num_latent_tokens: int = 256
    encoder_model: str = "vit_small_patch14_dinov2.lvd142m"
    decoder_model: str = "vit_small_patch14_dinov2.lvd142m"
    abs_pos_embed: bool = False
    product_quant: int = 1


class VectorQuantizer(nn.Module):
    def __init__(self, vocab_size, z_channels):
        super().__init__()
        self.embedding, self.z_channels = nn.Embedding(vocab_size, z_channels), z_channels
        self.register_buffer("ema_vocab_hit_SV", torch.zeros(vocab_size))

    def f_to_idxBl_or_fhat(self, z, to_fhat, v_patch_nums):
        assert not to_fhat and v_patch_nums is None
        flat = F.normalize(z.permute(0, 2, 3, 1).reshape(-1, self.z_channels), dim=-1)
        return [torch.cdist(flat, F.normalize(self.embedding.weight, dim=-1)).argmin(1)]


class VQModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        # Anything else downloads DINOv2 and CLIP, and asks torch.distributed for a rank.
        assert config.semantic_guide == config.detail_guide == "none" and config.v_patch_nums == [16]
        assert config.enc_type == config.dec_type == "dinov2" and config.product_quant == 1
        shape = {"img_size": 256, "patch_size": 16, "drop_path_rate": 0.1}
        count, places = config.num_latent_tokens, config.abs_pos_embed
        self.encoder = DINOv2Encoder(config.encoder_model, shape, count, pretrained=True, abs_pos_embed=places)
        self.decoder = DINOv2Decoder(config.decoder_model, shape, count, pretrained=True, abs_pos_embed=places)
        self.quant_conv = nn.Conv2d(8, config.codebook_embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.codebook_embed_dim, 8, 1)
        self.quantize = VectorQuantizer(config.codebook_size, config.codebook_embed_dim)

    def encode(self, x):
        return self.quant_conv(self.encoder(x).transpose(1, 2).unflatten(2, (16, 16)))

    def fhat_to_img(self, f_hat):
        assert (f_hat.norm(dim=1) - 1).abs().max() < 1e-5
        return self.decoder(self.post_quant_conv(f_hat).flatten(2).transpose(1, 2)).clamp_(-1, 1)


VQ_models = {"VQ-16": lambda **given: VQModel(ModelArgs(**given))}
