"""A checkpoint of this stand-in, as utils/misc.py saves one: weights, their moving average, the options."""

import argparse
from contextlib import chdir
from pathlib import Path

import torch


def files(given):
    with chdir(Path(__file__).parent):
        from kolmogorov_tokenizers import karl_small

        base = {"id": "vqgan", "pretrained_ckpt_path": None}
        module = karl_small(base_tokenizer_args=base, train_stage="")
    module.halting_mlp[2].weight.data.mul_(30)  # some tokens halt, wherever they are
    state = {**module.state_dict(), "gan_losses.0.logvar": torch.zeros(())}
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    return {"model": {"model": other, "ema": state, "epoch": 3, "args": argparse.Namespace(lr=1e-4)}}
