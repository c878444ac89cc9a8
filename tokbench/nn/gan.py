"""Adversaries of decoders: PatchGAN, the hinge loss, and LeCam's regularisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LECAM = 0.001
"""Weight of LeCam's term in the critic's loss: TiTok's and RobusTok's."""


class PatchGAN(nn.Module):
    """Images (B, 3, H, W) to a score for each patch (B, 1, h, w); three strided convolutions (arXiv:1611.07004).

    Group norm in place of batch norm: with the latter a batch of references and one of images would not be comparable.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for before in (width, 2 * width):
            layers += [nn.Conv2d(before, 2 * before, 4, 2, 1), nn.GroupNorm(8, 2 * before), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


class LeCam(nn.Module):
    """Keeps an adversary's scores near moving averages of those of the other side (arXiv:2104.03310), which steadies
    training on few images."""

    averages: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("averages", torch.zeros(2))

    def forward(self, of_reference: Tensor, of_image: Tensor) -> Tensor:
        now = torch.stack([of_reference.detach().float().mean(), of_image.detach().float().mean()])
        self.averages.lerp_(now, 1 - self.decay)
        apart = F.relu(of_reference - self.averages[1]).square() + F.relu(self.averages[0] - of_image).square()
        return apart.mean()


class Adversary(nn.Module):
    """A critic that learns to tell references from images; what it says of the images, `weight` times, is a term of the
    model's loss, and its own loss is for an optimiser of its own."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.critic, self.lecam = PatchGAN(), LeCam()
        self._seen: tuple[Tensor, Tensor] | None = None

    def against(self, image: Tensor, reference: Tensor) -> Tensor:
        """The term of the model's loss, a scalar, for images and references (B, 3, H, W) in [-1, 1]."""
        self._seen = reference, image.detach()
        return self.weight * deceive(self.critic(image))

    def loss(self) -> Tensor | None:
        """The critic's own loss on what it was last asked about; None where it was not asked since."""
        if self._seen is None:
            return None
        of_reference, of_image = (self.critic(side) for side in self._seen)
        self._seen = None
        return hinge(of_reference, of_image) + LECAM * self.lecam(of_reference, of_image)


def hinge(of_reference: Tensor, of_image: Tensor) -> Tensor:
    """The adversary's loss: scores of references above 1, of images below -1."""
    return (F.relu(1 - of_reference).mean() + F.relu(1 + of_image).mean()) / 2


def deceive(of_image: Tensor) -> Tensor:
    """The decoder's loss against the hinge: its images' scores as high as they go."""
    return -of_image.mean()
