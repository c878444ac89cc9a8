"""Stand-in for hita/modules/encoders/pretrained_enc_arch.py of CVMI-Lab/Hita at e10a95c."""

import torch.nn.functional as F
from hita.modules.encoders import models_pretrained_enc as models_pretrained_enc
from torch import nn


class AbstractEmbModel(nn.Module):
    is_trainable = None


class SelfSupervisedCondtionEmbedder(AbstractEmbModel):
    def __init__(self, pretrained_enc_arch, pretrained_enc_path, pretrained_enc_withproj=False, proj_dim=768):
        raise AssertionError("it would read a fixed path and move itself to CUDA")

    def preprocess(self, x):
        x = F.interpolate(x, (224, 224), mode="bicubic", align_corners=True, antialias=self.antialias)
        return (x.clamp(min=-1, max=1) + 1.0) / 2.0
