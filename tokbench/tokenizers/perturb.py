"""How a tokenizer says what its tokens become when they are perturbed, and noise, which needs no codebook."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tokbench.errors import NotApplicable
from tokbench.metric_names import EXTENSIONS, Anchor, PerturbationNaming
from tokbench.tokenizers.tokens import Tokens

Encode = Callable[[Tensor], Tokens]
"""A tokenizer's own."""
Change = Callable[[float, int], Tokens]
"""The tokens of some images at an alpha and a delta."""


class Perturber(ABC):
    """How the tokens of one tokenizer are perturbed. codebook_size: K, by which deltas are chosen; None for noise, of
    which alpha says all."""

    extension: PerturbationNaming
    codebook_size: int | None

    @abstractmethod
    def prepare(self, images: Tensor, seeds: Sequence[int], most: int) -> Change:
        """Images (B, 3, H, W) in `spec.range` and a seed for each: what their tokens become at any alpha and any delta
        up to `most`. At alpha 0, and of codes at delta 1, that is just what `encode` gives."""


class LatentNoise(Perturber):
    """Latents plus alpha times Gaussian noise of the standard deviation that all latent values of their image have."""

    codebook_size = None

    def __init__(self, name: str, encode: Encode, anchor: Anchor) -> None:
        """name: whose tokens. Raises NotApplicable for the anchor `code`."""
        if anchor == "code":
            raise NotApplicable(f"{name}: continuous tokens have no codes; their anchor is the latent")
        self._encode, self.extension = encode, EXTENSIONS["noise"]

    def prepare(self, images: Tensor, seeds: Sequence[int], most: int) -> Change:
        tokens = self._encode(images)
        stored = tokens.tensor
        latents = stored.float()
        noise = torch.stack([torch.randn(stored.shape[1:], generator=_generator(seed, "noise")) for seed in seeds])
        deviation = latents.flatten(1).std(dim=1, correction=0).view(-1, *[1] * (latents.dim() - 1))
        noise = noise.to(latents.device) * deviation

        def change(alpha: float, delta: int) -> Tokens:
            return tokens.with_data((latents + alpha * noise).to(stored.dtype))

        return change


def draws(seeds: Sequence[int], positions: int, groups: int) -> tuple[Tensor, Tensor]:
    """Whether each position's code is replaced, and by which: uniform numbers in [0, 1), float64 (B, N, G) each.

    They follow from the images' seeds and from nothing else, so they are the same for every tokenizer, alpha and delta;
    where there are fewer positions or groups, they are the first ones. Decoders draw their noise apart from them.
    """

    def drawn(what: str) -> Tensor:
        each = [torch.rand(groups, positions, generator=_generator(seed, what), dtype=torch.float64) for seed in seeds]
        return torch.stack(each).transpose(1, 2)

    return drawn("whether"), drawn("which")


def _generator(seed: int, what: str) -> torch.Generator:
    digest = hashlib.sha256(f"perturb/{what}/{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
