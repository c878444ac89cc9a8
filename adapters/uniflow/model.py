"""The model: a pre-trained encoder, a narrow bottleneck, and a small flow that generates each patch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.flow import add_noise, gaussian_velocity, logit_normal, seeded_noise, timestep_embedding
from tokbench.nn.quantizers.bottleneck import Deterministic
from tokbench.nn.semantic_vit import LayeredViT
from tokbench.nn.shortcut import PatchShortcut
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Pixels, Shape, Transformer, initialise, sincos_positions

Distillation = Literal["adaptive", "uniform", "none"]

BETA = 2.0
"""Sharpness of the adaptive weights of layers; the paper's value is not public."""

UNIFORM = 0.1
"""Share of the patches whose noise level is uniform on [0, 1]; the others' are logit-normal."""


class UniFlow(BottleneckAutoencoder):
    """A tokenizer with one latent per patch for semantics and pixels (arXiv:2510.10575).

    The encoder starts as a copy of a pre-trained one and is distilled against it layer by layer. A decoder of `depth`
    blocks turns the latents into one condition per patch. Its head models what is left of a patch after the linear map
    from the latent, in units of the standard deviation of these residuals.

    distillation: how the layers are weighted. head: "flow", or "linear" for an ablation that predicts the residual with
    one linear map. flow_blocks: number of residual blocks of the flow. steps: number of Euler steps of decoding.
    """

    perceptual = 0.0
    shortcut: PatchShortcut
    deviation: Tensor

    def __init__(
        self,
        shape: Shape,
        channels: int,
        depth: int,
        distillation: Distillation,
        head: Literal["flow", "linear"] = "flow",
        flow_blocks: int = 3,
        steps: int = 1,
    ) -> None:
        """Raises ValueError for an unknown head or distillation, or fewer than one step."""
        super().__init__()
        if head not in ("flow", "linear") or distillation not in ("adaptive", "uniform", "none") or steps < 1:
            raise ValueError(
                "head must be flow or linear, distillation adaptive, uniform or none, and steps 1 or more; "
                f"not {head!r}, {distillation!r} and {steps}"
            )
        width = shape.width
        self.size, self.step, self.tokens = shape.size, shape.patch, shape.patches
        self.distillation, self.steps = distillation, steps
        self.encoder, self.bottleneck = LayeredViT(shape), Deterministic(channels)
        self.down = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, channels)).apply(initialise)
        self.up = nn.Sequential(nn.Linear(channels, width), nn.GELU(), nn.Linear(width, width)).apply(initialise)
        self.positions, self.places = (sincos_positions(shape.side, width) for _ in range(2))
        self.body = Transformer(width, depth, shape.heads)
        self.head = PatchFlow(3 * shape.patch**2, width, flow_blocks) if head == "flow" else Pixels(shape)
        self.add_shortcut(PatchShortcut(self.bottleneck, shape.patch, grid=False), self.down[-1], self.head.linear)
        self.register_buffer("deviation", torch.ones(()))

    def start_from(self, teacher: LayeredViT) -> None:
        """Copy the weights of a pre-trained encoder, which stays frozen as the teacher of the distillation."""
        self.encoder.load_state_dict(teacher.state_dict())
        self.bases = {"teacher": teacher}

    def start(self, batch: TrainingBatch) -> None:
        super().start(batch)
        patches = self.shortcut.cut(batch.images)
        self.deviation.copy_((patches - self.shortcut.out(self.shortcut.latents(batch.images))).std())

    def encoded(self, images: Tensor) -> Tensor:
        return self.down(self.encoder(images))

    def condition(self, vectors: Tensor) -> Tensor:
        """Map latents (B, N, C) to one condition per patch, (B, N, width)."""
        return self.body(self.up(vectors) + self.positions) + self.places

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        condition = self.condition(vectors)
        if isinstance(self.head, Pixels):
            return self.head(condition) * self.deviation
        assert seeds is not None, "a flow decoder needs seeds"
        noise = seeded_noise(seeds, (vectors.shape[1], self.head.values)).to(condition)
        residuals = self.head.sample(noise.flatten(0, 1), condition.flatten(0, 1), self.steps)
        return self.shortcut.paste(residuals.unflatten(0, condition.shape[:2]) * self.deviation)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        layers = self.encoder.layers(batch.images)
        latents = self.down(layers[-1]) + self.shortcut.latents(batch.images)
        vectors, _ = self.squeeze(latents)
        residuals = (self.shortcut.cut(batch.images) - self.shortcut.out(vectors)) / self.deviation
        condition = self.condition(vectors)
        if isinstance(self.head, Pixels):
            missing = self.head(condition) - self.shortcut.paste(residuals)
            terms = {"pixels": missing.float().square().mean()}
        else:
            terms = {"flow": self.head.loss(residuals.flatten(0, 1), condition.flatten(0, 1))}
        return terms | self.distilled(layers, batch.images)

    def distilled(self, layers: Sequence[Tensor], images: Tensor) -> dict[str, Tensor]:
        """Return the distillation of `layers`, each (B, N, width), against the frozen teacher as a term of the loss.

        The distance a_l of layer l of L is the mean of 1 - cosine similarity over tokens. Adaptive weights are
        proportional to (l / L) exp(BETA a_l), so that late layers and those that have drifted count most.
        """
        if self.distillation == "none":
            return {}
        teacher = self.bases["teacher"]
        assert isinstance(teacher, LayeredViT)
        with torch.no_grad():
            targets = teacher.layers(images)
        pairs = zip(layers, targets, strict=True)
        distances = torch.stack([(1 - F.cosine_similarity(x.float(), y.float(), dim=-1)).mean() for x, y in pairs])
        weights = torch.ones_like(distances)
        if self.distillation == "adaptive":
            weights = torch.arange(1, len(layers) + 1, device=images.device) * (BETA * distances.detach()).exp()
        return {"distillation": (weights / weights.sum() * distances).sum()}


