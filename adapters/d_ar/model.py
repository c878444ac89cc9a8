"""D-AR's tokenizer: a row of tokens that is read in groups, each of which drives its own steps of denoising pixels (Gao
and Shou, D-AR, arXiv:2505.23660)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from tokbench.errors import AdapterError
from tokbench.nn.flow import FlowDecoder, noised, seeded_noise
from tokbench.nn.masks import causal, causal_queries
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import QueryEncoder, Shape, Transformer, learned

DATA = 0.6
"""By which pixels in [-1, 1] are scaled, as the authors do: their "data_std"."""

NEAR = 0.2
"""The last part of the way, on which what is left of it no longer shrinks as a divisor: no step of eight is taken there
(the last one starts at 0.22), and the errors of a network that cannot copy its input would outweigh all others."""

GATE = 0.3
"""Of the denoiser's blocks at first: closed ones do not hear the tokens, and the encoder forgot the image meanwhile."""


def shifted(time: Tensor) -> Tensor:
    """Where the way from noise (0) to image (1) is at `time`: slow at first, where the coarse is decided."""
    return time / (time + 2 * (1 - time))


class DAR(BottleneckAutoencoder):
    """`count` tokens in `groups` groups; `steps` Euler or Adams-Bashforth steps a group, in the group's own part of the
    way, on which it is trained.

    The network finds the image, and the velocity follows from it: a patch of 8x8 px has 192 values, noise fills all of
    them, and what passes through 128 would leave a third of it in the image (Li and He, arXiv:2511.13720).

    aligned: a step is told the tokens of its own group alone, so the first groups are a preview; False for the ablated
    twin, all of whose steps are told all tokens.
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
            raise AdapterError(f"{count} tokens do not make {groups} equal groups")
        self.size, self.step, self.tokens = shape.size, shape.patch, count
        self.shape, self.groups, self.each, self.steps, self.aligned = shape, groups, count // groups, steps, aligned
        slim = Shape(shape.size, shape.patch, shape.width, encoder, shape.heads)
        self.encoder = QueryEncoder(slim, count, quantizer.dim, causal_queries(shape.patches, count))
        self.bottleneck = quantizer
        self.embed, self.places = nn.Linear(quantizer.dim, shape.width), learned(count, shape.width)
        self.after = Transformer(shape.width, after, shape.heads)
        told = self.each if aligned else count
        self.denoiser = FlowDecoder(
            shape.patches, 3 * shape.patch**2, told, shape.width, shape.width, shape.depth, shape.heads, gate=GATE
        )
        self.register_buffer("mask", causal(count), persistent=False)
        self.mask: Tensor

    def latents(self, images: Tensor) -> Tensor:
        return self.encoder(images)

    def conditions(self, vectors: Tensor) -> Tensor:
        """Vectors (B, k, D) as what denoising is told of each (B, k, width); none depends on later ones."""
        count = vectors.shape[1]
        return self.after(self.embed(vectors) + self.places[:count], self.mask[:count, :count])

    def patches(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] as patches (B, N, 3 p p), scaled by `DATA`."""
        return DATA * nn.functional.pixel_unshuffle(images, self.shape.patch).flatten(2).transpose(1, 2)

    def images(self, patches: Tensor) -> Tensor:
        """The inverse of `patches`."""
        grid = patches.transpose(1, 2).unflatten(2, (self.shape.side, self.shape.side))
        return nn.functional.pixel_shuffle(grid, self.shape.patch) / DATA

    def told(self, conditions: Tensor, group: Tensor) -> Tensor:
        """Of conditions (B, N, width), those that steps of `group` (B,) get."""
        if not self.aligned:
            return conditions
        rows = torch.arange(len(group), device=group.device)
        return conditions.unflatten(1, (self.groups, self.each))[rows, group]

    def velocity(self, x: Tensor, left: Tensor, told: Tensor) -> Tensor:
        """Of noised patches (B, N, 3 p p), of whose way so much is left (B,), given conditions (B, k, width)."""
        return (x - self.denoiser(x, left, told).float()) / left.clamp(min=NEAR)[:, None, None]

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        vectors, own = self.squeeze(self.latents(batch.images), progress)
        time = torch.rand(len(vectors), device=vectors.device)
        group = (time * self.groups).long().clamp(max=self.groups - 1)
        left = 1 - shifted(time)
        x, velocity = noised(self.patches(batch.images), left)
        found = self.velocity(x, left, self.told(self.conditions(vectors), group))
        velocity = velocity * (left / left.clamp(min=NEAR))[:, None, None]  # so that the image is what is asked for
        terms = {"flow": (found - velocity).square().mean() / DATA**2, "bottleneck": own}
        if self.perceptual:
            made = self.images(x - left[:, None, None] * found)
            terms["perceptual"] = self.perceptual * self.helpers["perceptual"](made, batch.images)
        return terms

    def stream(self, vectors: Tensor, seeds: Sequence[int]) -> Iterator[Tensor]:
        """What each step makes of the first k vectors (B, k, D), as far as they last: a preview of the image, and after
        the last group the image. Steps are Adams-Bashforth of second order, the first one Euler's."""
        conditions = self.conditions(vectors)
        x = seeded_noise(seeds, (self.shape.patches, 3 * self.shape.patch**2)).to(conditions)
        total = self.groups * self.steps
        left = 1 - shifted(torch.linspace(0, 1, total + 1))
        before: tuple[Tensor, float] | None = None
        for step in range(total):
            first = step // self.steps * self.each
            told = conditions[:, first : first + self.each] if self.aligned else conditions
            if not told.shape[1]:
                return
            time = left[step].expand(len(x)).to(x)
            velocity = self.velocity(x, time, told)
            length = float(left[step] - left[step + 1])
            led = velocity
            if before is not None:
                half = length / (2 * before[1])
                led = (1 + half) * velocity - half * before[0]
            preview = x - float(left[step]) * velocity
            x, before = x - length * led, (velocity, length)
            yield self.images(x if step == total - 1 else preview)

    def pixels(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        assert seeds is not None, "a flow decoder needs seeds"
        *_, image = self.stream(vectors, seeds)
        return image.clamp(-1, 1)  # noise that is left in a preview reaches further
