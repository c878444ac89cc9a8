"""Stand-in for hita/modules/pretrained_enc/models_pretrained_enc.py of CVMI-Lab/Hita at e10a95c: a tiny DINOv2."""

from torch import nn


class DinoVisionTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 16, 14, 14)

    def forward_features(self, x):
        assert x.shape[1:] == (3, 224, 224)
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        return {"x_norm_clstoken": tokens.mean(1), "x_norm_patchtokens": tokens}


def dinov2_vitl14_reg(*, pretrained=True):
    assert not pretrained, "it would download"
    return DinoVisionTransformer()