class PatchFlow(nn.Module):
    """A rectified flow of single patches: an MLP with adaptive norms (MAR's diffusion head, arXiv:2406.11838).

    It generates standardised vectors of `values` values. The velocity is that of normal data plus the network's output,
    which starts at 0, so that one step from noise gives the mean at first and a trained correction later.
    """

    def __init__(self, values: int, width: int, blocks: int) -> None:
        super().__init__()
        self.values, self.width = values, width
        self.noised, self.condition = nn.Linear(values, width), nn.Linear(width, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.last, self.linear = nn.Linear(width, 2 * width), nn.Linear(width, values)
        self.apply(initialise)
        for zero in (self.last, *(block.modulate for block in self.blocks)):
            nn.init.zeros_(zero.weight)

    def forward(self, noised: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Return the velocity (M, values) of `noised` (M, values) at `time` (M,), given conditions (M, width)."""
        signal = F.silu(self.time(timestep_embedding(time, self.width)) + self.condition(condition))
        x = self.noised(noised)
        for block in self.blocks:
            x = block(x, signal)
        shift, scale = self.last(signal).chunk(2, -1)
        learned = self.linear(self.norm(x) * (1 + scale) + shift)
        return gaussian_velocity(noised, time, 0.0, 1.0) + learned.float()

    def loss(self, target: Tensor, condition: Tensor) -> Tensor:
        """Return the squared error of the velocity for standardised targets (M, values), a scalar."""
        times = logit_normal(len(target), target.device)
        times = torch.where(torch.rand(len(target), device=target.device) < UNIFORM, torch.rand_like(times), times)
        noised, velocity = add_noise(target.float(), times)
        return (self(noised, times, condition) - velocity).square().mean()

    def sample(self, noise: Tensor, condition: Tensor, steps: int) -> Tensor:
        """Map noise (M, values) to standardised vectors in `steps` Euler steps of equal length."""
        x = noise
        for step in range(steps):
            time = torch.full((len(x),), 1 - step / steps, device=x.device)
            x = x - self(x, time, condition) / steps
        return x


class _Block(nn.Module):
    """A residual MLP whose shift, scale and gate depend on a signal (M, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.modulate = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, signal: Tensor) -> Tensor:
        shift, scale, gate = self.modulate(signal).chunk(3, -1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)
