"""A checkpoint of this stand-in, as vq_train.py saves one: weights, zero here, their moving average, the options."""

import argparse

import torch
from tokenizer.tokenizer_image.vq.vq_vit_model import VQVitModelPlus, VQVitModelPlusArgs


def files(given):
    arguments = VQVitModelPlusArgs(model_size=None, distill_depth=3, **given["model"])
    state = VQVitModelPlus(arguments).state_dict()
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    return {"model": {"model": other, "ema": state, "steps": 3, "args": argparse.Namespace(lr=1e-4)}}
