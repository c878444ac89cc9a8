"""A checkpoint of this stand-in: plain tensors, and the config in a JSON file beside them."""

from uniflow.configuration_uniflow import UniFlowVisionConfig
from uniflow.modeling_uniflow import UniFlowVisionModel

CONFIG = {"vit_hidden_size": 16, "patch_size": 14, "image_size": 448, "latent_ch": 64, "num_sampling_steps": "1"}


def files(given):
    return {"model": UniFlowVisionModel(UniFlowVisionConfig(**CONFIG)).state_dict(), "config": CONFIG}
