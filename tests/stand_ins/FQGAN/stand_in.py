"""A checkpoint of this stand-in, as vq_train_*.py save one: weights, zero here, their moving average, options."""

import argparse
import importlib

import torch


def files(given):
    code = importlib.import_module(f"tokenizer.vq_model_{given['books']}")
    options = {"codebook_size": given["codes"], "codebook_embed_dim": 8, "with_clip_supervision": True}
    state = code.VQ_models[f"VQ-{given['factor']}"](**options).state_dict()
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    return {"model": {"model": other, "ema": state, "steps": 3, "args": argparse.Namespace(lr=1e-4)}}
