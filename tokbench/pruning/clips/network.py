"""A classifier of clips whose tokens can be reduced within segments of frames (CenterCLIP, arXiv:2205.00823)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import DataError, UsageError
from tokbench.nn.trainable import Trainable, TrainingBatch
from tokbench.nn.vit import Block, Shape, initialise, random_parameter, sincos_positions
from tokbench.pruning.clips.methods import METHODS, ClipReducer
from tokbench.timing import timed


class ClipNetwork(Trainable):
    """A classifier of clips (B, T, 3, S, S) in [-1, 1], with logits (B, classes).

    size: S in pixels. timing, reducing_seconds: if `timing` is set, the time that a pass takes to choose or make tokens
    is added to `reducing_seconds`.
    """

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.size, self.classes = size, classes
        self.timing, self.reducing_seconds = False, 0.0

    @abstractmethod
    def forward(self, clips: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return the logits. masks: uint8 (B, T, S, S), the number of the object at each pixel, if the data have it."""

    @abstractmethod
    def tokens(self, clips: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return the number of tokens of each clip, without CLS tokens, in the last block, int64 (B,)."""

    @abstractmethod
    def flops(self, frames: int) -> int:
        """Return the FLOPs of one clip, without what chooses or makes tokens."""

    @property
    def trained_with(self) -> tuple[ClipReducer | None, float | None]:
        """The method that reduced tokens in the training and the share that it kept; None for all tokens."""
        return None, None

    @contextmanager
    def using(self, reducer: ClipReducer | None, keep: float) -> Iterator[None]:
        """Reduce tokens by this method inside the `with` block, or keep all if it is None."""
        if reducer is not None:
            raise UsageError(f"{type(self).__name__} has no frames whose tokens could be reduced")
        yield

    def measured(self, make: Callable[[], Tensor], device: str) -> Tensor:
        """Return `make()`, and add its time to `reducing_seconds` if `timing` is set."""
        if not self.timing:
            return make()
        made, seconds = timed(make, device)
        self.reducing_seconds += seconds
        return made

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        """Raises DataError unless the data are clips with labels below `classes`."""
        if batch.images.dim() != 5 or batch.labels is None or int(batch.labels.max()) >= self.classes:
            raise DataError(f"training needs clips with labels 0 to {self.classes - 1}, such as sprites-train")
        logits = self(batch.images, batch.masks).float()
        return {"classes": F.cross_entropy(logits, batch.labels, label_smoothing=0.1)}


class ClipClassifier(ClipNetwork):
    """A vision transformer of single frames (B, T, 3, S, S) in [-1, 1], whose CLS tokens are averaged over time;
    returns logits (B, classes).

    Before block `at`, the patch tokens of each of `segments` equal parts of the frames can be reduced to a share of
    those of the whole clip. The rest of the network then sees one sequence per segment, whose CLS token is the mean of
    those of its frames. method: a key of `METHODS` that is used in training and evaluation with the share `keep`; None
    for all tokens. Raises ValueError for an unknown method.
    """

    def __init__(
        self,
        shape: Shape,
        classes: int,
        *,
        segments: int = 4,
        at: int = 2,
        method: str | None = None,
        keep: float = 1.0,
    ) -> None:
        super().__init__(shape.size, classes)
        if method is not None and method not in METHODS:
            raise ValueError(f"method is {method!r}; give one of {', '.join(METHODS)}")
        self.shape, self.segments, self.at = shape, segments, at
        self.keep = keep
        self.reducer: ClipReducer | None = None if method is None else METHODS[method]()
        self.embed = nn.Linear(3 * shape.patch**2, shape.width)
        self.positions, self.cls = sincos_positions(shape.side, shape.width), random_parameter(1, shape.width)
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads) for _ in range(shape.depth))
        self.norm, self.head = nn.LayerNorm(shape.width), nn.Linear(shape.width, classes)
        self.apply(initialise)

    def forward(self, clips: Tensor, masks: Tensor | None = None) -> Tensor:
        patches = F.pixel_unshuffle(clips, self.shape.patch).flatten(3).transpose(2, 3)
        tokens = (self.embed(patches) + self.positions).flatten(0, 1)
        x = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1)
        for place, block in enumerate(self.blocks):
            if place == self.at and self.reducer is not None:
                x = self.reduced(x, self.reducer, clips.shape[1])
            x = block(x)
        pooled = self.norm(x[:, 0]).unflatten(0, (len(clips), -1)).mean(1)
        return self.head(pooled)

    def reduced(self, x: Tensor, reducer: ClipReducer, frames: int) -> Tensor:
        """Reduce the sequences (B * frames, 1 + N, D) of all frames to those of all segments, (B * segments, 1 + K,
        D)."""
        each, side = frames // self.segments, self.shape.side
        count = self.kept(frames)
        parts = x.unflatten(0, (-1, each))
        grids = parts[:, :, 1:].unflatten(2, (side, side))
        kept = self.measured(partial(reducer.reduce, grids, count), str(x.device))
        return torch.cat([parts[:, :, 0].mean(1, keepdim=True), kept], 1)

    def tokens(self, clips: Tensor, masks: Tensor | None = None) -> Tensor:
        frames = clips.shape[1]
        count = frames * self.shape.patches if self.reducer is None else self.segments * self.kept(frames)
        return torch.full((len(clips),), count)

    def kept(self, frames: int) -> int:
        """Return the number of patch tokens that a segment keeps.

        Raises UsageError if the frames cannot be cut into segments, or if no token would be left.
        """
        if frames % self.segments:
            raise UsageError(f"{frames} frames cannot be cut into {self.segments} equal segments")
        count = round(self.keep * frames * self.shape.patches / self.segments)
        if count < 1:
            raise UsageError(f"keep {self.keep:g} leaves no token of a segment; use a larger keep")
        return count

    @property
    def trained_with(self) -> tuple[ClipReducer | None, float | None]:
        return self.reducer, None if self.reducer is None else self.keep

    @contextmanager
    def using(self, reducer: ClipReducer | None, keep: float) -> Iterator[None]:
        """Reduce tokens by this method inside the `with` block, or keep all if it is None."""
        before = self.reducer, self.keep
        self.reducer, self.keep = reducer, keep
        try:
            yield
        finally:
            self.reducer, self.keep = before

    def flops(self, frames: int) -> int:
        """Return the FLOPs of one clip, by `FORMULA`."""
        width, patches = self.shape.width, self.shape.patches
        total = 2 * frames * patches * 3 * self.shape.patch**2 * width + 2 * width * self.classes
        for place in range(self.shape.depth):
            reduced = self.reducer is not None and place >= self.at
            sequences, n = (self.segments, 1 + self.kept(frames)) if reduced else (frames, 1 + patches)
            total += sequences * 2 * (4 * n * width**2 + 2 * n**2 * width + 8 * n * width**2)
        return total


FORMULA = (
    "2 (12 n D^2 + 2 n^2 D) for each sequence of n tokens in each block, 2 v D for each patch of v values, 2 D C for C "
    "classes. Norms, softmax, activations and what chooses tokens are not counted"
)
