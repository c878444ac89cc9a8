"""Adversarial training of decoders: PatchGAN discriminator, hinge losses and LeCam regularisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LECAM = 0.001
"""Weight of the LeCam term in the discriminator's loss, as in TiTok and RobusTok."""


class PatchGAN(nn.Module):
    """A discriminator (arXiv:1611.07004): images (B, 3, H, W) to one score per patch (B, 1, H / 8, W / 8).

    It uses group norm, not batch norm: batch statistics differ between references and reconstructions, so that their
    scores would not be comparable.
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
    """LeCam regularisation (arXiv:2104.03310), which stabilises adversarial training on few images.

    It penalises reference scores above the moving average of the reconstructions' scores, and reconstruction scores
    below the moving average of the references' scores.
    """

    averages: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("averages", torch.zeros(2))

    def forward(self, real_scores: Tensor, fake_scores: Tensor) -> Tensor:
        means = torch.stack([real_scores.detach().float().mean(), fake_scores.detach().float().mean()])
        self.averages.lerp_(means, 1 - self.decay)
        penalty = F.relu(real_scores - self.averages[1]).square() + F.relu(self.averages[0] - fake_scores).square()
        return penalty.mean()


class Adversary(nn.Module):
    """A discriminator with the two losses of adversarial training.

    `against` returns the term of the model's loss, multiplied by `weight`; `loss` returns the discriminator's own loss,
    which a second optimiser minimises.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.critic, self.lecam = PatchGAN(), LeCam()
        self._last_pair: tuple[Tensor, Tensor] | None = None

    def against(self, image: Tensor, reference: Tensor) -> Tensor:
        """Return the adversarial term of the model's loss, a scalar.

        image: reconstructions (B, 3, H, W) in [-1, 1]. reference: the originals, same shape and range.
        """
        self._last_pair = reference, image.detach()
        return self.weight * generator_loss(self.critic(image))

    def loss(self) -> Tensor | None:
        """Return the discriminator's loss on the last batch given to `against`; None if there was no new one."""
        if self._last_pair is None:
            return None
        real_scores, fake_scores = (self.critic(side) for side in self._last_pair)
        self._last_pair = None
        return discriminator_loss(real_scores, fake_scores) + LECAM * self.lecam(real_scores, fake_scores)


def discriminator_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Return the discriminator's hinge loss; it is 0 if references score above 1 and reconstructions below -1."""
    return (F.relu(1 - real_scores).mean() + F.relu(1 + fake_scores).mean()) / 2


def generator_loss(fake_scores: Tensor) -> Tensor:
    """Return the decoder's adversarial loss: the negative mean score of its reconstructions."""
    return -fake_scores.mean()
