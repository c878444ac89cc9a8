"""The specs of metrics of latents: the latent report (group `latent`), and iFID."""

from __future__ import annotations

from typing import Any

from tokbench.metric_names.constants import (
    COMPARES,
    DISTANCE,
    EFFICIENTNET,
    EXACT,
    INCEPTION,
    LATENT,
    MEAN,
    PROBE,
    SETS,
    SIMILARITY,
)
from tokbench.metric_names.spec import MetricSpec, NumberSpec, Section, Tolerance

STATISTIC, ENTROPY, LEVELS = Tolerance(relative=1e-3), Tolerance(absolute=1e-2), Tolerance(absolute=1e-2)

NETWORKS = (
    ("", "FID", INCEPTION, "2048", "2048-d Inception", 3),
    ("_768", "FID-768", INCEPTION, "768", "768-d layer of Inception", 4),
    ("_efficientnet", "FD-EfficientNet", EFFICIENTNET, "pooled", "1280-d EfficientNet-Lite0", 3),
)
"""The networks of distances: the end of the name, the title, the network, its layer, its description, and digits."""


def latent_specs() -> list[MetricSpec]:
    return [*_vectors(), *_low_pass(), *_codes(), *_interpolated()]


def _vectors() -> list[MetricSpec]:
    report: dict[str, Any] = {"section": Section.LATENTS, "group": LATENT}
    statistics = (
        NumberSpec("latent_mean", "latent mean", 4, None, STATISTIC),
        NumberSpec("latent_std", "latent std", 4, None, STATISTIC),
        NumberSpec("latent_std_ratio", "channel std ratio", 4, None, STATISTIC),
        NumberSpec("latent_kurtosis", "latent kurtosis", 3, None, ENTROPY),
        NumberSpec("effective_rank", "effective rank", 2, True, STATISTIC, unit="channels"),
        NumberSpec("effective_rank_share", "effective rank / channels", 4, True, STATISTIC),
    )
    equivariance = tuple(
        NumberSpec(f"equivariance_{name}{end}", f"{name} error{said}", 2, False, LEVELS, unit="levels")
        for end, said in (("", ""), ("_own", ", own"))
        for name in ("rotate", "flip", "shift", "scale")
    )
    return [
        MetricSpec(
            "latent_statistics", "mean, deviation and kurtosis of the channels of latents, effective rank", statistics,
            "tokbench.metrics.latent_statistics:LatentStatistics", wants=("model",), requires=("image", "tokens"),
            **report,
        ),
        MetricSpec(
            "spectral_match", "distance of the spectrum of latents from that of the reduced image",
            (NumberSpec("spectral_match", "spectral match", 4, False, MEAN, unit="nats"),),
            "tokbench.metrics.spectrum:SpectralMatch", wants=("model",), requires=("reference", "tokens"), **report,
        ),
        MetricSpec(
            "lds", "cosine of the vectors of neighbouring tokens minus that of distant ones",
            (NumberSpec("lds", "LDS", 4, None, SIMILARITY),),
            "tokbench.metrics.locality:Locality", wants=("model",), requires=("image", "tokens"), **report,
        ),
        MetricSpec(
            "equivariance", "errors of decoding rotated, flipped, shifted and scaled tokens", equivariance,
            "tokbench.metrics.equivariance:Equivariance", wants=("model", "batch_size"),
            requires=("reference", "image", "tokens"), **report,
        ),
    ]  # fmt: skip


def _low_pass() -> list[MetricSpec]:
    found = []
    for end, title, network, layer, said, digits in NETWORKS:
        name = f"lowpass_fd{end}" if network == EFFICIENTNET else f"lowpass_rfid{end}"
        shown = f"low-pass {title if network == EFFICIENTNET else f'r{title}'}"
        found.append(
            MetricSpec(
                name,
                f"Fréchet distance of images decoded from low-pass latents to low-pass originals, {said}",
                (NumberSpec(name, shown, digits, False, DISTANCE),),
                "tokbench.metrics.spectrum:LowPassFrechet",
                network,
                layer,
                ("name", "protocol", "paired", "model", "batch_size"),
                ("reference", "tokens"),
                reads=COMPARES,
                extrapolated=True,
                section=Section.LATENTS,
                group=LATENT,
            )
        )
    return found


def _codes() -> list[MetricSpec]:
    entropy = (
        NumberSpec("conditional_entropy", "conditional entropy", 3, None, ENTROPY, unit="bits"),
        NumberSpec("entropy_cliff", "entropy cliff t*", 0, None, EXACT, unit="tokens"),
        NumberSpec("entropy_cliff_measured", "entropy cliff, measured", 2, None, ENTROPY, unit="tokens"),
    )
    first = tuple(
        NumberSpec(f"probe_first_{count}", f"linear probe, first {count}", 4, True, PROBE) for count in (1, 10)
    )
    return [
        MetricSpec(
            "code_entropy",
            "entropy of the first codes given those before them, and the token after which it vanishes",
            entropy,
            "tokbench.metrics.code_entropy:CodeEntropy",
            requires=("tokens",),
            needs_codebook=True,
            section=Section.LATENTS,
            group=LATENT,
        ),
        MetricSpec(
            "probe_first",
            "accuracy of linear probes on the first token and the first 10 tokens, for datasets with labels",
            first,
            "tokbench.metrics.probe:FirstTokensProbe",
            wants=("model",),
            requires=("tokens", "labels"),
            section=Section.LATENTS,
            group=LATENT,
        ),
    ]


def _interpolated() -> list[MetricSpec]:
    found = []
    for start, path, how in (
        ("", "InterpolatedFID", "half way to the nearest other image's latents"),
        ("_top10", "SampledIFID", "half way to the tokens of one of the ten most similar images"),
    ):
        for end, title, network, layer, said, digits in NETWORKS:
            name = f"{'ifd' if network == EFFICIENTNET else 'ifid'}{start}{end}"
            column = f"i{title}{' top-10' if start else ''}"
            found.append(
                MetricSpec(
                    name,
                    f"Fréchet distance of images decoded {how}, {said}",
                    (NumberSpec(name, column, digits, False, DISTANCE),),
                    f"tokbench.metrics.ifid:{path}",
                    network,
                    layer,
                    (*SETS, "model", "neighbours", "batch_size"),
                    ("reference", "tokens"),
                    reads=COMPARES,
                    extrapolated=True,
                    section=Section.LATENTS,
                )
            )
    return found
