"""Every metric by name, and nothing else: the one list.

A line names the class, what it must be given, and says in a few words what its numbers are. Files are imported only
when a metric is asked for, so listing them imports no torch and one broken file costs only its own metrics.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokbench.cells import plain
from tokbench.errors import UsageError
from tokbench.halves import INFINITY
from tokbench.protocol import TOKBENCH, Protocol
from tokbench.weights import INCEPTION

if TYPE_CHECKING:
    from tokbench.metrics.metric import Metric
    from tokbench.readers import Networks
    from tokbench.statistics import Statistics
    from tokbench.tokenizer import Reconstructor


@dataclass(frozen=True)
class Entry:
    """One metric: `module:Class`, the frozen network and layer it reads, and a summary for `tokbench list metrics`.

    numbers: what it computes, where that is not one number of its own name. reader: what reads words or faces.
    """

    path: str
    summary: str
    network: str | None = None
    layer: str | None = None
    wants: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    reader: str | None = None
    suffix: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields of a protocol that change it, beside those that change the pixels of every metric."""
        return _READS.get(self.path.partition(":")[0], ())


_READS = {
    "psnr": ("psnr",),
    "ssim": ("ssim",),
    "perceptual": ("lpips",),
    "frechet": ("features", "reference"),
    "kid": ("features", "reference"),
    "inception_score": ("features", "inception_score"),
    "precision_recall": ("features", "reference"),
}

_DISTANCE = ("name", "protocol", "statistics", "paired")


def _text(reader: str, suffix: str, says: str) -> Entry:
    scores = [f"{score}{end}{suffix}" for score in ("t_acc", "t_ned", "cer") for end in _ENDS]
    numbers = (*scores, f"words{suffix}", f"words_filtered{suffix}")
    return Entry("text:Text", says, wants=("protocol",), numbers=numbers, reader=reader, suffix=suffix)


def _faces(reader: str, suffix: str, says: str) -> Entry:
    scores = [f"{score}{end}{suffix}" for score in ("f_sim", "f_distance", "f_detected", "f_rank1") for end in _ENDS]
    numbers = (*scores, f"faces{suffix}")
    return Entry("faces:Faces", says, wants=("protocol",), numbers=numbers, reader=reader, suffix=suffix)


def _manifolds(suffix: str, network: str, layer: str, says: str) -> Entry:
    return Entry(
        "precision_recall:PrecisionRecall",
        f"of samples: precision and recall, k = 3, {says}",
        network,
        layer,
        _DISTANCE,
        (f"precision{suffix}", f"recall{suffix}"),
    )


_ENDS = tuple(f"{of}{how}" for of in ("", "_ceiling", "_ratio") for how in ("", "_all", "_curve"))

