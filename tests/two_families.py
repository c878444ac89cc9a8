"""Two families of adapters that are trained in a second, one built on the other."""

from __future__ import annotations

from pathlib import Path

from image_files import write_noise

ADAPTER = """
import torch
from tokbench.nn.trainable import Trainable
from tokbench.tokenizers.base import Tokenizer, TokenizerSpec
from tokbench.tokenizers.tokens import Tokens
from tokbench.training.zoo import base, load_trained


class Model(Trainable):
    def __init__(self, below):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(4))
        self.bases = {"below": below} if below is not None else {}

    def loss(self, batch, progress):
        return {"weight": (self.weight - batch.images.mean()).square().sum()}


class Loaded(Tokenizer):
    def __init__(self, name, model):
        self.spec = TokenizerSpec(name, kind="continuous", range=(-1.0, 1.0))
        self.module = self.model = model

    def encode(self, images):
        return Tokens.from_latents(images.mean((2, 3)), tokens=1)

    def decode(self, tokens, seeds):
        return tokens.tensor.float()[:, :, None, None].expand(-1, -1, 16, 16) + self.model.weight[:3, None, None]


def model(variant):
    return Model(base(variant, torch.nn.Module) if "base" in variant.config else None)


def load(variant, device):
    return Loaded(variant.name, load_trained(variant, model(variant)))
"""


def write_two_families(root: Path, photos: Path) -> None:
    """Write the families `lower` and `upper` with a variant `v1` each, of which `upper.v1` is built on `lower.v1`, and
    six images."""
    for family, settings in (("lower", ""), ("upper", 'base = "lower.v1"\n')):
        folder = root / "adapters" / family
        folder.mkdir(parents=True)
        (folder / "adapter.py").write_text(ADAPTER)
        (folder / "v1.toml").write_text(f"{settings}[training]\nbatch = 2\nimages = 40\n")
    write_noise(photos, 6, 16)
