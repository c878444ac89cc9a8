"""What every prior is: a model of a tokenizer's tokens given a class, trained on tokens that are encoded once."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import ModuleDict

from tokbench import nn
from tokbench.errors import AdapterError
from tokbench.io.atomic import atomic_path
from tokbench.io.hashing import code_of
from tokbench.nn.trainable import Trainable, TrainingBatch, TrainingData
from tokbench.paths import cache_dir, slug
from tokbench.tokenizers.base import Generator, Tokenizer
from tokbench.tokenizers.tokens import Tokens
from tokbench.weights.hashing import hash_module

DROPPED = 0.1
"""Share of the examples whose class is hidden in training, so that the same network knows what guidance leads away
from."""

_TOGETHER = 64


class Prior(Trainable):
    """A distribution over the tokens of one tokenizer at one size of image, for each of `classes` classes.

    Images of `size` px have tokens (*place) of G indices below K (or of C values), N = prod(place) of them; the model
    sees rows (B, N, G) or (B, N, C).
    """

    wants: Literal["discrete", "continuous"] = "discrete"

    def __init__(self, tokenizer: Tokenizer, size: int, classes: int) -> None:
        super().__init__()
        self.tokenizer, self.size, self.classes = tokenizer, size, classes
        if tokenizer.module is not None:
            self.bases = {"tokenizer": tokenizer.module}
        if tokenizer.spec.size not in (None, size):
            raise AdapterError(f"{tokenizer.spec.name} takes images of {tokenizer.spec.size} px, not {size}")
        with torch.no_grad():
            low, high = tokenizer.spec.range
            blank = torch.full((1, 3, size, size), (low + high) / 2)
            if tokenizer.module is not None:
                tokenizer.module.eval()
            self._shape = tokenizer.encode(blank)
        stream = self._shape.single_stream()
        self.discrete = stream.kind == "index"
        if stream.kind != ("index" if self.wants == "discrete" else "latent"):
            raise AdapterError(f"{tokenizer.spec.name}: this prior is for {self.wants} tokens, and these are no such")
        data = self._shape.tensor
        if tokenizer.spec.variable:
            raise AdapterError(f"{tokenizer.spec.name}: a prior over tokens of unequal number is not implemented")
        self.grouped = not self.discrete or self._grouped(data, stream.groups)
        self.place = tuple(data.shape[1:-1] if self.grouped else data.shape[1:])
        self.count = int(torch.tensor(self.place).prod())
        self.depth = data.shape[-1] if self.grouped else 1
        self.codes = stream.codebook_size or 0
        if self.count != int(self._shape.length[0]):
            shape = tuple(data.shape[1:])
            raise AdapterError(f"{tokenizer.spec.name}: tokens {shape} are not laid out as places and then channels")

    @staticmethod
    def _grouped(data: Tensor, groups: int) -> bool:
        """Whether the last axis is one of groups, of which there may be one."""
        return groups > 1 or (data.dim() > 2 and data.shape[-1] == 1)

    def rows(self, tokens: Tokens) -> Tensor:
        """What `tokens` hold, as rows (B, N, G) or (B, N, C)."""
        return tokens.tensor.reshape(len(tokens), self.count, self.depth)

    def tokens(self, rows: Tensor) -> Tokens:
        """The inverse of `rows`."""
        last = (self.depth,) if self.grouped else ()
        data = rows.reshape(len(rows), *self.place, *last)
        if not self.discrete:
            return Tokens.from_latents(data, tokens=self.count)
        return Tokens.from_indices(data, self.codes, groups=self._shape.single_stream().groups)

    def prepare_data(
        self, material: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        """The material with its tokens, encoded once and kept in the cache.

        Raises AdapterError for labels that are none of the prior's classes.
        """
        if material.labels is not None:
            least, most = (int(end) for end in material.labels.aminmax())
            if least < 0 or most >= self.classes:
                raise AdapterError(f"labels are {least} to {most}, and the prior has {self.classes} classes from 0 on")
        return replace(material, tokens=encoded(self, material, device, mirrored, progress))

    def hidden(self, labels: Tensor) -> Tensor:
        """Labels (B,) of which some are replaced by `classes`, which stands for none."""
        dropped = torch.rand(len(labels), device=labels.device) < DROPPED
        return labels.where(~dropped, self.classes)

    @abstractmethod
    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tensor:
        """Rows (B, N, G) or (B, N, C) of the classes `labels` (B,), each from its own seed."""

    @abstractmethod
    def num_function_evaluations(self, guidance: float) -> float:
        """Passes of the network over all positions that a sample takes."""


def examples_of(batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Tokens (B, ...) and labels (B,) of a batch. Raises AdapterError where it has none."""
    if batch.tokens is None or batch.labels is None:
        raise AdapterError("a prior is trained on tokens and classes; the data set must tell the classes")
    return batch.tokens, batch.labels


