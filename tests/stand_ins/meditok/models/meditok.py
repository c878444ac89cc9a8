"""Stand-in for models/meditok.py of Masaaki-75/meditok at 0500fd7, with few entries searched."""

import torch
from torch import nn

GROUPS, WIDTH, SEARCHED = 8, 8, 64


class VectorQuantizerM(nn.Module):
    def __init__(self):
        super().__init__()
        self.codebooks = nn.Parameter(torch.randn(GROUPS, SEARCHED, WIDTH))

    def f_to_idx(self, features):
        parts = features.unflatten(2, (GROUPS, WIDTH)).permute(2, 0, 1, 3).flatten(1, 2)
        return torch.cdist(parts, self.codebooks).argmin(-1).view(GROUPS, len(features), -1).transpose(0, 1)

    def idx_to_f(self, indices):
        chosen = [book[one] for book, one in zip(self.codebooks, indices.transpose(0, 1), strict=True)]
        return torch.cat(chosen, -1)


class MedITok(nn.Module):
    def __init__(self, img_size):
        super().__init__()
        assert img_size == 256
        self.encoder = nn.Conv2d(3, GROUPS * WIDTH, 16, 16)
        self.quantizer = VectorQuantizerM()
        self.decoder = nn.ConvTranspose2d(GROUPS * WIDTH, 3, 16, 16)
        self.logit_scale = nn.Parameter(torch.ones([]))

    def img_to_idx(self, img):
        assert img.shape[1:] == (3, 256, 256)
        assert img.min() < 0
        return self.quantizer.f_to_idx(self.encoder(img).float().flatten(2).transpose(1, 2))

    def idx_to_img(self, indices):
        features = self.quantizer.idx_to_f(indices).transpose(1, 2).unflatten(2, (16, 16))
        return self.decoder(features).clamp_(-1, 1)


def build_meditok(args=None, ckpt_path=None, img_size=256, grad_ckpt=False):
    return MedITok(img_size)
