"""A checkpoint of this stand-in: the hub's file is a plain state dict."""

from modeling.titok import TiTok


def files(given):
    config = {"model": {"vq_model": given["model"]}, "dataset": {"preprocessing": {"crop_size": 256}}}
    return {"tokenizer": TiTok(config).state_dict()}
