"""The specs of metrics of clips, waveforms and voxels."""

from __future__ import annotations

from typing import Any

from tokbench.metric_names.constants import BITS, COMPARES, DISTANCE, EXACT, INCEPTION, MEAN, SETS, SHARE
from tokbench.metric_names.spec import MetricSpec, Modality, NumberSpec, Section, TaskKind, Tolerance

_TASKS: tuple[TaskKind, ...] = ("reconstruct", "truncate")
_DB, _LEVELS = Tolerance(absolute=1e-3), Tolerance(absolute=1e-3)


def _spec(
    modality: Modality, name: str, summary: str, numbers: tuple[NumberSpec, ...], path: str, **more: Any
) -> MetricSpec:
    given: dict[str, Any] = {"section": Section.PAIRED, "default_for": _TASKS} | more
    return MetricSpec(name, summary, numbers, f"tokbench.modalities.{path}", modalities=(modality,), **given)


def video_specs() -> list[MetricSpec]:
    """Return the specs of the metrics of clips."""

    def of(name: str, *given: Any, **more: Any) -> MetricSpec:
        return _spec("video", name, *given, **more)

    rate = of(
        "clip_rate",
        "tokens and bits per clip and per second, bits per pixel",
        (
            NumberSpec("tokens_per_clip", "tokens/clip", 0, None, EXACT, unit="tokens/clip"),
            NumberSpec("bits_per_clip", "bits/clip", 0, False, BITS, unit="bits/clip"),
            NumberSpec("clip_tokens_per_second", "tokens/s", 1, None, BITS, unit="tokens/s"),
            NumberSpec("clip_kbps", "kbit/s", 2, False, BITS, unit="kbit/s"),
            NumberSpec("clip_bpp", "bits/pixel", 4, False, BITS, unit="bits/pixel"),
        ),
        "video.rate:ClipRate",
        requires=("tokens", "image"),
        section=Section.RATE,
    )
    rules: dict[str, Any] = {"wants": ("protocol",)}
    psnr = NumberSpec("frame_psnr", "frame PSNR", 2, True, _DB, unit="dB")
    whole = NumberSpec("clip_psnr", "clip PSNR", 2, True, _DB, unit="dB")
    ssim = NumberSpec("frame_ssim", "frame SSIM", 4, True, MEAN)
    lpips = NumberSpec("frame_lpips", "frame LPIPS", 4, False, MEAN)
    frechet = NumberSpec("frame_fid_768", "frame FID-768", 4, False, DISTANCE)
    warp = (
        NumberSpec("warp_error", "warp error", 3, False, _LEVELS, unit="levels"),
        NumberSpec("warp_error_original", "warp error, original", 3, None, _LEVELS, unit="levels"),
    )
    flicker = NumberSpec("flicker", "flicker", 3, False, _LEVELS, unit="levels")
    found = [
        rate,
        of(
            "frame_psnr", "mean PSNR of the frames of a clip", (psnr,), "video.frames:FramePSNR", reads=("psnr",),
            **rules,
        ),
        of("clip_psnr", "PSNR over all pixels of a clip", (whole,), "video.frames:ClipPSNR", reads=("psnr",), **rules),
        of(
            "frame_ssim", "mean SSIM of the frames of a clip", (ssim,), "video.frames:FrameSSIM", reads=("ssim",),
            **rules,
        ),
        of(
            "frame_lpips", "mean LPIPS of the frames of a clip, AlexNet", (lpips,), "video.frames:FrameLPIPS",
            network="lpips-alex", reads=("lpips",), **rules,
        ),
        of(
            "flicker", "mean difference between the frame differences of output and original", (flicker,),
            "video.motion:Flicker", **rules,
        ),
        of(
            "warp_error", "mean change of a point along the exact flow, for data with exact flow", warp,
            "video.motion:WarpError", **rules,
        ),
        of(
            "frame_fid_768", "Fréchet distance of all frames, 768-d layer of Inception", (frechet,),
            "video.frames:FrameFrechet", network=INCEPTION, layer="768", wants=("name", "protocol"), reads=COMPARES,
            extrapolated=True,
        ),
    ]  # fmt: skip
    for convention, title in (("styleganv", "StyleGAN-V"), ("tats", "TATS")):
        number = NumberSpec(f"rfvd_{convention}", f"rFVD ({title})", 2, False, DISTANCE)
        found.append(
            MetricSpec(
                number.name, f"Fréchet video distance in the convention of {title}, with your I3D file", (number,),
                "tokbench.metrics.frechet:Frechet", network=f"i3d-{convention}", layer="logits",
                wants=tuple(name for name in SETS if name != "statistics"), reads=COMPARES, section=Section.PAIRED,
                modalities=("video",), extrapolated=True,
            )
        )  # fmt: skip
    return found


