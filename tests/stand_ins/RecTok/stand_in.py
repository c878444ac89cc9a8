"""A checkpoint of this stand-in: weights, zero here, and their moving average, with parts that only training uses."""

import torch
from models.rectok import rectok_BB


def files(given):
    state = rectok_BB(**given["model"]).state_dict()
    training = {"sem_decoders.dinov3.out.weight": torch.zeros(2)}
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    return {"tokenizer": {"model": other | training, "model_ema": state | training, "epoch": 99}}
