"""Convolutional autoencoders of waveforms, as in SoundStream (arXiv:2107.03312), causal or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.metric_names import Modality
from tokbench.nn.quantizers.bottleneck import Bottleneck
from tokbench.nn.shortcut import Shortcut
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import TrainingBatch

START = 256
"""Number of waveforms from which the linear maps and the first codebooks are fitted."""

STFT_SIZES = (128, 256, 512)
"""FFT sizes of the loss in samples; the window has the same length, and the hop is a quarter of it."""

MAGNITUDE_FLOOR = 1e-3
"""The smallest magnitude in the loss: about that of the rounding of 16-bit samples, whose logarithms are noise."""


class Conv(nn.Conv1d):
    """A convolution (B, C, N) -> (B, C', N / stride) that pads with silence: at the start only if it is causal.

    Without dilation the kernel must not be shorter than the stride; with dilation the stride must be 1.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, causal: bool, *, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, dilation=dilation)
        total = dilation * (kernel - 1) + 1 - stride
        self.margins = (total, 0) if causal else (total // 2, total - total // 2)

    def forward(self, values: Tensor) -> Tensor:
        return super().forward(F.pad(values, self.margins))


class UpConv(nn.ConvTranspose1d):
    """A transposed convolution (B, C, N) -> (B, C', N * stride); if it is causal, frame i affects no sample before
    i * stride."""

    def __init__(self, inputs: int, outputs: int, stride: int, causal: bool) -> None:
        super().__init__(inputs, outputs, 2 * stride, stride=stride)
        self.left = 0 if causal else stride // 2

    def forward(self, values: Tensor, output_size: list[int] | None = None) -> Tensor:
        made = super().forward(values, output_size)
        return made.narrow(-1, self.left, values.shape[-1] * self.stride[0])


class Residual(nn.Module):
    """A residual unit: a dilated convolution and one of a single sample, added to the input (B, C, N)."""

    def __init__(self, width: int, dilation: int, causal: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ELU(), Conv(width, width, 3, causal, dilation=dilation), nn.ELU(), nn.Conv1d(width, width, 1)
        )

    def forward(self, values: Tensor) -> Tensor:
        return values + self.layers(values)


class WaveShortcut(Shortcut):
    """Linear maps of frames of `step` samples of a mono waveform, one latent per frame."""

    def __init__(self, bottleneck: Bottleneck, step: int) -> None:
        super().__init__(bottleneck, step)
        self.step = step

    def cut(self, images: Tensor) -> Tensor:
        """Cut waveforms (B, 1, N) into frames (B, N / step, step)."""
        return images.unflatten(-1, (-1, self.step)).squeeze(1)

    def paste(self, vectors: Tensor) -> Tensor:
        return vectors.flatten(1)[:, None]


class WaveAutoencoder(BottleneckAutoencoder):
    """An autoencoder of mono waveforms (B, 1, N), N a multiple of `step` = prod(strides), with one token per step.

    Each stride has a convolution to one of `widths` channels, followed by `units` residual units with dilations 1, 3,
    9; the decoder mirrors the encoder. causal: no output sample depends on input after its frame. linear: whether
    linear maps, fitted by PCA before the training, are added to the networks. spectral: weight of the spectral loss.
    Raises ValueError unless there is one width for each stride.
    """

    perceptual = 0.0  # its network takes images
    modalities: tuple[Modality, ...] = ("sound",)

    def __init__(
        self,
        bottleneck: Bottleneck,
        widths: Sequence[int],
        strides: Sequence[int],
        *,
        causal: bool = True,
        units: int = 1,
        linear: bool = True,
        spectral: float = 0.1,
    ) -> None:
        super().__init__()
        if len(widths) != len(strides):
            raise ValueError(f"there are {len(widths)} widths for {len(strides)} strides; give one for each")
        self.step, self.causal, self.spectral = prod(strides), causal, spectral
        down: list[nn.Module] = []
        up: list[nn.Module] = [Conv(bottleneck.dim, widths[-1], 3, causal)]
        below = [1, *widths[:-1]]
        for before, width, stride in zip(below, widths, strides, strict=True):
            down += [nn.ELU()] if down else []
            down += [Conv(before, width, 2 * stride, causal, stride=stride)]
            down += [Residual(width, 3**unit, causal) for unit in range(units)]
        for before, width, stride in reversed([*zip(below, widths, strides, strict=True)]):
            up += [Residual(width, 3**unit, causal) for unit in range(units)]
            up += [nn.ELU(), UpConv(width, before, stride, causal)]
        self.encoder = nn.Sequential(*down, nn.ELU(), Conv(widths[-1], bottleneck.dim, 3, causal))
        self.bottleneck, self.decoder = bottleneck, nn.Sequential(*up)
        if linear:
            self.add_shortcut(WaveShortcut(bottleneck, self.step), self.encoder[-1], self.decoder[-1])

    def start(self, batch: TrainingBatch) -> None:
        super().start(replace(batch, images=batch.images[:START]))

    def encoded(self, images: Tensor) -> Tensor:
        return self.encoder(images).transpose(1, 2)

    def decoded(self, vectors: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        return self.decoder(vectors.transpose(1, 2))

    def compare(self, image: Tensor, reference: Tensor, progress: float) -> dict[str, Tensor]:
        """Return the mean absolute difference of waveforms (B, 1, N) in [-1, 1] and their weighted spectral loss."""
        image = image.float()
        terms = {"waveform": (image - reference).abs().mean()}
        return terms | {"spectral": self.spectral * spectral_loss(image[:, 0], reference[:, 0])}


def spectral_loss(image: Tensor, reference: Tensor) -> Tensor:
    """Return the multi-resolution STFT loss of waveforms (B, N), a scalar (Parallel WaveGAN, arXiv:1910.11480).

    It is the mean over `STFT_SIZES` of the spectral convergence of the batch and the mean absolute difference of the
    natural logarithms of magnitudes. Hann windows, waveforms continued by zeros.
    """
    terms = []
    for size in STFT_SIZES:
        window = torch.hann_window(size, device=image.device)
        ours, theirs = (
            torch.stft(waves, size, size // 4, window=window, pad_mode="constant", return_complex=True)
            .abs()
            .clamp(min=MAGNITUDE_FLOOR)
            for waves in (image, reference)
        )
        convergence = torch.linalg.norm(theirs - ours) / torch.linalg.norm(theirs)
        terms.append(convergence + (ours.log() - theirs.log()).abs().mean())
    return torch.stack(terms).mean()