METRICS: dict[str, Entry] = {
    "psnr": Entry(
        "psnr:PSNR", "mean PSNR in dB; exact images counted apart", wants=("protocol",), numbers=("psnr", "exact")
    ),
    "ssim": Entry("ssim:SSIM", "mean SSIM, 11x11 Gaussian window, RGB", wants=("protocol",)),
    "ms_ssim": Entry("ssim:MultiScaleSSIM", "mean five-scale SSIM, from 161 px on", wants=("protocol",)),
    "lpips": Entry("perceptual:LPIPS", "mean LPIPS 0.1, AlexNet", network="lpips-alex", wants=("name", "protocol")),
    "lpips_vgg": Entry("perceptual:LPIPS", "mean LPIPS 0.1, VGG-16", network="lpips-vgg", wants=("name", "protocol")),
    "rfid": Entry("frechet:Frechet", "Fréchet distance, 2048-d Inception", INCEPTION, "2048", _DISTANCE),
    "rfid_768": Entry("frechet:Frechet", "Fréchet distance, 768-d layer of Inception", INCEPTION, "768", _DISTANCE),
    "rfid_192": Entry("frechet:Frechet", "Fréchet distance, 192-d layer of Inception", INCEPTION, "192", _DISTANCE),
    "rfid_64": Entry("frechet:Frechet", "Fréchet distance, 64-d layer of Inception", INCEPTION, "64", _DISTANCE),
    "sfid": Entry("frechet:Frechet", "Fréchet distance, 2023-d spatial Inception", INCEPTION, "sfid", _DISTANCE),
    "fd_efficientnet": Entry(
        "frechet:Frechet", "Fréchet distance, 1280-d EfficientNet-Lite0", "efficientnet-lite0", "pooled", _DISTANCE
    ),
    "kid": Entry("kid:KID", "kernel distance, 2048-d Inception", INCEPTION, "2048", _DISTANCE),
    "kid_768": Entry("kid:KID", "kernel distance, 768-d layer of Inception", INCEPTION, "768", _DISTANCE),
    "inception_score": Entry(
        "inception_score:InceptionScore", "Inception Score, 10 splits", INCEPTION, "logits_unbiased", _DISTANCE
    ),
    "gfid": Entry("frechet:Frechet", "of samples: Fréchet distance, 2048-d Inception", INCEPTION, "2048", _DISTANCE),
    "gfid_768": Entry("frechet:Frechet", "of samples: the same, 768-d layer", INCEPTION, "768", _DISTANCE),
    "gfid_192": Entry("frechet:Frechet", "of samples: the same, 192-d layer", INCEPTION, "192", _DISTANCE),
    "gfid_64": Entry("frechet:Frechet", "of samples: the same, 64-d layer", INCEPTION, "64", _DISTANCE),
    "precision_recall": _manifolds("", INCEPTION, "2048", "2048-d Inception, as ADM's"),
    "precision_recall_768": _manifolds("_768", INCEPTION, "768", "768-d layer of Inception"),
    "precision_recall_efficientnet": _manifolds("_efficientnet", "efficientnet-lite0", "pooled", "EfficientNet-Lite0"),
    "codebook": Entry(
        "codebook:Codebook",
        "usage, perplexity and entropy of the codebook, per stream",
        numbers=(
            "codebook_usage",
            "perplexity",
            "codebook_entropy",
        ),
    ),
    "coding": Entry(
        "coding:Coding",
        "bits an image that lossless coders reach on the codes: order 0, byte pairs",
        numbers=(
            "order0_bits_per_image",
            "bpe_bits_per_image",
            "bpe_tokens_per_image",
            "order0_model_bytes",
            "bpe_model_bytes",
        ),
    ),
    "rate": Entry(
        "rate:Rate",
        "tokens and bits per image, bpp, compression ratio",
        numbers=(
            "tokens_per_image",
            "bits_per_image",
            "bpp",
            "compression_ratio",
        ),
    ),
    "text": _text("rapidocr", "", "T-ACC, T-NED and CER of words, by RapidOCR's PP-OCRv6"),
    "text_easyocr": _text("easyocr", "_easyocr", "the same by EasyOCR"),
    "text_parseq": _text("parseq", "_parseq", "the same by docTR's PARSeq, TokBench's own reader"),
    "faces": _faces("dlib", "", "F-Sim, detection and rank-1 identity of faces, by dlib's network"),
    "faces_insightface": _faces("insightface", "_insightface", "the same by InsightFace's antelopev2, TokBench's own"),
    "faces_buffalo_l": _faces("buffalo_l", "_buffalo_l", "the same by InsightFace's buffalo_l"),
    "cost": Entry(
        "cost:Cost",
        "of samples: passes of the network, GFLOPs an image, ms for one",
        wants=("model", "device", "guidance"),
        numbers=(
            "network_evaluations",
            "gflops_per_image",
            "decode_gflops_per_image",
            "sample_latency_ms",
            "decode_latency_ms",
            "saturated_samples_per_second",
            "saturated_decodes_per_second",
        ),
    ),
    "speed": Entry(
        "throughput:Throughput",
        "parameters, encode and decode images/s, peak memory",
        wants=("model", "device", "batch_size"),
        numbers=(
            "parameters",
            "encode_images_per_second",
            "sample_images_per_second",
            "decode_images_per_second",
            "peak_memory_mib",
        ),
    ),
}

DEFAULT = ("rate", "psnr", "ssim", "ms_ssim", "lpips", "rfid", "fd_efficientnet", "codebook", "speed")
"""What `tokbench eval` computes when neither the user nor the protocol tells it."""


