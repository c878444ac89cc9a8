"""The model: frozen VQ tokens of the small image control a frozen latent flow, which becomes a one-step decoder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.base_latents import with_base_latents
from tokbench.nn.flow import FlowDecoder, add_noise, gaussian_velocity, logit_normal, seeded_noise
from tokbench.nn.priors.flow import Flow
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.shortcut import fit_ridge
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.nn.vit import initialise

ONE_STEP_FROM = 0.5
"""Share of the training after which the flow is turned into a one-step decoder."""

LEVELS = 8
"""Number of noise levels of the consistency training."""

CONSISTENCY = 0.1
"""Weight of the consistency loss."""


class Layton(BottleneckAutoencoder):
    """Decodes VQ tokens of an image of half the size with a controlled latent flow (Layton).

    Frozen are the tokenizer, the latent flow `prior`, of which the unconditional model is used, and the autoencoder of
    its latents. Trained is a control branch whose features are added to those of the flow. The velocity also contains a
    linear term, which is fitted before the training: it shifts the flow as if the latents were normal with the linear
    regression on the tokens as the mean, so that one step gives about this regression at first.

    In the second half of the training, the flow becomes a consistency model (arXiv:2303.01469), whose outputs are
    decoded and compared with the image. depth: number of blocks of the control branch. one_step: whether there is a
    second stage. pixel_loss: whether it compares pixels. steps: number of Euler steps of decoding.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, tokenizer: ConvAutoencoder, prior: Flow, around: ConvAutoencoder, depth: int, one_step: bool,
        pixel_loss: bool, steps: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.bases = {"tokenizer": tokenizer, "prior": prior, "autoencoder": around}
        self.size, self.tokens, self.step = prior.size, prior.count, around.step
        self.one_step, self.pixel_loss, self.steps = one_step, pixel_loss, steps
        self.control = ControlBranch(prior.network, self.bottleneck.dim, depth)
        self.linear = nn.Linear(9 * self.bottleneck.dim, prior.depth).requires_grad_(False)
        self.register_buffer("deviation", torch.ones(prior.depth))

    @property
    def tokenizer(self) -> ConvAutoencoder:
        found = self.bases["tokenizer"]
        assert isinstance(found, ConvAutoencoder)
        return found

    @property
    def bottleneck(self) -> VectorQuantizer:  # type: ignore[override]
        """The frozen tokenizer's quantizer."""
        found = self.tokenizer.bottleneck
        assert isinstance(found, VectorQuantizer)
        return found

    @property
    def prior(self) -> Flow:
        found = self.bases["prior"]
        assert isinstance(found, Flow)
        return found

    @property
    def around(self) -> ConvAutoencoder:
        found = self.bases["autoencoder"]
        assert isinstance(found, ConvAutoencoder)
        return found

    def prepare_data(
        self, data: TrainingData, device: str, mirrored: bool, progress: Callable[[int, int], None]
    ) -> TrainingData:
        return with_base_latents("layton", self.around, data, device, mirrored, progress)

    @torch.no_grad()
    def start(self, batch: TrainingBatch) -> None:
        parts = [self.squeeze(self.latents(images))[0] for images in batch.images.split(256)]
        inputs, targets = self.neighbours(torch.cat(parts)).flatten(0, 1), self.targets(batch).flatten(0, 1)
        fit_ridge(self.linear, inputs, targets)
        self.deviation.copy_((targets - self.linear(inputs)).std(0))

    def targets(self, batch: TrainingBatch) -> Tensor:
        """Return the images' latents (B, N, C), standardised as the flow expects them."""
        assert batch.tokens is not None, "prepare_data adds the autoencoder's latents"
        with torch.no_grad():
            means = self.around.squeeze(batch.tokens.float())[0]
        return (means - self.prior.mean) / self.prior.deviation

    def encoded(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.tokenizer.latents(F.avg_pool2d(images, 2))

    @staticmethod
    def neighbours(vectors: Tensor) -> Tensor:
        """Return the vectors (B, h, w, D) of each position and of its eight neighbours, (B, h w, 9 D); 0 outside."""
        return F.unfold(vectors.permute(0, 3, 1, 2), 3, padding=1).transpose(1, 2)

    def velocity(self, noised: Tensor, time: Tensor, vectors: Tensor) -> Tensor:
        """Return the velocity (B, N, C) of noised latents (B, N, C) at `time` (B,), given tokens' vectors (B, h, w, D).

        The frozen flow gets no class.
        """
        label = self.prior.label[:1].expand(len(noised), 1, -1)
        dropped = torch.zeros(label.shape[:2], dtype=torch.bool, device=noised.device)
        control = self.control(noised, time, label, dropped, vectors.flatten(1, 2))
        controlled = self.prior.network(noised, time, label, dropped, control)
        guess = self.linear(self.neighbours(vectors)).float()
        known = gaussian_velocity(noised, time, guess, self.deviation) - gaussian_velocity(noised, time, 0.0, 1.0)
        return controlled.float() + known

    def image(self, latents: Tensor) -> Tensor:
        """Decode standardised latents (B, N, C) to images (B, 3, H, W) with the frozen autoencoder."""
        side = round(latents.shape[1] ** 0.5)
        return self.around.pixels((latents * self.prior.deviation + self.prior.mean).unflatten(1, (side, side)))

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        assert seeds is not None, "a flow decoder needs seeds"
        x = seeded_noise(seeds, (self.prior.count, self.prior.depth)).to(vectors)
        for step in range(self.steps):
            time = torch.full((len(x),), 1 - step / self.steps, device=x.device)
            x = x - self.velocity(x, time, vectors) / self.steps
        return self.image(x)

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        target, (vectors, _) = self.targets(batch), self.squeeze(self.latents(batch.images))
        if not self.one_step or progress < ONE_STEP_FROM:
            time = logit_normal(len(target), target.device)
            noised, velocity = add_noise(target, time)
            return {"flow": (self.velocity(noised, time, vectors) - velocity).square().mean()}
        found, nearer = self.consistent(target, vectors)
        terms = {"consistency": CONSISTENCY * (found - nearer).square().mean()}
        return terms | self.compare(self.image(found), batch.images, progress) if self.pixel_loss else terms

    def consistent(self, target: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents (B, N, C) predicted in one step from a noise level, and those from the next lower level.

        Both are predicted from the same latents and the same noise; the latter have no gradient. Half of the images are
        at the highest level, which is the one of decoding.
        """
        level = torch.randint(1, LEVELS + 1, (len(target),), device=target.device)
        level = torch.where(torch.rand(len(target), device=target.device) < 0.5, LEVELS, level)
        noise = torch.randn_like(target)

        def predicted(level: Tensor) -> Tensor:
            time = level / LEVELS
            t = time.view(-1, 1, 1)
            noised = (1 - t) * target + t * noise
            return noised - t * self.velocity(noised, time, vectors)

        with torch.no_grad():
            nearer = predicted(level - 1)
        return predicted(level), nearer


class ControlBranch(nn.Module):
    """A trainable copy of a flow's embeddings and first `depth` blocks, with the tokens as an additional input.

    Its outputs start at zero (ControlNet, arXiv:2302.05543). dim: number of values of a token's vector.
    """

    def __init__(self, network: FlowDecoder, dim: int, depth: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(True)
        self.network.blocks = self.network.blocks[:depth]
        del self.network.head, self.network.last
        self.given = nn.Linear(dim, network.width).apply(initialise)
        self.out = nn.ModuleList(nn.Linear(network.width, network.width) for _ in range(depth))
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, noised: Tensor, time: Tensor, label: Tensor, keep: Tensor, vectors: Tensor) -> list[Tensor]:
        """Return the features (B, N, width) that are added after each of the first blocks of the frozen flow.

        vectors: (B, N, dim), one for each position; the other arguments are those of `FlowDecoder.embedded`.
        """
        x, modulation, _ = self.network.embedded(noised, time, label, keep)
        count = noised.shape[1]
        x = x + F.pad(self.given(vectors), (0, 0, 0, x.shape[1] - count))
        outputs = []
        for block, out in zip(self.network.blocks, self.out, strict=True):
            x = block(x, modulation)
            outputs.append(out(x[:, :count]))
        return outputs
