"""What a reduction of visual tokens needs from a vision-language model: embedded prompts, layers and attention rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tokbench.data.dataset import Dataset
from tokbench.pruning.vit import Attended


@dataclass(frozen=True)
class DecoderSizes:
    """Dimensions of a decoder.

    width: D. inner: all heads' queries, heads x head width. key_values: width of all keys, as of all values. hidden:
    hidden width of the MLPs. matrices: matrices of an MLP, 3 if it is gated. bytes: of a number in the KV cache.
    """

    depth: int
    width: int
    inner: int
    key_values: int
    hidden: int
    matrices: int
    bytes: int = 4


FORMULA = (
    "2 (2 n D A + 2 n D G + 2 n^2 A + m n D h) for each layer of the decoder, n the tokens that enter it, A and G the "
    "widths of all queries and of all keys, m the matrices of the MLP and h its hidden width; summed over a "
    "prefill. The image encoder, the projector, norms, softmax, the output layer and what chooses tokens do not count"
)


def flops(sizes: DecoderSizes, lengths: Sequence[int]) -> int:
    """Return the FLOPs of a prefill by FORMULA. lengths: the tokens that enter each layer."""
    d, a, g = sizes.width, sizes.inner, sizes.key_values
    return sum(
        2 * (2 * n * d * a + 2 * n * d * g + 2 * n * n * a + sizes.matrices * n * d * sizes.hidden) for n in lengths
    )


def kv_bytes(sizes: DecoderSizes, lengths: Sequence[int]) -> int:
    """Return the bytes of keys and values of a prompt whose layers have these lengths."""
    return sum(2 * n * sizes.key_values * sizes.bytes for n in lengths)


@dataclass(frozen=True)
class Visual:
    """One image of each of B prompts, as the image encoder sees it.

    seen: attention of the encoder's last used layer over `prefix` tokens (CLS) and N patches; None if it is unknown.
    pixels: (B, 3, H, W) in [0, 1], without the encoder's normalization. grid: rows and columns of the N tokens.
    """

    seen: Attended | None
    prefix: int
    pixels: Tensor
    grid: tuple[int, int]

    def select(self, rows: Tensor) -> Visual:
        """Return the images of some prompts."""
        seen = self.seen
        if seen is not None:
            seen = Attended(seen.query[rows], seen.key[rows], seen.value[rows], seen.bias)
        return replace(self, seen=seen, pixels=self.pixels[rows])


@dataclass(frozen=True)
class Prompt:
    """B embedded prompts of n tokens each.

    hidden: (B, n, D). positions: (..., B, n), as the decoder takes them. image: int64 (B, n), the number of the image
    that a token belongs to, -1 for text. follows: int64 (B, n), the number of the image that a word follows, -1 before
    the first. visual: the images. seeds: one number per prompt, for methods that sample. following: where the next word
    lies, as the model defines it. scores: (B, n), what a method attaches to the tokens for its later stages.
    """

    hidden: Tensor
    positions: Tensor
    image: Tensor
    follows: Tensor
    visual: tuple[Visual, ...]
    seeds: Tensor
    following: Any = None
    scores: Tensor | None = None

    @property
    def total(self) -> int:
        """The number of visual tokens of a prompt before any reduction."""
        return sum(one.grid[0] * one.grid[1] for one in self.visual)

    @property
    def images(self) -> int:
        return len(self.visual)

    def tokens(self, image: int) -> Tensor:
        """Return the visual tokens of one image, (B, N, D). Each prompt must have equally many."""
        return self.hidden[self.image == image].unflatten(0, (len(self.hidden), -1))

    def words(self, image: int) -> Tensor:
        """Return the words after one image, (B, T, D)."""
        return self.hidden[(self.follows == image) & (self.image < 0)].unflatten(0, (len(self.hidden), -1))

    def select(self, mask: Tensor) -> Prompt:
        """Return the tokens where `mask` (B, n) is true, in order; each prompt must keep equally many."""
        places = mask.nonzero()[:, 1].unflatten(0, (len(mask), -1))
        return replace(
            self,
            hidden=self.hidden.gather(1, places[..., None].expand(-1, -1, self.hidden.shape[2])),
            positions=self.positions.gather(-1, places.expand(*self.positions.shape[:-1], -1)),
            image=self.image.gather(1, places),
            follows=self.follows.gather(1, places),
            scores=None if self.scores is None else self.scores.gather(1, places),
        )

    def rows(self, rows: Tensor) -> Prompt:
        """Return some of the prompts."""
        return replace(
            self,
            hidden=self.hidden[rows],
            positions=self.positions[..., rows, :],
            image=self.image[rows],
            follows=self.follows[rows],
            visual=tuple(one.select(rows) for one in self.visual),
            seeds=self.seeds[rows],
            scores=None if self.scores is None else self.scores[rows],
        )


@dataclass(frozen=True)
class Asked:
    """B prompts of one type with their answers.

    ids: unique names. images: (B, M, 3, H, W) in [-1, 1]. texts: for each of the M images, what follows it, one text
    per prompt. answers: (B,) words. seeds: int64 (B,).
    """

    kind: str
    ids: tuple[str, ...]
    images: Tensor
    texts: tuple[tuple[tuple[str, ...], ...], ...]
    answers: tuple[str, ...]
    seeds: Tensor

    def at(self, place: int) -> Asked:
        """Return one prompt alone."""
        return self._between(place, place + 1)

    def first(self, count: int) -> Asked:
        """Return the first `count` prompts."""
        return self._between(0, count)

    def _between(self, start: int, stop: int) -> Asked:
        chosen = slice(start, stop)
        texts = tuple(texts[chosen] for texts in self.texts)
        return Asked(self.kind, self.ids[chosen], self.images[chosen], texts, self.answers[chosen], self.seeds[chosen])


@dataclass
class VisionLanguageModel(ABC):
    """A vision-language model whose decoder is run layer by layer.

    name: in results. side: height and width of its images in pixels. weights: SHA-256 by file. calibration: name of the
    data set of training images for methods with parameters.
    """

    name: str
    sizes: DecoderSizes
    side: int
    device: str
    weights: dict[str, str] = field(default_factory=dict)
    calibration: str = "scenes-train"

    @abstractmethod
    def questions(self, dataset: Dataset, batch: int) -> Iterator[Asked]:
        """Yield all prompts of a data set; all prompts of one `Asked` have equally many words."""

    @abstractmethod
    def embed(self, asked: Asked, side: int) -> Prompt:
        """Return the embedded prompts, with images resized to `side` px. This runs the image encoder."""

    @abstractmethod
    def sides(self) -> Sequence[tuple[int, int]]:
        """Return the image sides that the encoder takes, and the visual tokens per image at each."""

    @abstractmethod
    def cache(self) -> Any:
        """Return an empty KV cache."""

    @abstractmethod
    def split_cache(self, cache: Any, rows: Tensor) -> Any:
        """Return the cache of some of the prompts."""

    @abstractmethod
    def fork_cache(self, cache: Any) -> Any:
        """Return a cache with the same content; what is appended to it does not change the given one."""

    @abstractmethod
    def layer(self, index: int, hidden: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Run one layer on (B, n, D), append its keys and values to the cache, and return (B, n, D)."""

    @abstractmethod
    def attended(self, index: int, hidden: Tensor, positions: Tensor) -> Attended:
        """Return queries and keys of a layer for its inputs (B, n, D)."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Return the logits (B, V) of the last layer's outputs (B, D), after its norm."""

    @abstractmethod
    def embed_next(self, words: Tensor, prompt: Prompt, step: int) -> tuple[Tensor, Tensor]:
        """Return embedding (B, 1, D) and position of the generated words (B,) at a step from 0."""

    @abstractmethod
    def norm(self, hidden: Tensor) -> Tensor:
        """Apply the decoder's final norm."""

    @abstractmethod
    def read(self, generate: Any, first: Tensor) -> list[str]:
        """Return the answers as words. first: the most likely next tokens (B,); generate(n) returns n tokens (B, n)."""


def causal_rows(seen: Attended, start: int) -> Tensor:
    """Return the attention of the queries from `start` on to all tokens, averaged over heads, (B, n - start, n)."""
    logits = (seen.query[:, :, start:] * seen.key.shape[-1] ** -0.5) @ seen.key.transpose(-2, -1)
    n = logits.shape[-1]
    later = torch.ones(n, n, dtype=torch.bool, device=logits.device).triu(1)[start:]
    return logits.masked_fill(later, -torch.inf).float().softmax(-1).mean(1)
