"""A checkpoint of this stand-in, as Lightning saves one (lfqgan.py, ema.py): the model's own weights, zero here, their
moving average under names without dots, and the losses'."""

import torch
from src.WeTok.modules.diffusionmodules.improved_model import Decoder, Encoder, GANDecoder
from torch import nn


def files(given):
    shape = {"ch": 256, "out_ch": 3, "in_channels": 3, "num_res_blocks": 4, "resolution": 128}
    shape |= {"z_channels": 8 * given["model"]["groups"], "ch_mult": given["model"]["ch_mult"]}
    decoder = GANDecoder if given["model"]["generative"] else Decoder
    module = nn.ModuleDict({"encoder": Encoder(**shape), "decoder": decoder(**shape)})
    state = {name: torch.zeros_like(value) for name, value in module.state_dict().items()}
    state |= {f"model_ema.{name.replace('.', '')}": value.detach() for name, value in module.named_parameters()}
    return {"model": {"state_dict": {**state, "model_ema.decay": torch.ones(()), "loss.logit": torch.ones(2)}}}
