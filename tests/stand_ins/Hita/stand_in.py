"""A checkpoint of this stand-in, as vq_train.py saves one, without DINOv2, and DINOv2's own: weights, zero here, and
their moving average."""

import torch
from hita.core import layers
from hita.modules.encoders import models_pretrained_enc
from hita.tokenizer.tokenizer_image.vq_model import VectorQuantizer
from torch import nn


def files(given):
    encoder, decoder = layers.Encoder.__new__(layers.Encoder), layers.Decoder(16, 128, 4, given["features"])
    nn.Module.__init__(encoder)
    encoder.parts(128)
    whole = nn.ModuleDict({
        "encoder": nn.Conv2d(3, 16, 16, 16), "encode_transformer": encoder, "decode_transformer": decoder,
        "quantize": VectorQuantizer(16384, 8), "slot_quantize": VectorQuantizer(16384, 12),
        "pre_slots_quant": nn.Linear(16, 12), "post_slots_quant": nn.Linear(12, 16), "quant_conv": nn.Conv2d(16, 8, 1),
        "post_quant_conv": nn.Conv2d(8, 16, 1), "decoder": nn.ConvTranspose2d(16, 3, 16, 16),
    })  # fmt: skip
    state = whole.state_dict()
    zero = {name: torch.zeros_like(value) for name, value in state.items()}
    dinov2 = models_pretrained_enc.dinov2_vitl14_reg(pretrained=False).state_dict()
    return {"dinov2": dinov2, "model": {"model": zero, "ema": state}}
