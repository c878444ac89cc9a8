"""iFID: the Fréchet distance of images decoded half way between the latents of two images (arXiv:2603.05630)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.errors import NotApplicable
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.metrics.frechet import Frechet
from tokbench.metrics.latents import Size, decode_tokens, latents_of, vectors_of
from tokbench.tokenizers.base import ImageModel
from tokbench.tokenizers.tokens import Tokens

TOP = 10
"""Number of the most similar images of which one is drawn."""

_AT_ONCE = 1 << 24
"""Number of values of neighbours that are compared at a time."""


class InterpolatedFrechet(Frechet):
    """The Fréchet distance between the originals and the images decoded from tokens between those of each original and
    of a neighbour.

    The neighbours are images of the dataset that the run does not evaluate, at most 4,000 (`tokbench.evaluation.
    neighbours`). The distance falls with the number of neighbours, since nearer ones are found: the provenance records
    it, and numbers with different ones must not be compared.
    """

    protocol: ClassVar[str]

    def __init__(
        self, *given: Any, model: ImageModel, neighbours: Callable[[], Tokens], batch_size: int, **named: Any
    ) -> None:
        super().__init__(*given, **named)
        self._model, self._neighbours, self._batch_size = model, neighbours, batch_size

    @abstractmethod
    def check(self, tokens: Tokens) -> None:
        """Raise NotApplicable where tokens cannot be interpolated, before neighbours are encoded."""

    @abstractmethod
    def interpolated(self, tokens: Tokens, others: Tokens, size: Size, positions: list[int]) -> Tokens:
        """Return the tokens between those of B images and of a neighbour of each.

        others: the tokens of all neighbours. size: (height, width) of the images. positions: those of the B images in
        the dataset.
        """

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return the features of the decoded images, and the number of neighbours.

        Raises NotApplicable where there are no neighbours or where tokens cannot be interpolated.
        """
        tokens: Tokens = batch.require("tokens")
        self.check(tokens)
        key, others = (self.protocol, id(self._model)), self._neighbours()
        with batch.image_memo.lock:
            if key not in batch.image_memo.images:
                size = tuple(batch.require("reference").shape[2:])
                tokens = self.interpolated(tokens, others, size, batch.index.tolist())
                image = decode_tokens(self._model, tokens, batch, self._batch_size)
                batch.image_memo.images[key] = image, DerivedCache()
        image, memo = batch.image_memo.images[key]
        columns = super().per_sample(replace(batch, image=image, image_memo=memo))
        return columns | {"neighbours": np.full(len(batch), len(others))}

    def provenance(self) -> dict[str, str]:
        facts = super().provenance() | {"interpolation": self.protocol}
        if not len(self.rows):
            return facts
        counts = np.unique(self.rows.column("neighbours")).astype(int)
        return facts | {"neighbours": ", ".join(map(str, counts))}


class InterpolatedFID(InterpolatedFrechet):
    """iFID as the paper defines it: the nearest neighbour by the Euclidean distance of latents, and the mean of both
    latents. It is for continuous tokens."""

    protocol = "nearest neighbour, linear 0.5"

    def check(self, tokens: Tokens) -> None:
        latents_of(self._model, tokens)

    def interpolated(self, tokens: Tokens, others: Tokens, size: Size, positions: list[int]) -> Tokens:
        ours, theirs = latents_of(self._model, tokens), latents_of(self._model, others)
        nearest = nearest_rows(ours.flatten(1).cpu(), theirs.flatten(1).cpu())
        between = (ours + theirs[nearest].to(ours)) / 2
        return tokens.with_data(between.to(tokens.tensor.dtype))


class SampledIFID(InterpolatedFrechet):
    """iFID as the authors' code computes it: of the ten images whose vectors have the largest cosine, one is drawn with
    a probability proportional to exp(-mean squared difference). Latents are interpolated on the sphere (slerp, 0.5);
    of codes, those of the first half of the rows, or of the sequence, are the neighbour's. The draw depends on the
    position of the image only.
    """

    protocol = "one of the 10 largest cosines, slerp 0.5 of latents, half of the codes"
    _theirs: Tensor | None = None

    def check(self, tokens: Tokens) -> None:
        streams = list(tokens.streams.values())
        if len(streams) != 1 or isinstance(streams[0].data, tuple):
            raise NotApplicable(f"{self._model.spec.name}: its tokens are not one stream of vectors or codes")
        if streams[0].kind == "index" and streams[0].data.shape[1] < 2:
            raise NotApplicable(f"{self._model.spec.name}: a single token has no half that could be the neighbour's")

    def interpolated(self, tokens: Tokens, others: Tokens, size: Size, positions: list[int]) -> Tokens:
        if self._theirs is None:
            self._theirs = vectors_of(self._model, others, size).flatten(1)
        chosen = drawn_rows(vectors_of(self._model, tokens, size).flatten(1), self._theirs, positions)
        data, other = tokens.tensor, others.tensor[chosen].to(tokens.tensor.device)
        if tokens.single_stream().kind == "latent":
            return tokens.with_data(slerp(data.float(), other.float()).to(data.dtype))
        half = data.shape[1] // 2
        return tokens.with_data(torch.cat([other[:, :half], data[:, half:]], 1))


def nearest_rows(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the row of `theirs` (m, V) nearest to each row of `ours` (n, V), int64 (n,); of equal ones the first."""
    best, at = torch.full((len(ours),), torch.inf, dtype=torch.float64), torch.zeros(len(ours), dtype=torch.int64)
    for start, part in _parts(theirs):
        squares = torch.cdist(ours.double(), part.double()) ** 2
        least, place = squares.min(1)
        nearer = least < best
        best, at = torch.where(nearer, least, best), torch.where(nearer, place + start, at)
    return at


def drawn_rows(ours: Tensor, theirs: Tensor, positions: list[int]) -> Tensor:
    """Return a row of `theirs` (m, V) for each row of `ours` (n, V), int64 (n,): one of the TOP largest cosines, drawn
    with the softmax of the negative mean squared difference. positions: seeds of the draws."""
    unit = F.normalize(ours.double(), dim=1)
    cosines = torch.cat([unit @ F.normalize(part.double(), dim=1).T for _, part in _parts(theirs)], 1)
    candidates = cosines.topk(min(TOP, len(theirs)), dim=1).indices
    chosen = []
    for row, position, near in zip(ours.double(), positions, candidates, strict=True):
        weights = torch.softmax(-(theirs[near].double() - row).square().mean(1), 0).cumsum(0)
        drawn = np.random.default_rng([position, TOP]).random()
        chosen.append(int(near[min(int((weights < drawn).sum()), len(near) - 1)]))
    return torch.tensor(chosen)


def slerp(first: Tensor, second: Tensor) -> Tensor:
    """Return the points half way on the arc between tensors (n, ...), as vectors of all their values.

    Where they are parallel, the mean is returned.
    """
    one, other = first.flatten(1).double(), second.flatten(1).double()
    cosine = F.cosine_similarity(one, other, dim=1).clamp(-1, 1)
    angle = torch.acos(cosine)
    weight = torch.where(angle.sin() > 1e-6, torch.sin(angle / 2) / angle.sin().clamp(min=1e-6), 0.5)
    return (weight[:, None] * (one + other)).reshape(first.shape).to(first.dtype)


def _parts(rows: Tensor) -> list[tuple[int, Tensor]]:
    """Return rows (m, V) in parts, each with the number of its first row."""
    step = max(1, _AT_ONCE // max(rows.shape[1], 1))
    return [(start, rows[start : start + step]) for start in range(0, len(rows), step)]
