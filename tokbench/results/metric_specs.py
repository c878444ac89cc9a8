"""Every metric by name, and nothing else: the one list.

A line names the class, what it must be given, and says in a few words what its numbers are. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokbench.metric_names import INCEPTION, base_metric
from tokbench.stats.naming import INFINITY


@dataclass(frozen=True)
class MetricSpec:
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


def _text(reader: str, suffix: str, says: str) -> MetricSpec:
    scores = [f"{score}{end}{suffix}" for score in ("t_acc", "t_ned", "cer") for end in _ENDS]
    numbers = (*scores, f"words{suffix}", f"words_filtered{suffix}")
    return MetricSpec("text:Text", says, wants=("protocol",), numbers=numbers, reader=reader, suffix=suffix)


def _faces(reader: str, suffix: str, says: str) -> MetricSpec:
    scores = [f"{score}{end}{suffix}" for score in ("f_sim", "f_distance", "f_detected", "f_rank1") for end in _ENDS]
    numbers = (*scores, f"faces{suffix}")
    return MetricSpec("faces:Faces", says, wants=("protocol",), numbers=numbers, reader=reader, suffix=suffix)


def _manifolds(suffix: str, network: str, layer: str, says: str) -> MetricSpec:
    return MetricSpec(
        "precision_recall:PrecisionRecall",
        f"of samples: precision and recall, k = 3, {says}",
        network,
        layer,
        _DISTANCE,
        (f"precision{suffix}", f"recall{suffix}"),
    )


_ENDS = tuple(f"{of}{how}" for of in ("", "_ceiling", "_ratio") for how in ("", "_all", "_curve"))

METRICS: dict[str, MetricSpec] = {
    "psnr": MetricSpec(
        "psnr:PSNR", "mean PSNR in dB; exact images counted apart", wants=("protocol",), numbers=("psnr", "exact")
    ),
    "ssim": MetricSpec("ssim:SSIM", "mean SSIM, 11x11 Gaussian window, RGB", wants=("protocol",)),
    "ms_ssim": MetricSpec("ssim:MultiScaleSSIM", "mean five-scale SSIM, from 161 px on", wants=("protocol",)),
    "lpips": MetricSpec(
        "perceptual:LPIPS", "mean LPIPS 0.1, AlexNet", network="lpips-alex", wants=("name", "protocol")
    ),
    "lpips_vgg": MetricSpec(
        "perceptual:LPIPS", "mean LPIPS 0.1, VGG-16", network="lpips-vgg", wants=("name", "protocol")
    ),
    "rfid": MetricSpec("frechet:Frechet", "Fréchet distance, 2048-d Inception", INCEPTION, "2048", _DISTANCE),
    "rfid_768": MetricSpec(
        "frechet:Frechet", "Fréchet distance, 768-d layer of Inception", INCEPTION, "768", _DISTANCE
    ),
    "rfid_192": MetricSpec(
        "frechet:Frechet", "Fréchet distance, 192-d layer of Inception", INCEPTION, "192", _DISTANCE
    ),
    "rfid_64": MetricSpec("frechet:Frechet", "Fréchet distance, 64-d layer of Inception", INCEPTION, "64", _DISTANCE),
    "sfid": MetricSpec("frechet:Frechet", "Fréchet distance, 2023-d spatial Inception", INCEPTION, "sfid", _DISTANCE),
    "fd_efficientnet": MetricSpec(
        "frechet:Frechet", "Fréchet distance, 1280-d EfficientNet-Lite0", "efficientnet-lite0", "pooled", _DISTANCE
    ),
    "kid": MetricSpec("kid:KID", "kernel distance, 2048-d Inception", INCEPTION, "2048", _DISTANCE),
    "kid_768": MetricSpec("kid:KID", "kernel distance, 768-d layer of Inception", INCEPTION, "768", _DISTANCE),
    "inception_score": MetricSpec(
        "inception_score:InceptionScore", "Inception Score, 10 splits", INCEPTION, "logits_unbiased", _DISTANCE
    ),
    "gfid": MetricSpec(
        "frechet:Frechet", "of samples: Fréchet distance, 2048-d Inception", INCEPTION, "2048", _DISTANCE
    ),
    "gfid_768": MetricSpec("frechet:Frechet", "of samples: the same, 768-d layer", INCEPTION, "768", _DISTANCE),
    "gfid_192": MetricSpec("frechet:Frechet", "of samples: the same, 192-d layer", INCEPTION, "192", _DISTANCE),
    "gfid_64": MetricSpec("frechet:Frechet", "of samples: the same, 64-d layer", INCEPTION, "64", _DISTANCE),
    "precision_recall": _manifolds("", INCEPTION, "2048", "2048-d Inception, as ADM's"),
    "precision_recall_768": _manifolds("_768", INCEPTION, "768", "768-d layer of Inception"),
    "precision_recall_efficientnet": _manifolds("_efficientnet", "efficientnet-lite0", "pooled", "EfficientNet-Lite0"),
    "codebook": MetricSpec(
        "codebook:Codebook",
        "usage, perplexity and entropy of the codebook, per stream",
        numbers=(
            "codebook_usage",
            "perplexity",
            "codebook_entropy",
        ),
    ),
    "coding": MetricSpec(
        "compressibility:Coding",
        "bits an image that lossless coders reach on the codes: order 0, byte pairs",
        numbers=(
            "order0_bits_per_image",
            "bpe_bits_per_image",
            "bpe_tokens_per_image",
            "order0_model_bytes",
            "bpe_model_bytes",
        ),
    ),
    "rate": MetricSpec(
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
    "cost": MetricSpec(
        "generation_cost:Cost",
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
    "speed": MetricSpec(
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


def metric_of(number: str) -> str | None:
    """The metric that computes a number, None where there is none: `psnr` of `exact`, `rfid` of `rfid_infinity` and of
    `pfid`."""
    if perturbed := base_metric(number):
        return perturbed
    base = number.partition(".")[0].removesuffix(INFINITY)
    return next((name for name, entry in METRICS.items() if base in (entry.numbers or (name,))), None)