@torch.inference_mode()
def encoded(
    prior: Prior, material: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
) -> Tensor:
    """The tokens of all images as rows, (1, N, ...) or, with those of the mirrored images behind them, (2, N, ...).

    int32 indices or float16 values. They are kept in the cache, a block of images a file, by hashes of images and of
    the tokenizer's weights and code; an interrupted call goes on from the last block.
    """
    tokenizer = prior.tokenizer
    folder = cache_dir() / "tokens" / f"{slug(tokenizer.spec.name)}-{_key(tokenizer, material, device)}"
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer.module is not None:
        tokenizer.module.eval().to(device)
    sides, total, done = [], len(material) * (2 if mirrored else 1), 0
    for mirror in (False, True)[: 2 if mirrored else 1]:
        made = []
        for number, block in enumerate(material.pixels.split(BLOCK)):
            path = folder / f"{'mirrored' if mirror else 'plain'}-{number:05d}.safetensors"
            rows = _kept(path)
            if rows is None:
                rows = _rows(prior, block.flip(3) if mirror else block, device)
                with atomic_path(path) as part:
                    save_file({"tokens": rows}, part)
            made.append(rows)
            done += len(block)
            progress(done, total)
        sides.append(torch.cat(made))
    return torch.stack(sides)


BLOCK = 2048
"""Images of which the tokens lie in one file."""


def _key(tokenizer: Tokenizer, material: TrainingData, device: str) -> str:
    weights = hash_module(tokenizer.module) if tokenizer.module is not None else "none"
    code = code_of(Path(nn.__file__).parent)
    told = (tokenizer.spec.name, weights, tokenizer.identity, code, material.sha256, device.partition(":")[0])
    return hashlib.sha256("/".join(told).encode()).hexdigest()[:24]


def _rows(prior: Prior, pixels: Tensor, device: str) -> Tensor:
    """Tokens of uint8 pixels (N, 3, H, W), as they are kept."""
    low, high = prior.tokenizer.spec.range
    made = []
    for some in pixels.split(_TOGETHER):
        images = some.to(device).float().div_(255).mul_(high - low).add_(low)
        found = prior.rows(prior.tokenizer.encode(images)).cpu()
        made.append(found.int() if prior.discrete else found.half())
    return torch.cat(made)


def _kept(path: Path) -> Tensor | None:
    """What a file holds; None where it is not there, or damaged."""
    try:
        return load_file(path)["tokens"]
    except (OSError, SafetensorError, KeyError):
        return None


class PriorGenerator(Generator):
    """The generator of a trained prior. guidance: its own scale, as its TOML says. tokenizer: that decodes, where it is
    not the one whose tokens were learned, but encodes alike."""

    def __init__(self, name: str, prior: Prior, guidance: float, tokenizer: Tokenizer | None = None) -> None:
        self.prior, self.tokenizer = prior, tokenizer or prior.tokenizer
        self.classes, self.guidance = prior.classes, guidance
        below = {} if self.tokenizer.module is None else {"tokenizer": self.tokenizer.module}
        self.module = ModuleDict({"prior": prior, **below})
        self.spec = replace(self.tokenizer.spec, name=name, prefixes=False)

    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tokens:
        return self.prior.tokens(self.prior.sample(labels, seeds, guidance))

    def num_function_evaluations(self, guidance: float) -> float:
        return self.prior.num_function_evaluations(guidance)
