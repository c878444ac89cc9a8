"""A checkpoint of this stand-in: the hub's file is a plain state dict that contains the frozen vision transformer."""

from tokenizer import quantizer
from tokenizer.builder import build_vq_model
from tokenizer.dualvitok_model import Qwen2VisionTransformerPretrainedModel, Qwen2VLVisionConfig
from utils.registry_utils import DotDict


def files(given):
    assert quantizer.SimVQ  # its import registers the class

    def build(name, attn_implementation):
        config = Qwen2VLVisionConfig()
        config._attn_implementation = attn_implementation
        return Qwen2VisionTransformerPretrainedModel(config)

    Qwen2VisionTransformerPretrainedModel.from_pretrained = build
    try:
        return {"model": build_vq_model(DotDict.convert({"type": "DualViTok", "config": given["model"]})).state_dict()}
    finally:
        del Qwen2VisionTransformerPretrainedModel.from_pretrained
