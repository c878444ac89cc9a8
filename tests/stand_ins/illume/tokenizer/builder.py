"""Stand-in for vision_tokenizer/tokenizer/builder.py of huangrh99/illume at cf0676b."""

from utils.registry_utils import Registry, build_from_cfg

MODELS = QUANTIZERS = Registry()


def build_vq_model(model_cfg):
    return build_from_cfg(model_cfg, MODELS)


build_quantizer = build_vq_model
