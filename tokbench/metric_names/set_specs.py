"""The specs of metrics that compare two sets of images."""

from __future__ import annotations

from typing import Any

from tokbench.metric_names.constants import (
    CLIP,
    COMPARES,
    DINOV2,
    DISTANCE,
    EFFICIENTNET,
    INCEPTION,
    KERNEL,
    PROBE,
    SETS,
    SHARE,
)
from tokbench.metric_names.spec import MetricSpec, NumberSpec, Section, TaskKind, Tolerance


def _frechet(number: NumberSpec, summary: str, layer: str, **more: Any) -> MetricSpec:
    """Return the spec of a Fréchet distance. With section=Section.SAMPLES, it is computed only for samples."""
    given: dict[str, Any] = {"network": INCEPTION, "section": Section.PAIRED} | more
    given.setdefault("paired", given["section"] != Section.SAMPLES)
    return MetricSpec(
        number.name, summary, (number,), "tokbench.metrics.frechet:Frechet", layer=layer, wants=SETS, reads=COMPARES,
        extrapolated=True, **given,
    )  # fmt: skip


def distances_specs() -> list[MetricSpec]:
    found = []
    for layer, default in (
        ("2048", ("reconstruct", "truncate", "perturb")),
        ("768", ("perturb",)),
        ("192", ()),
        ("64", ()),
    ):
        end, digits = ("", 3) if layer == "2048" else (f"_{layer}", 4)
        number = NumberSpec(f"rfid{end}", f"rFID{end.replace('_', '-')}", digits, False, DISTANCE, f"fid{end}")
        said = f"{layer}-d Inception" if layer == "2048" else f"{layer}-d layer of Inception"
        found.append(_frechet(number, f"Fréchet distance, {said}", layer, default_for=default))
    sfid = NumberSpec("sfid", "sFID", 3, False, DISTANCE, "sfid")
    found.append(_frechet(sfid, "Fréchet distance, 2023-d spatial Inception", "sfid", paired=None))
    number = NumberSpec("fd_efficientnet", "FD-EfficientNet", 3, False, DISTANCE, "fid_efficientnet")
    found.append(
        _frechet(
            number,
            "Fréchet distance, 1280-d EfficientNet-Lite0",
            "pooled",
            network=EFFICIENTNET,
            paired=None,
            default_for=("reconstruct", "truncate", "perturb", "generate"),
        )
    )
    for end, said in (("", "2048-d Inception"), ("_768", "768-d layer of Inception")):
        number = NumberSpec(f"kid{end}", f"KID{end.replace('_', '-')}", 6, False, KERNEL, f"kid{end}")
        found.append(
            MetricSpec(
                number.name,
                f"kernel distance, {said}",
                (number,),
                "tokbench.metrics.kid:KID",
                INCEPTION,
                end.removeprefix("_") or "2048",
                SETS,
                paired=None,
                reads=COMPARES,
                section=Section.PAIRED,
            )
        )
    return [*found, *_more_networks()]


def _more_networks() -> list[MetricSpec]:
    """Return the specs of distances in other networks, and of other distances than Fréchet's."""
    given: dict[str, Any] = {"wants": SETS, "reads": COMPARES, "paired": None, "section": Section.PAIRED}
    networks = (
        ("_efficientnet", " EfficientNet", EFFICIENTNET, "pooled", "EfficientNet-Lite0"),
        ("_768", "-768", INCEPTION, "768", "768-d layer of Inception"),
        ("_dinov2", " DINOv2", DINOV2, "features", "DINOv2 ViT-L/14"),
    )
    found = [
        _frechet(
            NumberSpec(f"fd_{end}", f"FD-{title}", 3, False, DISTANCE),
            f"Fréchet distance, {said}, provided by the user",
            "features",
            network=network,
            paired=None,
        )
        for end, title, network, said in (
            ("dinov2", "DINOv2", DINOV2, "DINOv2 ViT-L/14"),
            ("clip", "CLIP", CLIP, "CLIP ViT-L/14 at 336 px"),
        )
    ]
    for end, title, network, layer, said in networks:
        ratio = NumberSpec(f"fd_ratio{end}", f"FD ratio{title}", 4, False, DISTANCE)
        mind = NumberSpec(f"mind{end}", f"MIND{title}", 4, False, DISTANCE)
        found += [
            MetricSpec(
                ratio.name, f"Fréchet distance divided by that of two halves of the references, {said}", (ratio,),
                "tokbench.metrics.frechet_ratio:FrechetRatio", network, layer, **given,
            ),
            MetricSpec(
                mind.name, f"distance of sorted random projections, {said}", (mind,), "tokbench.metrics.mind:MIND",
                network, layer, **given,
            ),
        ]  # fmt: skip
    cmmd = NumberSpec("cmmd", "CMMD", 4, False, DISTANCE)
    said = "kernel distance, CLIP ViT-L/14 at 336 px, provided by the user"
    return [*found, MetricSpec("cmmd", said, (cmmd,), "tokbench.metrics.cmmd:CMMD", CLIP, "features", **given)]


_PREDICTED = ("class", "content", "style")
"""What probes predict: the class of a sample, and the parts of it (`Generator.factors`)."""


def samples_specs() -> list[MetricSpec]:
    found = []
    for layer in ("2048", "768", "192", "64"):
        end, digits = ("", 3) if layer == "2048" else (f"_{layer}", 4)
        number = NumberSpec(f"gfid{end}", f"gFID{end.replace('_', '-')}", digits, False, DISTANCE)
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
            SETS,
            ("image",),
            paired=None,
            reads=("features", "inception_score"),
            section=Section.SAMPLES,
        )
    )
    for end, title, network, layer, said in (
        ("", "", INCEPTION, "2048", "2048-d Inception, as in ADM"),
        ("_768", "-768", INCEPTION, "768", "768-d layer of Inception"),
        ("_efficientnet", " EfficientNet", EFFICIENTNET, "pooled", "EfficientNet-Lite0"),
    ):
        numbers = tuple(NumberSpec(f"{one}{end}", f"{one}{title}", 4, True, SHARE) for one in ("precision", "recall"))
        chosen: tuple[TaskKind, ...] = ("generate",) if network == EFFICIENTNET else ()
        found.append(
            MetricSpec(
                f"precision_recall{end}",
                f"of samples: precision and recall, k = 3, {said}",
                numbers,
                "tokbench.metrics.precision_recall:PrecisionRecall",
                network,
                layer,
                SETS,
                paired=False,
                default_for=chosen,
                reads=COMPARES,
                section=Section.SAMPLES,
            )
        )
    found.append(
        MetricSpec(
            "generated_classes",
            "of samples: share whose class a probe on the references predicts, and differences within a class",
            (
                *(NumberSpec(f"{part}_accuracy", f"{part} accuracy", 4, True, PROBE) for part in _PREDICTED),
                NumberSpec("class_diversity", "class diversity", 4, None, Tolerance(relative=1e-3)),
            ),
            "tokbench.metrics.generated_classes:GeneratedClasses",
            INCEPTION,
            "768",
            (*SETS, "model", "labels"),
            ("image", "labels"),
            paired=False,
            reads=COMPARES,
            section=Section.SAMPLES,
        )
    )
    return found
