"""The model: a contrastive style encoder, style tokens among the words of a caption, and a flow in pixel space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.data.synthetic.styled import SIDE, STYLES
from tokbench.data.vocabulary import PADDING
from tokbench.data.vocabulary import SIZE as VOCABULARY
from tokbench.errors import AdapterError, DataError
from tokbench.nn.conv import ConvEncoder
from tokbench.nn.flow import FlowDecoder, add_noise, logit_normal, seeded_noise
from tokbench.nn.losses import supervised_contrast
from tokbench.nn.trainable import Trainable, TrainingBatch, TrainingData
from tokbench.nn.vit import Transformer, random_parameter

CONTRAST_UNTIL = 0.2
"""Share of the training in which the style encoder is trained by contrast; afterwards it is frozen."""

DROPPED = 0.1
"""Share of the examples without style, and share of those without words and style, for guidance of both."""

WORDS = 3
"""Number of words of a caption of `tokbench.data.synthetic.styled`."""

EMBEDDING, PROJECTION = 64, 32
"""Number of values of a style, and of its projection, on which the contrast is computed."""

Style = Literal["tokens", "global"]


def to_patches(images: Tensor, patch: int) -> Tensor:
    """Return images (B, 3, H, W) as patches (B, H W / patch^2, 3 patch^2) in row-major order."""
    return F.pixel_unshuffle(images, patch).flatten(2).transpose(1, 2)


def from_patches(patches: Tensor, patch: int) -> Tensor:
    """Return square images (B, 3, H, W) of patches (B, N, 3 patch^2), the inverse of `to_patches`."""
    side = round(patches.shape[1] ** 0.5)
    return F.pixel_shuffle(patches.transpose(1, 2).unflatten(2, (side, side)), patch)


class StyleEncoder(nn.Module):
    """Maps images (B, 3, H, W) to styles (B, EMBEDDING), the mean of a convolutional network's outputs."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.body = ConvEncoder(EMBEDDING, widths)
        self.project = nn.Sequential(nn.Linear(EMBEDDING, EMBEDDING), nn.ReLU(), nn.Linear(EMBEDDING, PROJECTION))

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.body(images).mean((2, 3)), dim=1)


class StyleModel(Trainable):
    """A rectified flow over the patches of an image, conditioned on the words of its content and on a style image.

    style: `tokens` puts `count` style tokens before the words, where a text encoder processes both; `global` adds one
    vector of the style to every output of the text encoder, which processes the words only. contrast: whether the style
    encoder is first trained by supervised contrast of the styles and then frozen; otherwise it is trained with the
    flow. In training, an image is its own style image. Raises AdapterError for another style.
    """

    def __init__(
        self,
        style: Style,
        count: int,
        contrast: bool,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        encoder: Sequence[int],
    ) -> None:
        super().__init__()
        if style not in ("tokens", "global"):
            raise AdapterError(f"style is {style!r}; give one of tokens, global")
        self.style, self.count, self.contrast, self.patch = style, count if style == "tokens" else 0, contrast, patch
        self.encoder = StyleEncoder(encoder)
        self.tokenize = nn.Sequential(
            nn.Linear(EMBEDDING, 2 * EMBEDDING), nn.SiLU(), nn.Linear(2 * EMBEDDING, max(1, self.count) * width)
        )
        self.words, self.first = random_parameter(VOCABULARY, width), random_parameter(1, width)
        self.places = random_parameter(1 + self.count + WORDS, width)
        self.text = Transformer(width, 1, heads)
        self.network = FlowDecoder(
            (SIDE // patch) ** 2, 3 * patch**2, 1 + self.count + WORDS, width, width, depth, heads
        )

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        if data.captions is None or data.labels is None or data.pixels.shape[-1] != SIDE:
            raise DataError("training a style tokenizer needs content and style of images; use --data styled-train")
        return data

    def condition(self, captions: Tensor, styles: Tensor, has_text: Tensor, has_style: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs (B, K, width) of the flow and which of them it gets, bool (B, K).

        captions: words (B, L). styles: (B, EMBEDDING). has_text, has_style: bool (B,). The first input stands for no
        word; it is always given.
        """
        words = captions[:, :WORDS]
        tokens = self.tokenize(styles).unflatten(1, (max(1, self.count), -1))
        inputs = [self.first.expand(len(words), 1, -1), tokens[:, : self.count], self.words[words]]
        given = [
            torch.ones_like(has_text)[:, None],
            has_style[:, None].expand(-1, self.count),
            has_text[:, None] & (words != PADDING),
        ]
        keep = torch.cat(given, 1)
        outputs = self.text(torch.cat(inputs, 1) + self.places, keep[:, None, None])
        if self.style == "global":
            outputs = outputs + tokens * has_style[:, None, None]
        return outputs, keep

    def velocity(self, noised: Tensor, time: Tensor, condition: tuple[Tensor, Tensor]) -> Tensor:
        """Return the velocity (B, N, C) of noised patches (B, N, C) at `time` (B,)."""
        tokens, keep = condition
        return self.network(noised, time, tokens, keep)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        assert batch.labels is not None
        assert batch.captions is not None, "prepare_data refuses other data"
        if self.contrast and progress < CONTRAST_UNTIL:
            projected = self.encoder.project(self.encoder(batch.images))
            return {"contrast": supervised_contrast(projected, batch.labels % len(STYLES))}
        styles = self.encoder(batch.images)
        if self.contrast:
            styles = styles.detach()
        drawn = torch.rand(len(styles), device=styles.device)
        condition = self.condition(batch.captions, styles, drawn > DROPPED, drawn > 2 * DROPPED)
        time = logit_normal(len(styles), styles.device)
        noised, velocity = add_noise(to_patches(batch.images, self.patch), time)
        return {"velocity": (self.velocity(noised, time, condition).float() - velocity).square().mean()}

    @torch.no_grad()
    def sample(
        self, captions: Tensor, styles: Tensor, seeds: Sequence[int], steps: int, scales: tuple[float, float]
    ) -> Tensor:
        """Sample patches (B, N, C) in `steps` Euler steps of captions (B, L) and style images (B, 3, H, W).

        scales: s and r of two-scale guidance, v = v_none + s (v_text - v_none) + r (v_text_style - v_text).
        """
        found, (text, style) = self.encoder(styles), scales
        yes, no = torch.ones_like(captions[:, 0], dtype=torch.bool), torch.zeros_like(captions[:, 0], dtype=torch.bool)
        # The weight of each velocity; those of weight 0 are not computed.
        weights = {(no, no): 1 - text, (yes, no): text - style, (yes, yes): style}
        conditions = [(self.condition(captions, found, *has), weight) for has, weight in weights.items() if weight]
        x = seeded_noise(seeds, (self.network.patches, self.network.channels)).to(found)
        for step in range(steps):
            time = torch.full((len(x),), 1 - step / steps, device=x.device)
            parts = [weight * self.velocity(x, time, condition) for condition, weight in conditions]
            x = x - torch.stack(parts).sum(0) / steps
        return x
