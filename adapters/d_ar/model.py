"""D-AR's tokenizer: a sequence of tokens in groups, each of which conditions its own denoising steps in pixel space.

Gao and Shou, D-AR: Diffusion via Autoregressive Models (arXiv:2505.23660).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from tokbench.errors import AdapterError
from tokbench.nn.flow import FlowDecoder, add_noise, seeded_noise
from tokbench.nn.masks import causal, causal_queries
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import QueryEncoder, Shape, Transformer, random_parameter

DATA = 0.6
"""Factor on pixels in [-1, 1], the authors' `data_std`."""

NEAR = 0.2
"""Lower bound of the divisor when a velocity is computed from a predicted image.

The divisor is the remaining time, and with smaller ones the errors of a network that cannot copy its input would
dominate the loss. Sampling with eight steps is not affected, since the last step starts at 0.22.
"""

GATE = 0.3
"""Initial gate of the denoiser's blocks. With 0 the tokens have no effect at first, and the encoder lost the image."""


def shifted(time: Tensor) -> Tensor:
    """Map uniform time in [0, 1] to flow time from noise (0) to image (1), with more steps near the noise."""
    return time / (time + 2 * (1 - time))


class DAR(BottleneckAutoencoder):
    """An autoencoder with `count` 1D tokens in `groups` groups and a flow decoder in pixel space.

    Each group conditions `steps` Adams-Bashforth steps (the first is an Euler step) in its own interval of the flow
    time, and is trained in that interval.

    The network predicts the image, from which the velocity is computed (Li and He, arXiv:2511.13720). A patch of 8x8 px
    has 192 values of noise; a network of width 128 cannot represent them all, so predicting the velocity would leave a
    third of the noise in the image.

    aligned: whether a step is conditioned on the tokens of its own group only, so that the first groups give a preview.
    False is the ablation, where every step is conditioned on all tokens. encoder, after: depths of the encoder and of
    the causal transformer behind the quantizer.
    """

    def __init__(
        self,
        shape: Shape,
        count: int,
        quantizer: VectorQuantizer,
        groups: int,
        steps: int,
        aligned: bool,
        encoder: int,
        after: int,
    ) -> None:
        super().__init__()
        if count % groups:
            raise AdapterError(f"{count} tokens cannot be divided into {groups} equal groups")
        self.size, self.step, self.tokens = shape.size, shape.patch, count
        self.shape, self.groups, self.each, self.steps, self.aligned = shape, groups, count // groups, steps, aligned
        slim = Shape(shape.size, shape.patch, shape.width, encoder, shape.heads)
        self.encoder = QueryEncoder(slim, count, quantizer.dim, causal_queries(shape.patches, count))
        self.bottleneck = quantizer
        self.embed, self.places = nn.Linear(quantizer.dim, shape.width), random_parameter(count, shape.width)
        self.after = Transformer(shape.width, after, shape.heads)
        num_conditions = self.each if aligned else count
        self.denoiser = FlowDecoder(
            shape.patches,
            3 * shape.patch**2,
            num_conditions,
            shape.width,
            shape.width,
            shape.depth,
            shape.heads,
            gate=GATE,
        )
        self.register_buffer("mask", causal(count), persistent=False)
        self.mask: Tensor

    def encoded(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def conditions(self, vectors: Tensor) -> Tensor:
        """Map vectors (B, k, D) to conditions of the denoiser (B, k, width), causally."""
        count = vectors.shape[1]
        return self.after(self.embed(vectors) + self.places[:count], self.mask[:count, :count])

    def patches(self, images: Tensor) -> Tensor:
        """Return images in [-1, 1] as patches (B, N, 3 p p), scaled by `DATA`."""
        return DATA * nn.functional.pixel_unshuffle(images, self.shape.patch).flatten(2).transpose(1, 2)

    def images(self, patches: Tensor) -> Tensor:
        """Return images (B, 3, H, W) of patches, the inverse of `patches`."""
        grid = patches.transpose(1, 2).unflatten(2, (self.shape.side, self.shape.side))
        return nn.functional.pixel_shuffle(grid, self.shape.patch) / DATA

    def conditions_of(self, conditions: Tensor, group: Tensor) -> Tensor:
        """Select from conditions (B, K, width) those of `group` (B,); all of them if the model is not aligned."""
        if not self.aligned:
            return conditions
        rows = torch.arange(len(group), device=group.device)
        return conditions.unflatten(1, (self.groups, self.each))[rows, group]

    def velocity(self, x: Tensor, remaining: Tensor, conditions: Tensor) -> Tensor:
        """Return the velocity of patches x (B, N, 3 p p) at `remaining` time (B,), given conditions (B, k, width)."""
        return (x - self.denoiser(x, remaining, conditions).float()) / remaining.clamp(min=NEAR)[:, None, None]

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        vectors, own = self.squeeze(self.latents(batch.images), progress)
        time = torch.rand(len(vectors), device=vectors.device)
        group = (time * self.groups).long().clamp(max=self.groups - 1)
        remaining = 1 - shifted(time)
        x, velocity = add_noise(self.patches(batch.images), remaining)
        predicted = self.velocity(x, remaining, self.conditions_of(self.conditions(vectors), group))
        velocity = velocity * (remaining / remaining.clamp(min=NEAR))[:, None, None]  # the divisor is clamped
        terms = {"flow": (predicted - velocity).square().mean() / DATA**2, "bottleneck": own}
        images = self.images(x - remaining[:, None, None] * predicted)
        return terms | self.perceptual_term(images, batch.images, progress)

    def stream(self, vectors: Tensor, seeds: Sequence[int]) -> Iterator[Tensor]:
        """Yield after each step a preview of the image (B, 3, H, W) from the first k vectors (B, k, D).

        Steps end with the last complete or partial group; after the last of all groups the image itself is yielded.
        Steps are second-order Adams-Bashforth steps, adapted to unequal lengths; the first is an Euler step.
        """
        conditions = self.conditions(vectors)
        x = seeded_noise(seeds, (self.shape.patches, 3 * self.shape.patch**2)).to(conditions)
        total = self.groups * self.steps
        remaining = 1 - shifted(torch.linspace(0, 1, total + 1))
        previous: tuple[Tensor, float] | None = None
        for step in range(total):
            first = step // self.steps * self.each
            own = conditions[:, first : first + self.each] if self.aligned else conditions
            if not own.shape[1]:
                return
            time = remaining[step].expand(len(x)).to(x)
            velocity = self.velocity(x, time, own)
            length = float(remaining[step] - remaining[step + 1])
            direction = velocity
            if previous is not None:
                half = length / (2 * previous[1])
                direction = (1 + half) * velocity - half * previous[0]
            preview = x - float(remaining[step]) * velocity
            x, previous = x - length * direction, (velocity, length)
            yield self.images(x if step == total - 1 else preview)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        assert seeds is not None, "a flow decoder needs seeds"
        *_, image = self.stream(vectors, seeds)
        return image.clamp(-1, 1)  # remaining noise in a preview exceeds the range
