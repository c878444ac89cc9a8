"""Stand-in for models/meditok.py of Masaaki-75/meditok at d5479ca: the same calls and names, tiny networks."""

import torch
import torch.nn.functional as F
from torch import nn


class DotDict:
    def __init__(self, dictionary):
        self.__dict__.update(dictionary)


class VectorQuantizer(nn.Module):
    def __init__(self, vocab_size, vocab_width):
        super().__init__()
        self.register_buffer("vocab_usage", torch.zeros(vocab_size))
        self.codebook = nn.Embedding(vocab_size, vocab_width)

    def f_to_idx(self, features):
        return (F.normalize(features, dim=-1) @ F.normalize(self.codebook.weight, dim=1).T).argmax(-1)


class VectorQuantizerM(nn.Module):
    def __init__(self, vocab_size, vocab_width, num_codebooks):
        super().__init__()
        self.num_codebooks = num_codebooks
        sizes = vocab_size // num_codebooks, vocab_width // num_codebooks
        self.codebooks = nn.ModuleList(VectorQuantizer(*sizes) for _ in range(num_codebooks))

    def f_to_idx(self, features):
        parts = features.chunk(self.num_codebooks, dim=-1)
        return torch.stack([book.f_to_idx(part) for book, part in zip(self.codebooks, parts, strict=True)], dim=1)

    def idx_to_f(self, indices):
        assert indices.shape[1] == self.num_codebooks
        parts = [F.normalize(book.codebook(indices[:, i].flatten(1)), dim=-1) for i, book in enumerate(self.codebooks)]
        return torch.cat(parts, dim=-1)


class MedITok(nn.Module):
    def __init__(self, args):
        super().__init__()
        assert (args.model, args.num_query, args.quant_proj) == ("vitamin_large", 0, "attn")
        self.size = args.img_size
        self.encoder = nn.Conv2d(3, 8, 16, 16)
        self.quant_proj = nn.Linear(8, args.vocab_width)
        self.quantizer = VectorQuantizerM(args.vocab_size, args.vocab_width, args.num_codebooks)
        self.post_quant_proj = nn.Linear(args.vocab_width, 8)
        self.decoder = nn.Linear(8, 3 * 16 * 16)
        if not args.drop_alignment:
            self.fc_norm, self.projection = nn.LayerNorm(8), nn.Linear(8, 4)
            self.logit_scale = nn.Parameter(torch.ones([]))

    def img_to_idx(self, img):
        assert img.shape[1:] == (3, self.size, self.size) and img.min() >= -1 and img.max() <= 1
        return self.quantizer.f_to_idx(self.quant_proj(self.encoder(img).flatten(2).transpose(1, 2)))

    def idx_to_img(self, indices):
        patches = self.decoder(self.post_quant_proj(self.quantizer.idx_to_f(indices)))
        return F.fold(patches.transpose(1, 2), (self.size, self.size), 16, stride=16).clamp_(-1, 1)


def get_meditok_args(img_size=256, grad_ckpt=False):
    return DotDict(
        {
            "embed_dim": 768, "num_query": 0, "model": "vitamin_large", "img_size": img_size, "vocab_size": 32768,
            "vocab_width": 64, "num_codebooks": 8, "quant_proj": "attn", "drop_alignment": False,
        }
    )  # fmt: skip


def build_meditok(args=None, ckpt_path=None, img_size=256, grad_ckpt=False):
    assert ckpt_path is None, "the weights are read elsewhere, without executing anything"
    return MedITok(args or get_meditok_args(img_size, grad_ckpt))
