"""The contract of every metric, on stand-in networks; what the numbers are is tested file by file elsewhere."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from factories import some_labels

from tokbench.errors import UsageError
from tokbench.metric_names import EVERY_MODALITY, METRICS, metrics_for
from tokbench.metrics import registry
from tokbench.metrics.registry import create_metric
from tokbench.testing.checks import Inapplicable, Requirement
from tokbench.testing.metrics import (
    METRIC_REQUIREMENTS,
    MetricSubject,
    example_batch,
    example_context,
    example_model,
)
from tokbench.tokenizers.tiled_decode import Seams

QUICK = ("numbers are finite and declared in the spec", "batch fields are required as the spec declares")
"""The requirements that are tested in one pass; the tests of the others are marked as slow."""


# `cost` times a generator by itself and looks at no batch: tests/evaluation/test_generate.py. `swap` decodes with the
# model, which must have holistic tokens: tests/metrics/test_swap.py. `generated_classes` needs a generator with
# classes: tests/metrics/test_generated_classes.py.
ELSEWHERE = {"cost", "swap", "generated_classes"}
# Distances of latents differ in their networks only, so one network is enough.
SAME_CLASS = {f"{name}{end}" for name in ("lowpass_rfid", "ifid", "ifid_top10") for end in ("", "_768")}


@pytest.fixture(params=[name for name in metrics_for("image") if name not in ELSEWHERE | SAME_CLASS])
def metric_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def _few_images_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some metrics refuse twelve images only since they would learn little from them."""
    for module in ("compressibility", "probe", "code_prediction"):
        monkeypatch.setattr(f"tokbench.metrics.{module}.FEWEST", 2)
    monkeypatch.setattr("tokbench.metrics.code_prediction.STEPS", 2)


@pytest.fixture
def subject(metric_name: str, networks, mark) -> MetricSubject:
    """Twelve pairs: enough for the ten splits of the Inception Score."""
    spec = METRICS[metric_name]
    model = example_model(spec)
    batch = example_batch(model)
    baseline = (0.5 * (batch.reference + batch.image) * 255).round() / 255
    batch = replace(
        batch, marked=mark(batch.reference), baseline=baseline, seams=Seams((128,), (64, 128)), degraded=baseline
    )
    context = example_context(networks, model, batch, labels=some_labels)
    return MetricSubject(lambda: create_metric(metric_name, context), batch, spec)


@pytest.mark.parametrize(
    "requirement",
    [
        pytest.param(one, id=one.name, marks=[] if one.name in QUICK else [pytest.mark.slow])
        for one in METRIC_REQUIREMENTS
    ],
)
def test_the_contract(subject: MetricSubject, requirement: Requirement) -> None:
    with suppress(Inapplicable):
        requirement.test(subject)


def test_choose() -> None:
    assert registry.choose("psnr, ssim,psnr") == ["psnr", "ssim"]
    assert set(registry.choose(None)) <= set(METRICS)
    assert registry.choose("all") == metrics_for("image")
    assert set(METRICS) == {name for kind in EVERY_MODALITY for name in metrics_for(kind)}
    with pytest.raises(UsageError, match="frame_psnr: for data of the kind video, but these are of the kind image"):
        registry.choose("frame_psnr")
    assert registry.choose("frame_psnr", modality="video") == ["frame_psnr"]
    with pytest.raises(UsageError, match="no metric 'fid'"):
        registry.choose("psnr,fid")
    with pytest.raises(UsageError):
        registry.choose("")