ONLY_OF_SAMPLES = (
    "gfid",
    "gfid_768",
    "gfid_192",
    "gfid_64",
    "precision_recall",
    "precision_recall_768",
    "precision_recall_efficientnet",
    "cost",
)
OF_SAMPLES = (
    *ONLY_OF_SAMPLES,
    *("sfid", "fd_efficientnet", "kid", "kid_768", "inception_score", "rate", "codebook", "coding", "speed"),
)
"""Metrics that samples have, which are paired with nothing."""

GENERATED = ("gfid", "gfid_768", "fd_efficientnet", "precision_recall_efficientnet", "codebook", "cost", "speed")
"""What `tokbench eval --task generate` computes when the user does not tell it."""


def choose_for(samples: bool, names: str | None, protocol: Protocol = TOKBENCH) -> list[str]:
    """The same as `choose`, for samples or for reconstructions. Raises UsageError, too, for a metric that is asked for
    by its name and that they do not have."""
    if samples and names is None:
        return list(GENERATED)
    chosen = choose(names, protocol)
    wrong = [name for name in chosen if (name not in OF_SAMPLES if samples else name in ONLY_OF_SAMPLES)]
    if wrong and names != "all":
        why = (
            f"samples are paired with nothing; they have {', '.join(OF_SAMPLES)}" if samples else "give --task generate"
        )
        raise UsageError(f"{', '.join(wrong)}: of {'reconstructions' if samples else 'samples'}; {why}")
    return [name for name in chosen if name not in wrong]


def metric_of(number: str) -> str | None:
    """The metric that computes a number, None where there is none: `psnr` of `exact`, `rfid` of `rfid_infinity` and of
    `pfid`."""
    if perturbed := plain(number):
        return perturbed
    base = number.partition(".")[0].removesuffix(INFINITY)
    return next((name for name, entry in METRICS.items() if base in (entry.numbers or (name,))), None)


def choose(names: str | None, protocol: Protocol = TOKBENCH) -> list[str]:
    """Metric names from a comma-separated list, `all`, or None for the default. Raises UsageError for unknown ones.

    The default is what the protocol's authors publish, and the rest of tokbench's; `lpips` is the protocol's network.
    """
    if names is None:
        asked = dict.fromkeys([*DEFAULT, *protocol.published.metrics])
        return [_LPIPS[protocol.lpips.net] if name == "lpips" else name for name in asked]
    if names == "all":
        return list(METRICS)
    given = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in given if name not in METRICS]
    if unknown or not given:
        raise UsageError(f"no metric '{', '.join(unknown)}'; there are: {', '.join(METRICS)}")
    return list(dict.fromkeys(given))


_LPIPS = {"alex": "lpips", "vgg": "lpips_vgg"}


def build(
    name: str,
    networks: Networks,
    model: Reconstructor,
    protocol: Protocol = TOKBENCH,
    batch_size: int = 16,
    statistics: Statistics | None = None,
    paired: bool = True,
    guidance: float | None = None,
    rows: bool = False,
) -> Metric:
    """A fresh metric of that name; `statistics` are a reference's, in place of those of the images to come. `paired`:
    whether each image is made from one reference. `guidance`: the scale at which a generator is sampled.
    `rows`: whether images lie beside the statistics, for metrics that need more of them than these.

    Raises MissingWeights where its network's weights are not here, NotApplicable where the statistics do not fit.
    """
    entry = METRICS[name]
    module, _, kind = entry.path.partition(":")
    given: dict[str, object] = {
        "name": name, "model": model, "device": networks.device, "batch_size": batch_size, "protocol": protocol,
        "statistics": statistics, "paired": paired,
        "guidance": guidance,
    }  # fmt: skip
    made = getattr(importlib.import_module(f"tokbench.metrics.{module}"), kind)
    if rows and getattr(made, "needs_rows", False):
        given["statistics"] = None
    arguments = {key: given[key] for key in entry.wants}
    if entry.network:
        arguments["network"] = networks.get(entry.network, _input_path(entry.network, protocol))
    if entry.reader:
        arguments |= {"reader": networks.reader(entry.reader), "suffix": entry.suffix}
    if entry.layer:
        arguments["layer"] = entry.layer
    metric: Metric = made(**arguments)
    return metric


def _input_path(network: str, protocol: Protocol) -> str | None:
    if network == INCEPTION:
        return protocol.features.input
    return protocol.lpips.input if network.startswith("lpips") else None
