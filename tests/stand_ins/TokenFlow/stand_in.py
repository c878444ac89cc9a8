"""A checkpoint of this stand-in, as vq_train.py saves one: weights, zero here, and their moving average."""

import torch
from torch import nn


def files(given):
    import tokenflow.tokenizer.vq_model as code

    strict, code.clip.load_clip_vision = code.clip.load_clip_vision, lambda *_: code.clip.VisionTransformer(width=8)
    module = code.VQ_models["TokenFlow"](
        codebook_size=32768, codebook_embed_dim=8, teacher=given["teacher"], enhanced_decoder=True,
        infer_interpolate=True,
    )  # fmt: skip
    code.clip.load_clip_vision = strict
    del module.encoder_vqkd.proj
    assert isinstance(module, nn.Module)
    state = module.state_dict()
    return {"model": {"model": {name: torch.zeros_like(value) for name, value in state.items()}, "ema": state}}
