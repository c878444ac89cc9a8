"""A checkpoint of this stand-in: the hub's file is a plain state dict, with the tensors that align text."""

from models.meditok import build_meditok


def files(given):
    return {"tokenizer": build_meditok().state_dict()}
