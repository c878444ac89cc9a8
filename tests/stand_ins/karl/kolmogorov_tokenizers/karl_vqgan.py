"""Stand-in for kolmogorov_tokenizers/karl_vqgan.py and modules/ of ShivamDuggal4/karl at 5c1a569: the same calls and
names, tiny networks."""

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, DIM = 16, 12


class VQGANWrapper(nn.Module):
    def __init__(self, id="vqgan", embed_dim=256, pretrained_ckpt_path="base.ckpt", is_requires_grad=False):
        super().__init__()
        assert pretrained_ckpt_path is None, "it would unpickle"
        self.vqgan = nn.Module()
        self.vqgan.encoder, self.vqgan.quantize = nn.Conv2d(3, 4, 16, 16), nn.Module()
        self.vqgan.quantize.embedding = nn.Embedding(1024, 4)
        self.vqgan.decoder = nn.ConvTranspose2d(4, 3, 16, 16)
        self.vqgan.decode = lambda quant: self.vqgan.decoder(quant).sigmoid()

    def get_img_tokens(self, imgs):
        return self.vqgan.encoder(imgs), None


class VectorQuantizer(nn.Module):
    def __init__(self, codebook_size):
        super().__init__()
        self.embedding, self.use_l2_norm = nn.Embedding(codebook_size, DIM), True

    def forward(self, z, is_quantize=True):
        flat, table = F.normalize(z.flatten(0, 1), dim=-1), F.normalize(self.embedding.weight, dim=-1)
        return z, {"min_encoding_indices": torch.cdist(flat, table).argmin(1).view(z.shape[:2])}

    def get_codebook_entry(self, indices):
        assert indices.ndim == 1
        return self.embedding(indices)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.MultiheadAttention(WIDTH, 2)

    def forward(self, x, attn_mask=None, adaln_timestep_cond=None):
        x = x.permute(1, 0, 2)
        return (x + 8 * self.mix(x, x, x, need_weights=False)[0]).permute(1, 0, 2)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.ffn = nn.MultiheadAttention(WIDTH, 2), nn.Linear(WIDTH, 1024)

    def forward(self, latent_1D_tokens, masked_2D_tokens, pos_embed_indices, adaln_timestep_cond=None, attn_mask=None):
        assert attn_mask.dtype == torch.bool and len(attn_mask) == 1, "the masks of a batch are mixed up"
        x = torch.cat([masked_2D_tokens, latent_1D_tokens + pos_embed_indices[None]], 1).permute(1, 0, 2)
        x = x + self.attn(x, x, x, need_weights=False, attn_mask=attn_mask.repeat(2, 1, 1))[0]
        return self.ffn(x.permute(1, 0, 2)[:, : masked_2D_tokens.shape[1]])


class KARLTokenizer(nn.Module):
    def __init__(self, base_tokenizer, quantize_latent=True, factorize_latent=True, vq_codebook_size=4096,
                 train_stage="latent_distillation_pretrain"):  # fmt: skip
        super().__init__()
        assert train_stage not in ("latent_distillation_pretrain", "full_finetuning"), "it would build losses"
        assert quantize_latent and factorize_latent
        self.encoder, self.decoder = Encoder(), Decoder()
        self.encoder_positional_embedding = nn.Parameter(torch.randn(WIDTH, 64, 64))
        self.decoder_positional_embedding = nn.Parameter(torch.randn(WIDTH, 64, 64))
        for name in ("encoder_ln_pre", "encoder_ln_post_halt", "encoder_ln_post"):
            setattr(self, name, nn.LayerNorm(WIDTH))
        self.pre_quantizer_mlp, self.decoder_embed = nn.Linear(WIDTH, DIM), nn.Linear(DIM, WIDTH)
        self.halting_mlp = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 1))
        self.decoder_mask_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.decoder_latent_tokens_timestep_embed = nn.Parameter(torch.randn(512, WIDTH))
        self.latent_tokens = nn.Parameter(torch.randn(512, WIDTH))
        self.patch_embed = nn.Conv2d(3, WIDTH - 4, 16, 16)
        self.rec_losses = torch.tensor([0.03, 0.05, 0.1])
        self.rec_loss_embeddings = nn.Parameter(torch.randn(3, WIDTH))
        self.quantize, self.base_tokenizer = VectorQuantizer(vq_codebook_size), base_tokenizer

    def get_2d_tokens(self, imgs):
        assert imgs.shape[1:] == (3, 256, 256) and imgs.min() >= 0
        tokens, indices = self.base_tokenizer.get_img_tokens(imgs)
        patches = self.patch_embed(imgs)
        return torch.cat([patches, tokens], 1).flatten(2).transpose(1, 2), indices, patches.shape[-2:]

    def get_positional_embeddings(self, img_tokens, grid_shape_2d):
        assert tuple(grid_shape_2d) == (16, 16)
        encoder, decoder = (
            F.interpolate(one[None], size=tuple(grid_shape_2d)).flatten(2).transpose(1, 2)
            for one in (self.encoder_positional_embedding, self.decoder_positional_embedding)
        )
        blank = self.decoder_mask_token.repeat(img_tokens.shape[0], img_tokens.shape[1], 1).to(img_tokens.dtype)
        return blank + decoder, encoder

    def get_discretized_loss_and_embedding(self, rec_loss_tensor, token_add_count=None):
        at = torch.searchsorted(self.rec_losses, rec_loss_tensor)
        assert rec_loss_tensor.ndim == 2
        return self.rec_losses[at][..., None], self.rec_loss_embeddings[at][:, :, None]

    def reconstruct_images(self, logits, code, reconstruction_shape):
        code = code.reshape(len(code), *reconstruction_shape, code.shape[-1]).permute(0, 3, 1, 2)
        return self.base_tokenizer.vqgan.decode(code)
