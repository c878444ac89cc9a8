"""A checkpoint of this stand-in, as xqgan_train.py saves one, DINOv2 included: weights, zero here, and their moving
average."""

import tokenizer.tokenizer_image.dino_enc.dinov2 as dinov2
import torch
from tokenizer.tokenizer_image.xqgan_model import VQ_models
from torch import nn


def files(given):
    strict, dinov2.create_model = dinov2.create_model, lambda *_, **__: nn.Conv2d(3, 8, 16, 16)
    name = "vit_base_patch14_dinov2.lvd142m"
    module = VQ_models["VQ-16"](
        codebook_size=given["codes"], codebook_embed_dim=given["dim"], v_patch_nums=[16], enc_type="dinov2",
        dec_type="dinov2", semantic_guide="none", detail_guide="none", encoder_model=name, decoder_model=name,
        abs_pos_embed=True,
    )  # fmt: skip
    dinov2.create_model = strict
    state = {**module.state_dict(), "semantic_model.cls_token": torch.zeros(2)}
    return {"model": {"model": {name: torch.zeros_like(value) for name, value in state.items()}, "ema": state}}
