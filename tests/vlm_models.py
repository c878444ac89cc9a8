"""Small untrained vision-language models and prompts for tests."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tokbench.data.synthetic.scenes import caption_of, draw, make_scene
from tokbench.nn.vlm import InContextVLM, MiniVLM, VlmShape
from tokbench.pruning.vlm.mini import MiniModel, _episodes, _questions
from tokbench.pruning.vlm.model import Asked

SHAPE = VlmShape(width=24, depth=6, heads=2, vision_width=16, vision_depth=2, vision_heads=2, side=8)


def small_model(several: bool = False) -> MiniModel:
    """A model for questions, or for prompts with several images. Larger weights than usual make attention uneven."""
    torch.manual_seed(0)
    network: MiniVLM | InContextVLM = MiniVLM(SHAPE)
    if several:
        network = InContextVLM(network)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "query" in name or "key_value" in name:
                parameter.mul_(3)
    return MiniModel("small", network, "cpu", {})


def prompts(several: bool = False, count: int = 2) -> Asked:
    """Prompts after colours, or episodes, with images of 32 x 32 px."""
    scenes = [make_scene("test", place) for place in range(40 if several else count)]
    pixels = torch.stack([torch.from_numpy(draw(scene)).permute(2, 0, 1) / 127.5 - 1 for scene in scenes])
    pixels = F.avg_pool2d(pixels, 2)
    make = _episodes if several else _questions
    names = [f"{place}.png" for place in range(len(scenes))]
    found = list(make(pixels, [caption_of(scene) for scene in scenes], names, list(range(len(scenes)))))
    return next(one for one in found if one.kind in ("colour", "binding")).first(count)
