"""A checkpoint of this stand-in: the hub's file is a plain state dict."""

from models.meditok import build_meditok


def files(given):
    assert given["commit"] == "0500fd7"
    return {"model": build_meditok(img_size=256).state_dict()}
