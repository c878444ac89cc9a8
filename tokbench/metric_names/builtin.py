"""The specs of tokbench's own metrics, in the order of lists and tables. This module does not import torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tokbench.metric_names.spec import MetricSpec, NumberSpec, Section, TaskKind, Tolerance

INCEPTION = "inception-2015-12-05"
"""The name of the network of FID."""

_EFFICIENTNET = "efficientnet-lite0"

# The largest changes of a number that another CPU, thread count or minor library version may cause. Float32 networks
# agree to about 1e-6 relative, and means over images differed by 3e-7 dB and 2e-7 between two CPUs. A distance between
# similar sets is a small difference of large traces, and some pixels of a decoder are rounded to another level:
# FD-EfficientNet of 108 images differed by a relative 5e-5 between two CPUs and by 3e-7 between one thread and two; it
# did not differ for codecs.
_EXACT = Tolerance()
_MEAN = Tolerance(absolute=1e-5)
_DISTANCE = Tolerance(absolute=1e-5, relative=5e-4)
_KERNEL = Tolerance(absolute=2e-6)
_BITS = Tolerance(relative=1e-4)
# One code in a few thousand may be quantized differently, and a pair of codes may be merged earlier.
_PAIRS, _MODEL = Tolerance(relative=5e-3), Tolerance(relative=1e-2)
# Shares: 2e-3 corresponds to one sample or word in 500. If two readings of a word have almost equal scores, rounding
# decides between them. None of 796 words differed between two CPUs; face distances differed by 3e-5, similarities by
# 7e-6.
_SHARE, _SIMILARITY, _FACE_DISTANCE = Tolerance(absolute=2e-3), Tolerance(absolute=1e-4), Tolerance(absolute=3e-4)

_SETS = ("name", "protocol", "statistics", "paired")
_COMPARES = ("features", "reference")


def _rate() -> MetricSpec:
    return MetricSpec(
        "rate",
        "tokens and bits per image, bpp, compression ratio",
        (
            NumberSpec("tokens_per_image", "tokens/image", 0, None, _EXACT, unit="tokens/image"),
            NumberSpec("bits_per_image", "bits/image", 0, False, _BITS, unit="bits/image"),
            NumberSpec("bpp", "bpp", 3, False, _BITS, unit="bits/pixel"),
            NumberSpec("compression_ratio", "compression ratio", 1, True, _BITS),
        ),
        "tokbench.metrics.rate:Rate",
        requires=("tokens", "image"),
        paired=None,
        default_for=("reconstruct", "truncate"),
        section=Section.RATE,
    )


def _per_image(name: str, title: str, summary: str, higher: bool, path: str, **more: Any) -> MetricSpec:
    """Return the spec of a mean over images of the similarity or distance between each image and its reference."""
    number = NumberSpec(name, title, 4, higher, _MEAN, perturbed=name)
    more.setdefault("default_for", ("reconstruct", "truncate", "decode"))
    return MetricSpec(name, summary, (number,), f"tokbench.metrics.{path}", section=Section.PAIRED, **more)


def _pixels() -> list[MetricSpec]:
    psnr = MetricSpec(
        "psnr",
        "mean PSNR in dB; identical images are counted separately",
        (
            NumberSpec("psnr", "PSNR", 2, True, Tolerance(absolute=1e-3), perturbed="psnr", unit="dB"),
            NumberSpec("exact", "exact images", 0, True, _EXACT, unit="images"),
        ),
        "tokbench.metrics.psnr:PSNR",
        wants=("protocol",),
        default_for=("reconstruct", "truncate", "perturb", "decode"),
        reads=("psnr",),
        section=Section.PAIRED,
    )
    ssim: dict[str, Any] = {"wants": ("protocol",), "reads": ("ssim",)}
    lpips: dict[str, Any] = {"wants": ("name", "protocol"), "reads": ("lpips",)}
    path = "perceptual:LPIPS"
    return [
        psnr,
        _per_image("ssim", "SSIM", "mean SSIM, 11x11 Gaussian window, RGB", True, "ssim:SSIM", **ssim),
        _per_image(
            "ms_ssim", "MS-SSIM", "mean five-scale SSIM, for images of at least 161 px", True, "ssim:MultiScaleSSIM",
            default_for=("reconstruct", "truncate"), **ssim,
        ),
        _per_image("lpips", "LPIPS", "mean LPIPS 0.1, AlexNet", False, path, network="lpips-alex", **lpips),
        _per_image(
            "lpips_vgg", "LPIPS-VGG", "mean LPIPS 0.1, VGG-16", False, path, network="lpips-vgg", default_for=(),
            **lpips,
        ),
    ]  # fmt: skip


def _decoder() -> list[MetricSpec]:
    """Return the specs of the errors of single pixels, and those of the task `decode`."""
    path = "tokbench.metrics.decoder_fidelity:"
    errors = (
        NumberSpec("max_error", "max error", 1, False, Tolerance(absolute=1.0), unit="levels"),
        NumberSpec("p999_error", "99.9 % error", 1, False, Tolerance(absolute=1.0), unit="levels"),
        NumberSpec("changed_share", "pixels off by > 1/255", 4, False, _SHARE),
    )
    to_baseline: dict[str, Any] = {
        "requires": ("baseline", "image"),
        "default_for": ("decode",),
        "section": Section.DECODER,
        "wants": ("protocol",),
    }
    said = "to the decoder itself, of a variant"
    psnr = (
        NumberSpec("decode_psnr", "decode PSNR", 2, True, Tolerance(absolute=1e-2), unit="dB"),
        NumberSpec("decode_exact", "exact decodes", 0, True, _EXACT, unit="images"),
    )
    ssim = NumberSpec("decode_ssim", "decode SSIM", 4, True, _MEAN)
    lpips = NumberSpec("decode_lpips", "decode LPIPS", 4, False, _MEAN)
    seams = (
        NumberSpec("seam_excess", "seam excess", 3, False, Tolerance(absolute=1e-2), unit="levels"),
        NumberSpec("seam_excess_whole", "seam excess, whole", 3, None, Tolerance(absolute=1e-2), unit="levels"),
    )
    return [
        MetricSpec(
            "pixel_errors",
            "largest and 99.9 % error of single pixels, share of pixels off by more than 1/255",
            errors,
            f"{path}PixelErrors",
            wants=("protocol",),
            default_for=("decode",),
            reads=("psnr",),
            section=Section.PAIRED,
        ),
        MetricSpec(
            "decode_psnr", f"mean PSNR {said}", psnr, f"{path}DecoderPSNR", reads=("psnr",), **to_baseline
        ),
        MetricSpec(
            "decode_ssim", f"mean SSIM {said}", (ssim,), f"{path}DecoderSSIM", reads=("ssim",), **to_baseline
        ),
        MetricSpec(
            "decode_lpips", f"mean LPIPS, AlexNet, {said}", (lpips,), f"{path}DecoderLPIPS", network="lpips-alex",
            reads=("lpips",), **to_baseline,
        ),
        MetricSpec(
            "decode_errors",
            f"errors of single pixels {said}",
            tuple(replace(one, name=f"decode_{one.name}", title=f"decode {one.title}") for one in errors),
            f"{path}DecoderPixelErrors",
            reads=("psnr",),
            **to_baseline,
        ),
        MetricSpec(
            "seams",
            "jumps across the borders of a variant's tiles, minus those of the lines beside them",
            seams,
            f"{path}SeamExcess",
            reads=("psnr",),
            **to_baseline | {"requires": ("baseline", "image", "seams")},
        ),
    ]  # fmt: skip


def _frechet(number: NumberSpec, summary: str, layer: str, **more: Any) -> MetricSpec:
    """Return the spec of a Fréchet distance. With section=Section.SAMPLES, it is computed only for samples."""
    given: dict[str, Any] = {"network": INCEPTION, "section": Section.PAIRED} | more
    given.setdefault("paired", given["section"] != Section.SAMPLES)
    return MetricSpec(
        number.name, summary, (number,), "tokbench.metrics.frechet:Frechet", layer=layer, wants=_SETS, reads=_COMPARES,
        extrapolated=True, **given,
    )  # fmt: skip


def _distances() -> list[MetricSpec]:
    found = []
    for layer, default in (
        ("2048", ("reconstruct", "truncate", "perturb")),
        ("768", ("perturb",)),
        ("192", ()),
        ("64", ()),
    ):
        end, digits = ("", 3) if layer == "2048" else (f"_{layer}", 4)
        number = NumberSpec(f"rfid{end}", f"rFID{end.replace('_', '-')}", digits, False, _DISTANCE, f"fid{end}")
        said = f"{layer}-d Inception" if layer == "2048" else f"{layer}-d layer of Inception"
        found.append(_frechet(number, f"Fréchet distance, {said}", layer, default_for=default))
    sfid = NumberSpec("sfid", "sFID", 3, False, _DISTANCE, "sfid")
    found.append(_frechet(sfid, "Fréchet distance, 2023-d spatial Inception", "sfid", paired=None))
    number = NumberSpec("fd_efficientnet", "FD-EfficientNet", 3, False, _DISTANCE, "fid_efficientnet")
    found.append(
        _frechet(
            number,
            "Fréchet distance, 1280-d EfficientNet-Lite0",
            "pooled",
            network=_EFFICIENTNET,
            paired=None,
            default_for=("reconstruct", "truncate", "perturb", "generate"),
        )
    )
    for end, said in (("", "2048-d Inception"), ("_768", "768-d layer of Inception")):
        number = NumberSpec(f"kid{end}", f"KID{end.replace('_', '-')}", 6, False, _KERNEL, f"kid{end}")
        found.append(
            MetricSpec(
                number.name,
                f"kernel distance, {said}",
                (number,),
                "tokbench.metrics.kid:KID",
                INCEPTION,
                end.removeprefix("_") or "2048",
                _SETS,
                paired=None,
                reads=_COMPARES,
                section=Section.PAIRED,
            )
        )
    return found


def _semantics() -> list[MetricSpec]:
    """Return the specs of what an ImageNet classifier sees."""
    given: dict[str, Any] = {"network": _EFFICIENTNET, "reads": ("features",), "section": Section.PAIRED}
    path = "tokbench.metrics.semantics:"
    retention = (
        NumberSpec("agreement", "class agreement", 4, True, _SHARE),
        NumberSpec("feature_cosine", "feature cosine", 4, True, _SIMILARITY),
    )
    accuracy = (
        NumberSpec("top1", "top-1", 4, True, _SHARE),
        NumberSpec("top1_original", "top-1, original", 4, None, _SHARE),
    )
    said = "of EfficientNet-Lite0"
    return [
        MetricSpec(
            "semantics", f"agreement of the class predictions {said} with those for the originals, cosine of features",
            retention, f"{path}Semantics", wants=("protocol",), **given,
        ),
        MetricSpec(
            "semantics_top1", f"top-1 accuracy {said}, for images with ILSVRC-2012 labels",
            accuracy, f"{path}Top1", wants=("labels", "protocol"), **given,
        ),
    ]  # fmt: skip


def _samples() -> list[MetricSpec]:
    found = []
    for layer in ("2048", "768", "192", "64"):
        end, digits = ("", 3) if layer == "2048" else (f"_{layer}", 4)
        number = NumberSpec(f"gfid{end}", f"gFID{end.replace('_', '-')}", digits, False, _DISTANCE)
        said = f"Fréchet distance, {layer}-d layer of Inception" if end else "Fréchet distance, 2048-d Inception"
        default: tuple[TaskKind, ...] = ("generate",) if layer in ("2048", "768") else ()
        found.append(_frechet(number, f"of samples: {said}", layer, section=Section.SAMPLES, default_for=default))
    found.append(
        MetricSpec(
            "inception_score",
            "Inception Score, 10 splits",
            (NumberSpec("inception_score", "IS", 2, True, Tolerance(relative=1e-4)),),
            "tokbench.metrics.inception_score:InceptionScore",
            INCEPTION,
            "logits_unbiased",
            _SETS,
            ("image",),
            paired=None,
            reads=("features", "inception_score"),
            section=Section.SAMPLES,
        )
    )
    for end, title, network, layer, said in (
        ("", "", INCEPTION, "2048", "2048-d Inception, as in ADM"),
        ("_768", "-768", INCEPTION, "768", "768-d layer of Inception"),
        ("_efficientnet", " EfficientNet", _EFFICIENTNET, "pooled", "EfficientNet-Lite0"),
    ):
        numbers = tuple(NumberSpec(f"{one}{end}", f"{one}{title}", 4, True, _SHARE) for one in ("precision", "recall"))
        chosen: tuple[TaskKind, ...] = ("generate",) if network == _EFFICIENTNET else ()
        found.append(
            MetricSpec(
                f"precision_recall{end}",
                f"of samples: precision and recall, k = 3, {said}",
                numbers,
                "tokbench.metrics.precision_recall:PrecisionRecall",
                network,
                layer,
                _SETS,
                paired=False,
                default_for=chosen,
                reads=_COMPARES,
                section=Section.SAMPLES,
            )
        )
    return found


def _codes() -> list[MetricSpec]:
    codebook = MetricSpec(
        "codebook",
        "usage, perplexity and entropy of the codebook, per stream",
        (
            NumberSpec("codebook_usage", "codebook usage", 4, True, Tolerance(absolute=1e-4)),
            NumberSpec("perplexity", "perplexity", 1, True, Tolerance(relative=1e-3)),
            NumberSpec("codebook_entropy", "codebook entropy", 3, None, Tolerance(absolute=1e-3), unit="bits"),
        ),
        "tokbench.metrics.codebook:Codebook",
        requires=("tokens",),
        paired=None,
        default_for=("reconstruct", "truncate", "generate"),
        needs_codebook=True,
        section=Section.CODES,
    )
    coding = MetricSpec(
        "coding",
        "bits per image of losslessly coded indices: order-0 and byte-pair coding",
        (
            NumberSpec(
                "order0_bits_per_image", "order-0 bits/image", 0, False, Tolerance(relative=1e-3), unit="bits/image"
            ),
            NumberSpec("bpe_bits_per_image", "BPE bits/image", 0, False, _PAIRS, unit="bits/image"),
            NumberSpec("bpe_tokens_per_image", "BPE tokens/image", 1, None, _PAIRS, unit="tokens/image"),
            NumberSpec("order0_model_bytes", "order-0 model bytes", 0, None, _MODEL, unit="bytes"),
            NumberSpec("bpe_model_bytes", "BPE model bytes", 0, None, _MODEL, unit="bytes"),
        ),
        "tokbench.metrics.compressibility:Coding",
        requires=("tokens",),
        paired=None,
        needs_codebook=True,
        section=Section.CODES,
    )
    return [codebook, coding]


TEXT_SCORES = (
    NumberSpec("t_acc", "T-ACC", 4, True, _SHARE, scored=True),
    NumberSpec("t_ned", "T-NED", 4, True, _SHARE, scored=True),
    NumberSpec("cer", "CER", 4, False, _SHARE, scored=True),
)
FACE_SCORES = (
    NumberSpec("f_sim", "F-Sim", 4, True, _SIMILARITY, scored=True),
    NumberSpec("f_distance", "face distance", 4, False, _FACE_DISTANCE, scored=True),
    NumberSpec("f_detected", "faces found", 4, True, _SHARE, scored=True),
    NumberSpec("f_rank1", "rank-1 identity", 4, True, _SHARE, scored=True),
)


def _annotated(reader: str, suffix: str, title: str, summary: str) -> MetricSpec:
    """Return the spec of the text or face metric of one recognizer. The default recognizer has no suffix."""
    words = reader in ("rapidocr", "easyocr", "parseq")
    counts = ("words", "words filtered") if words else ("faces",)
    numbers = (
        *(TEXT_SCORES if words else FACE_SCORES),
        *(NumberSpec(count.replace(" ", "_"), count, 0, None, _EXACT) for count in counts),
    )
    return MetricSpec(
        f"{'text' if words else 'faces'}{suffix}", summary, numbers,
        "tokbench.metrics.text:Text" if words else "tokbench.metrics.faces:Faces", wants=("protocol",),
        requires=("reference", "image", "marked"), reader=reader, suffix=suffix, reader_title=title,
        section=Section.ANNOTATED,
    )  # fmt: skip


def _machine() -> list[MetricSpec]:
    cost = MetricSpec(
        "cost",
        "of samples: network evaluations, GFLOPs per image, latency in ms",
        (
            NumberSpec("network_evaluations", "network evaluations", 0, False, unit="evaluations"),
            NumberSpec("gflops_per_image", "GFLOPs/image", 2, False, unit="GFLOP/image"),
            NumberSpec("decode_gflops_per_image", "decode GFLOPs/image", 2, False, unit="GFLOP/image"),
            NumberSpec("sample_latency_ms", "sample ms", 1, False, unit="ms"),
            NumberSpec("decode_latency_ms", "decode ms", 1, False, unit="ms"),
            NumberSpec("saturated_samples_per_second", "samples/s, saturated", 1, True, unit="images/s"),
            NumberSpec("saturated_decodes_per_second", "decodes/s, saturated", 1, True, unit="images/s"),
        ),
        "tokbench.metrics.generation_cost:Cost",
        wants=("model", "device", "guidance"),
        requires=(),
        paired=False,
        default_for=("generate",),
        timed=True,
        section=Section.COST,
    )
    speed = MetricSpec(
        "speed",
        "parameters, encode and decode images/s, peak memory",
        (
            NumberSpec("parameters", "parameters", 0, section=Section.SIZE),
            NumberSpec("encode_images_per_second", "encode images/s", 1, True, unit="images/s"),
            NumberSpec("sample_images_per_second", "sample images/s", 1, True, unit="images/s"),
            NumberSpec("decode_images_per_second", "decode images/s", 1, True, unit="images/s"),
            NumberSpec("peak_memory_mib", "peak memory MiB", 0, False, unit="MiB"),
        ),
        "tokbench.metrics.throughput:Throughput",
        wants=("model", "device", "batch_size"),
        requires=("timing",),
        paired=None,
        default_for=("reconstruct", "truncate", "generate", "decode"),
        timed=True,
        section=Section.SPEED,
    )
    return [cost, speed]


BUILTIN: tuple[MetricSpec, ...] = (
    _rate(),
    *_pixels(),
    *_decoder(),
    *_distances(),
    *_semantics(),
    *_samples(),
    *_codes(),
    _annotated("rapidocr", "", "", "T-ACC, T-NED and CER of words, by RapidOCR's PP-OCRv6"),
    _annotated("easyocr", "_easyocr", " EasyOCR", "T-ACC, T-NED and CER of words, by EasyOCR"),
    _annotated("parseq", "_parseq", " PARSeq", "T-ACC, T-NED and CER of words, by docTR's PARSeq, as in TokBench"),
    _annotated("dlib", "", "", "F-Sim, detection and rank-1 identity of faces, by dlib's network"),
    _annotated(
        "insightface",
        "_insightface",
        " antelopev2",
        "F-Sim, detection and rank-1 identity of faces, by antelopev2, as in TokBench",
    ),
    _annotated(
        "buffalo_l",
        "_buffalo_l",
        " buffalo_l",
        "F-Sim, detection and rank-1 identity of faces, by InsightFace's buffalo_l",
    ),
    *_machine(),
)
