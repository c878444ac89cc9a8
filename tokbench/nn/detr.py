"""A small detection transformer of three levels whose encoder can update the tokens of the foreground only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from tokbench.errors import DataError
from tokbench.nn.detection import ALPHA, GAMMA, detection_loss, foreground_targets
from tokbench.nn.focus import FocusEncoder, ForegroundScorer, Selection, gather
from tokbench.nn.trainable import Trainable, TrainingBatch
from tokbench.nn.vit import Attention, initialise, random_parameter, sincos_positions

LEVELS = 3


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(4, outputs), nn.SiLU())


class DecoderLayer(nn.Module):
    """A decoder layer: queries (B, Q, D) attend to each other and to the encoder's tokens (B, N, D)."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attention, self.cross_attention = Attention(width, heads), Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, x: Tensor, places: Tensor, memory: Tensor) -> Tensor:
        x = self.norms[0](x + self.self_attention(x + places))
        x = self.norms[1](x + self.cross_attention(x + places, context=memory))
        return self.norms[2](x + self.mlp(x))


class FocusDETR(Trainable):
    """A detector (arXiv:2307.12612, smaller); images (B, 3, H, W) in [-1, 1] to class scores and boxes.

    Convolutions give three levels with steps of 8, 16 and 32 px. The encoder's tokens with the highest class scores
    give the first boxes and queries, which the decoder refines. size: side of the images; others are resized. classes:
    number of classes. queries: number of predictions per image. keep, selection, drop and fine: see `FocusEncoder`.
    """

    def __init__(
        self,
        size: int,
        classes: int,
        width: int,
        depth: int,
        decoder_depth: int,
        queries: int,
        keep: float = 1.0,
        selection: Selection = "learned",
        drop: bool = False,
        fine: int = 32,
    ) -> None:
        """Raises ValueError if the size is not a multiple of 32, or if keep is not in (0, 1]."""
        super().__init__()
        if size % 32 or not 0 < keep <= 1:
            raise ValueError(f"size {size} must be a multiple of 32, and keep {keep:g} in (0, 1]")
        self.size, self.queries, heads, hidden = size, queries, 4, 2 * width
        self.sides = tuple(size // step for step in (8, 16, 32))
        finest = nn.Sequential(_convolution(3, 16), _convolution(16, 32), _convolution(32, width))
        self.stages = nn.ModuleList([finest, *(_convolution(width, width) for _ in range(LEVELS - 1))])
        self.positions = nn.ParameterList(sincos_positions(side, width, self.sides[0]) for side in self.sides)
        self.level = random_parameter(LEVELS, width)
        self.scorer = ForegroundScorer(width, LEVELS)
        self.encoder = FocusEncoder(width, heads, hidden, depth, fine, keep, selection, drop)
        self.proposal = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.first_box, self.classes = _box_head(width), nn.Linear(width, classes)
        self.box_places = nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.Linear(width, width))
        self.decoder = nn.ModuleList(DecoderLayer(width, heads, hidden) for _ in range(decoder_depth))
        self.box_heads = nn.ModuleList(_box_head(width) for _ in range(decoder_depth))
        self.class_heads = nn.ModuleList(nn.Linear(width, classes) for _ in range(decoder_depth))
        for part in (self.proposal, self.box_places, self.decoder):
            part.apply(initialise)
        for head in (self.classes, *self.class_heads):
            nn.init.constant_(head.bias, -4.6)  # a probability of 1 %, as the focal loss expects at the start
        self.register_buffer("anchors", self._anchors(), persistent=False)

    def _anchors(self) -> Tensor:
        """Return the first box of each token before the sigmoid, (N, 4): its centre, and two steps wide and high."""
        boxes = []
        for side in self.sides:
            centres = (torch.arange(side) + 0.5) / side
            x, y = centres.repeat(side), centres.repeat_interleave(side)
            boxes.append(torch.stack([x, y, *[torch.full_like(x, 2 / side)] * 2], 1))
        return torch.cat(boxes).clamp(0.01, 0.99).logit()

    def pyramid(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens of all levels (B, N, D) and their positions (B, N, D), the finest level first."""
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)
        features, tokens, places = images, [], []
        for stage, position, level in zip(self.stages, self.positions, self.level, strict=True):
            features = stage(features)
            tokens.append(features.flatten(2).transpose(1, 2))
            places.append(position + level)
        return torch.cat(tokens, 1), torch.cat(places).expand(len(images), -1, -1)

    def encode(self, images: Tensor, seeds: Sequence[int] | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the encoded tokens (B, n, D), their positions (B, n, D), their places among all N tokens (B, n), and
        the foreground scores before the sigmoid of all tokens (B, N). seeds: one per image for random selection."""
        tokens, places = self.pyramid(images)
        foreground = self.scorer(tokens, self.sides)
        memory, index = self.encoder(tokens, places, foreground, lambda x: self.classes(self.proposal(x)), seeds)
        return memory, gather(places, index), index, foreground

    def predictions(
        self, images: Tensor, seeds: Sequence[int] | None = None
    ) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Return class scores before the sigmoid (B, Q, C) and boxes (B, Q, 4) of the encoder and of each decoder
        layer, and the foreground scores (B, N)."""
        memory, places, index, foreground = self.encode(images, seeds)
        proposals = self.proposal(memory)
        scores = self.classes(proposals)
        best = scores.detach().amax(2).topk(min(self.queries, memory.shape[1]), dim=1).indices
        x = gather(proposals, best)
        anchors: Tensor = self.anchors  # type: ignore[assignment]
        box = anchors[index.gather(1, best)] + self.first_box(x)
        found, keys = [(gather(scores, best), box.sigmoid())], memory + places
        x = x.detach()
        for layer, box_head, class_head in zip(self.decoder, self.box_heads, self.class_heads, strict=True):
            before = box.detach()
            x = layer(x, self.box_places(before.sigmoid()), keys)
            box = before + box_head(x)
            found.append((class_head(x), box.sigmoid()))
        return found, foreground

    def forward(self, images: Tensor, seeds: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Map images (B, 3, H, W) in [-1, 1] to class scores before the sigmoid (B, Q, C) and boxes (B, Q, 4): centre,
        width and height in shares of the side."""
        return self.predictions(images, seeds)[0][-1]

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        if batch.boxes is None:
            raise DataError("training a detector needs boxes, and this dataset has none; use --data scenes-128-train")
        truths = [own[own[:, 0] >= 0] for own in batch.boxes]
        found, foreground = self.predictions(batch.images)
        terms: dict[str, Tensor] = {}
        for logits, boxes in found:
            for name, term in detection_loss(logits, boxes, truths).items():
                terms[name] = terms.get(name, 0) + term
        inside = foreground_targets(truths, self.sides, self.size)
        focal = sigmoid_focal_loss(foreground.float(), inside, ALPHA, GAMMA, "sum")
        return terms | {"foreground": focal / inside.sum().clamp(min=1)}


def _box_head(width: int) -> nn.Sequential:
    """Return the map from features to the change of a box before the sigmoid; it starts at no change."""
    head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4))
    nn.init.zeros_(head[-1].weight)  # type: ignore[arg-type]
    nn.init.zeros_(head[-1].bias)  # type: ignore[arg-type]
    return head
