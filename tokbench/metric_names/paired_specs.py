"""The specs of metrics that compare each image with its reference, or with the image of the decoder itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tokbench.metric_names.constants import EFFICIENTNET, EXACT, MEAN, SHARE, SIMILARITY
from tokbench.metric_names.spec import MetricSpec, NumberSpec, Section, Tolerance


def _per_image(name: str, title: str, summary: str, higher: bool, path: str, **more: Any) -> MetricSpec:
    """Return the spec of a mean over images of the similarity or distance between each image and its reference."""
    number = NumberSpec(name, title, 4, higher, MEAN, perturbed=name)
    more.setdefault("default_for", ("reconstruct", "truncate", "decode"))
    return MetricSpec(name, summary, (number,), f"tokbench.metrics.{path}", section=Section.PAIRED, **more)


def pixels_specs() -> list[MetricSpec]:
    psnr = MetricSpec(
        "psnr",
        "mean PSNR in dB; identical images are counted separately",
        (
            NumberSpec("psnr", "PSNR", 2, True, Tolerance(absolute=1e-3), perturbed="psnr", unit="dB"),
            NumberSpec("exact", "exact images", 0, True, EXACT, unit="images"),
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
        _per_image(
            "dists", "DISTS", "mean DISTS, VGG-16", False, "perceptual:DISTS", network="dists", default_for=(),
            wants=("name", "protocol"),
        ),
        _per_image(
            "color_shift", "color shift", "mean difference of the mean R, G and B of an image, in levels", False,
            "color:ColorShift", default_for=(),
        ),
        _restoration(),
    ]  # fmt: skip


def _restoration() -> MetricSpec:
    """Return the spec of the metric that every run with degraded input has."""
    return MetricSpec(
        "restoration",
        "PSNR of the degraded input, and the gain of the output over it; computed with --degrade",
        (
            NumberSpec("input_psnr", "input PSNR", 2, None, Tolerance(absolute=1e-3), unit="dB"),
            NumberSpec("psnr_gain", "PSNR gain", 2, True, Tolerance(absolute=1e-3), unit="dB"),
        ),
        "tokbench.metrics.restoration:Restoration",
        wants=("protocol",),
        requires=("reference", "image", "degraded"),
        reads=("psnr",),
        section=Section.PAIRED,
    )


def decoder_specs() -> list[MetricSpec]:
    """Return the specs of the errors of single pixels, and those of the task `decode`."""
    path = "tokbench.metrics.decoder_fidelity:"
    errors = (
        NumberSpec("max_error", "max error", 1, False, Tolerance(absolute=1.0), unit="levels"),
        NumberSpec("p999_error", "99.9 % error", 1, False, Tolerance(absolute=1.0), unit="levels"),
        NumberSpec("changed_share", "pixels off by > 1/255", 4, False, SHARE),
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
        NumberSpec("decode_exact", "exact decodes", 0, True, EXACT, unit="images"),
    )
    ssim = NumberSpec("decode_ssim", "decode SSIM", 4, True, MEAN)
    lpips = NumberSpec("decode_lpips", "decode LPIPS", 4, False, MEAN)
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


def semantics_specs() -> list[MetricSpec]:
    """Return the specs of what an ImageNet classifier sees."""
    given: dict[str, Any] = {"network": EFFICIENTNET, "reads": ("features",), "section": Section.PAIRED}
    path = "tokbench.metrics.semantics:"
    retention = (
        NumberSpec("agreement", "class agreement", 4, True, SHARE),
        NumberSpec("feature_cosine", "feature cosine", 4, True, SIMILARITY),
    )
    accuracy = (
        NumberSpec("top1", "top-1", 4, True, SHARE),
        NumberSpec("top1_original", "top-1, original", 4, None, SHARE),
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
