"""Base class of priors, class-conditional models of a tokenizer's tokens, which are trained on cached tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import ModuleDict

from tokbench.errors import AdapterError
from tokbench.nn.encoded import encode_images
from tokbench.nn.trainable import Trainable, TrainingBatch, TrainingData
from tokbench.tokenizers.base import Generator, Tokenizer
from tokbench.tokenizers.import_closure import code_of_imports
from tokbench.tokenizers.tokens import Tokens
from tokbench.weights.hashing import hash_module

DROPPED = 0.1
"""Share of the examples whose class is dropped in training, so that the network is also the unconditional model of
classifier-free guidance."""


class Prior(Trainable):
    """A class-conditional distribution over one tokenizer's tokens of images of `size` x `size` px.

    An image has N = prod(place) tokens on a grid or in a sequence `place`, with G indices below K or C values each. The
    model uses them as sequences (B, N, G) or (B, N, C). Raises AdapterError if the tokenizer does not fit.
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
            raise AdapterError(f"{tokenizer.spec.name}: its tokens are not {self.wants}, as this prior requires")
        data = self._shape.tensor
        if tokenizer.spec.variable:
            raise AdapterError(f"{tokenizer.spec.name}: priors over a variable number of tokens are not implemented")
        self.grouped = not self.discrete or self._grouped(data, stream.groups)
        self.place = tuple(data.shape[1:-1] if self.grouped else data.shape[1:])
        self.count = int(torch.tensor(self.place).prod())
        self.depth = data.shape[-1] if self.grouped else 1
        self.codes = stream.codebook_size or 0
        if self.count != int(self._shape.length[0]):
            shape = tuple(data.shape[1:])
            raise AdapterError(f"{tokenizer.spec.name}: tokens of shape {shape} are not positions followed by channels")

    @staticmethod
    def _grouped(data: Tensor, groups: int) -> bool:
        """Return whether the last axis of `data` is that of the groups, of which there may be only one."""
        return groups > 1 or (data.dim() > 2 and data.shape[-1] == 1)

    def rows(self, tokens: Tokens) -> Tensor:
        """Return tokens as sequences (B, N, G) of indices or (B, N, C) of values."""
        return tokens.tensor.reshape(len(tokens), self.count, self.depth)

    def tokens(self, rows: Tensor) -> Tokens:
        """Convert sequences (B, N, G) or (B, N, C) to tokens, the inverse of `rows`."""
        last = (self.depth,) if self.grouped else ()
        data = rows.reshape(len(rows), *self.place, *last)
        if not self.discrete:
            return Tokens.from_latents(data, tokens=self.count)
        return Tokens.from_indices(data, self.codes, groups=self._shape.single_stream().groups)

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        """Return the training set with its tokens, which are encoded once and cached.

        Raises AdapterError if a label is not one of the prior's classes.
        """
        if data.labels is not None:
            least, most = (int(end) for end in data.labels.aminmax())
            if least < 0 or most >= self.classes:
                raise AdapterError(f"labels are {least} to {most}, but the classes are 0 to {self.classes - 1}")
        return replace(data, tokens=encode_dataset(self, data, device, mirrored, progress))

    def drop_labels(self, labels: Tensor) -> Tensor:
        """Replace a random share `DROPPED` of labels (B,) by `classes`, the label of no class."""
        dropped = torch.rand(len(labels), device=labels.device) < DROPPED
        return labels.where(~dropped, self.classes)

    @abstractmethod
    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tensor:
        """Sample sequences (B, N, G) or (B, N, C) of the classes `labels` (B,), one seed per image."""

    @abstractmethod
    def num_function_evaluations(self, guidance: float) -> float:
        """Return the number of passes of the network over all positions that one sample needs."""


def tokens_and_labels(batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Return tokens (B, ...) and labels (B,) of a batch. Raises AdapterError if either is missing."""
    if batch.tokens is None or batch.labels is None:
        raise AdapterError("training a prior needs tokens and class labels; use a dataset with labels")
    return batch.tokens, batch.labels


def encode_dataset(
    prior: Prior, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
) -> Tensor:
    """Encode all images; return int32 indices or float16 values, (1, N, ...) or (2, N, ...).

    The second half, if `mirrored`, holds the tokens of the mirrored images. See `encode_images` for the cache and for
    `progress`.
    """
    tokenizer = prior.tokenizer
    low, high = tokenizer.spec.range
    weights = "none"
    if tokenizer.module is not None:
        tokenizer.module.eval().to(device)
        weights = hash_module(tokenizer.module)

    def encode(images: Tensor) -> Tensor:
        tokens = prior.rows(tokenizer.encode(images * (high - low) + low))
        return tokens.int() if prior.discrete else tokens.half()

    parts = [tokenizer, *(tokenizer.module.modules() if tokenizer.module is not None else ())]
    code = code_of_imports({type(part).__module__ for part in parts}, "tokbench.nn")
    identity = (tokenizer.spec.name, weights, tokenizer.identity, code)
    return encode_images(tokenizer.spec.name, identity, encode, data, device, mirrored, progress)


class PriorGenerator(Generator):
    """The generator that consists of a trained prior and a tokenizer.

    guidance: the default guidance scale, from the TOML. tokenizer: decodes the tokens if it is not the tokenizer on
    which the prior was trained; both must encode identically.
    """

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
