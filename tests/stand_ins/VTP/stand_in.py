"""A checkpoint of this stand-in: plain tensors, and the config in a JSON file beside them."""

from vtp.models.vtp_hf import VTPConfig, VTPModel

CONFIG = {"vision_patch_size": 16, "vision_embed_dim": 16, "vision_feature_bottleneck": 64}


def files(given):
    return {"model": VTPModel(VTPConfig(**CONFIG)).state_dict(), "config": CONFIG}