def sound_specs() -> list[MetricSpec]:
    """Return the specs of the metrics of waveforms."""

    def of(name: str, *given: Any, **more: Any) -> MetricSpec:
        return _spec("sound", name, *given, **more)

    rate = (
        NumberSpec("sound_tokens_per_second", "tokens/s", 1, None, BITS, unit="tokens/s"),
        NumberSpec("sound_kbps", "kbit/s", 2, False, BITS, unit="kbit/s"),
    )
    si_sdr = NumberSpec("si_sdr", "SI-SDR", 2, True, _DB, unit="dB")
    mel = NumberSpec("log_mel", "log-mel distance", 4, False, MEAN)
    stft = NumberSpec("mr_stft", "multi-resolution STFT", 4, False, MEAN)
    scores = (
        NumberSpec("dnsmos", "DNSMOS", 2, True, MEAN),
        NumberSpec("dnsmos_original", "DNSMOS of originals", 2, None, MEAN),
        NumberSpec("dnsmos_signal", "DNSMOS signal", 2, True, MEAN),
        NumberSpec("dnsmos_background", "DNSMOS background", 2, True, MEAN),
        NumberSpec("dnsmos_p808", "DNSMOS P.808", 2, True, MEAN),
    )
    lookahead = (
        NumberSpec("streamable", "streamable", 2, True, EXACT),
        NumberSpec("lookahead_ms", "look-ahead ms", 1, False, EXACT, unit="ms"),
    )
    return [
        of(
            "sound_rate", "tokens and kilobits per second", rate, "sound.rate:SoundRate", requires=("tokens", "image"),
            section=Section.RATE,
        ),
        of("si_sdr", "scale-invariant signal-to-distortion ratio in dB", (si_sdr,), "sound.spectra:SiSdr"),
        of("log_mel", "mean difference of log-mel spectrograms", (mel,), "sound.spectra:LogMel"),
        of(
            "mr_stft", "spectral convergence and log-magnitude difference at three resolutions", (stft,),
            "sound.spectra:MultiResolutionStft",
        ),
        of("dnsmos", "listening scores of speech that networks predict", scores, "sound.dnsmos:Dnsmos", default_for=()),
        of(
            "streamable", "whether outputs depend on later input and on how much, measured with noise", lookahead,
            "sound.rate:Streamable", wants=("model", "device"), section=Section.COST, paired=True,
        ),
    ]  # fmt: skip


def shape_specs() -> list[MetricSpec]:
    """Return the specs of the metrics of voxels."""

    def of(name: str, *given: Any, **more: Any) -> MetricSpec:
        return _spec("shape", name, *given, **more)

    rate = (
        NumberSpec("tokens_per_shape", "tokens/shape", 0, None, EXACT, unit="tokens/shape"),
        NumberSpec("bytes_per_shape", "bytes/shape", 1, False, BITS, unit="bytes/shape"),
    )
    distances = (
        NumberSpec("chamfer", "Chamfer", 5, False, MEAN),
        NumberSpec("f_score", "F-score", 4, True, SHARE),
    )
    rules: dict[str, Any] = {"wants": ("protocol",), "reads": ("shapes",)}
    iou = NumberSpec("iou", "IoU", 4, True, SHARE)
    colour = NumberSpec("colour_psnr", "colour PSNR", 2, True, _DB, unit="dB")
    return [
        of(
            "shape_rate", "tokens and bytes per shape", rate, "shapes.rate:ShapeRate", requires=("tokens", "image"),
            section=Section.RATE,
        ),
        of("iou", "intersection over union of occupied voxels", (iou,), "shapes.metrics:IoU", **rules),
        of(
            "surface_distance", "Chamfer distance and F-score of the occupied voxels", distances,
            "shapes.metrics:SurfaceDistance", **rules,
        ),
        of(
            "colour_psnr", "PSNR of the colours of voxels that are occupied in both", (colour,),
            "shapes.metrics:ColourPSNR", **rules,
        ),
    ]  # fmt: skip
