"""Stand-in for flextok/flextok_wrapper.py of apple/ml-flextok at 87d00cc: the same calls and names, tiny networks."""

import copy
import importlib
from functools import partial

import torch
from torch import nn


def instantiate(config):
    """What Hydra's does with a config: imports each `_target_` and calls it with the rest."""
    if not isinstance(config, dict):
        return config
    given = {key: instantiate(value) for key, value in config.items()}
    if "_target_" not in given:
        return given
    module, _, name = given.pop("_target_").rpartition(".")
    called = getattr(importlib.import_module(module), name)
    return partial(called, **given) if given.pop("_partial_", False) else called(**given)


class FlexTok(nn.Module):
    def __init__(self, vae, encoder, decoder, regularizer, flow_matching_noise_module, pipeline):
        super().__init__()
        self.vae, self.encoder, self.decoder, self.regularizer = vae, encoder, decoder, regularizer
        self.pipeline = pipeline(model=self.decoder)

    @property
    def downsample_factor(self):
        return 8

    def tokenize(self, images):
        data = self.vae.encode({"rgb": images.split(1)})
        latents = self.encoder(data)
        return [self.regularizer(one) for one in latents]

    def detokenize(self, token_ids_list, vae_image_sizes=32, **kwargs):
        most = self.encoder.module_dict["enc_register_module"].n_max
        padded = [torch.cat([t, t.new_zeros(1, most - t.shape[1])], 1) for t in token_ids_list]
        data = {"quants": [self.regularizer.indices_to_embedding(t) for t in padded]}
        data["eval_keep_k"] = [t.shape[1] for t in token_ids_list]
        latents = self.pipeline(data, vae_image_sizes=vae_image_sizes, **kwargs)
        return torch.cat(self.vae.decode(latents))


class FlexTokFromHub(FlexTok):
    def __init__(self, config):
        config = copy.deepcopy(config)
        parts = ("vae", "encoder", "decoder", "regularizer", "flow_matching_noise_module", "pipeline")
        super().__init__(**{part: instantiate(config[part]) for part in parts})
