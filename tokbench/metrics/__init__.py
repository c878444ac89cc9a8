"""Every metric by name, and nothing else: the one list.

A line names the class, what it must be given, and says in a few words what its numbers are. Files are imported only
when a metric is asked for, so listing them imports no torch and one broken file costs only its own metrics.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokbench.errors import UsageError

if TYPE_CHECKING:
    from tokbench.metrics.metric import Metric
    from tokbench.readers import Networks
    from tokbench.tokenizer import Reconstructor


@dataclass(frozen=True)
class Entry:
    """One metric: `module:Class`, the frozen network and layer it reads, and a summary for `tokbench list metrics`."""

    path: str
    summary: str
    network: str | None = None
    layer: str | None = None
    wants: tuple[str, ...] = ()


_INCEPTION = "inception-2015-12-05"

METRICS: dict[str, Entry] = {
    "psnr": Entry("psnr:PSNR", "mean per-image PSNR in dB; exact images counted apart"),
    "ssim": Entry("ssim:SSIM", "mean SSIM, 11x11 Gaussian window, RGB"),
    "ms_ssim": Entry("ssim:MultiScaleSSIM", "mean five-scale SSIM, from 161 px on"),
    "lpips": Entry("perceptual:LPIPS", "mean LPIPS 0.1, AlexNet", network="lpips-alex", wants=("name",)),
    "lpips_vgg": Entry("perceptual:LPIPS", "mean LPIPS 0.1, VGG-16", network="lpips-vgg", wants=("name",)),
    "rfid": Entry("frechet:Frechet", "Fréchet distance, 2048-d Inception", _INCEPTION, "2048", ("name",)),
    "rfid_768": Entry("frechet:Frechet", "Fréchet distance, 768-d layer of Inception", _INCEPTION, "768", ("name",)),
    "rfid_192": Entry("frechet:Frechet", "Fréchet distance, 192-d layer of Inception", _INCEPTION, "192", ("name",)),
    "rfid_64": Entry("frechet:Frechet", "Fréchet distance, 64-d layer of Inception", _INCEPTION, "64", ("name",)),
    "sfid": Entry("frechet:Frechet", "Fréchet distance, 2023-d spatial Inception", _INCEPTION, "sfid", ("name",)),
    "fd_efficientnet": Entry(
        "frechet:Frechet", "Fréchet distance, 1280-d EfficientNet-Lite0", "efficientnet-lite0", "pooled", ("name",)
    ),
    "kid": Entry("kid:KID", "kernel distance, 2048-d Inception", _INCEPTION, "2048", ("name",)),
    "kid_768": Entry("kid:KID", "kernel distance, 768-d layer of Inception", _INCEPTION, "768", ("name",)),
    "inception_score": Entry("inception_score:InceptionScore", "Inception Score, 10 splits", _INCEPTION),
    "codebook": Entry("codebook:Codebook", "usage, perplexity and entropy of the codebook, per stream"),
    "rate": Entry("rate:Rate", "tokens and bits per image, bpp, compression ratio"),
    "speed": Entry(
        "throughput:Throughput",
        "parameters, encode and decode images/s, peak memory",
        wants=("model", "device", "batch_size"),
    ),
}

DEFAULT = ("rate", "psnr", "ssim", "ms_ssim", "lpips", "rfid", "fd_efficientnet", "codebook", "speed")
"""What `tokbench eval` computes when it is not told."""


def choose(names: str | None) -> list[str]:
    """Metric names from a comma-separated list, `all`, or None for the default. Raises UsageError for unknown ones."""
    if names is None:
        return list(DEFAULT)
    if names == "all":
        return list(METRICS)
    asked = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in asked if name not in METRICS]
    if unknown or not asked:
        raise UsageError(f"no metric '{', '.join(unknown)}'; there are: {', '.join(METRICS)}")
    return list(dict.fromkeys(asked))


def build(name: str, networks: Networks, model: Reconstructor, batch_size: int = 16) -> Metric:
    """A fresh metric of that name. Raises MissingWeights where its network's weights are not here."""
    entry = METRICS[name]
    module, _, kind = entry.path.partition(":")
    given: dict[str, object] = {"name": name, "model": model, "device": networks.device, "batch_size": batch_size}
    arguments = {key: given[key] for key in entry.wants}
    if entry.network:
        arguments["network"] = networks.get(entry.network)
    if entry.layer:
        arguments["layer"] = entry.layer
    metric: Metric = getattr(importlib.import_module(f"tokbench.metrics.{module}"), kind)(**arguments)
    return metric
