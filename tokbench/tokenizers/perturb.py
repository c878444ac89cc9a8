"""The interface for perturbing the tokens of a tokenizer, and Gaussian noise on latents, which needs no codebook."""

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
"""The `encode` method of a tokenizer."""
Change = Callable[[float, int], Tokens]
"""A function of alpha and delta that returns the perturbed tokens of some images."""


class Perturber(ABC):
    """Perturbs the tokens of one tokenizer.

    extension: how the perturbed metrics are named. codebook_size: the size K of the codebook, which determines the
    deltas; None for noise, which depends on alpha only.
    """

    extension: PerturbationNaming
    codebook_size: int | None

    @abstractmethod
    def prepare(self, images: Tensor, seeds: Sequence[int], most: int) -> Change:
        """Encode images (B, 3, H, W) in `spec.range`, with one seed per image, and return a function of alpha and
        delta.

        The function accepts any alpha and any delta up to `most`. At alpha 0, and for codes also at delta 1, it returns
        exactly the tokens that `encode` returns.
        """


class LatentNoise(Perturber):
    """Adds alpha times Gaussian noise to latents. Its standard deviation is that of all latent values of the same
    image."""

    codebook_size = None

    def __init__(self, name: str, encode: Encode, anchor: Anchor) -> None:
        """name: the name of the tokenizer, for messages. Raises NotApplicable for the anchor `code`."""
        if anchor == "code":
            raise NotApplicable(f"{name}: continuous tokens have no codes; use the anchor `latent`")
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


def draw_uniform(seeds: Sequence[int], positions: int, groups: int) -> tuple[Tensor, Tensor]:
    """Draw uniform numbers in [0, 1), float64 (B, N, G) each: whether each position's code is replaced, and by which
    code.

    They depend on the images' seeds only, so they are equal for every tokenizer, alpha and delta; a smaller number of
    positions or groups gives the first ones. The noise of decoders is independent of them.
    """

    def drawn(purpose: str) -> Tensor:
        each = [
            torch.rand(groups, positions, generator=_generator(seed, purpose), dtype=torch.float64) for seed in seeds
        ]
        return torch.stack(each).transpose(1, 2)

    return drawn("whether"), drawn("which")


def _generator(seed: int, purpose: str) -> torch.Generator:
    digest = hashlib.sha256(f"perturb/{purpose}/{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
