"""The contract of every metric, on stand-in networks; what the numbers are is tested file by file elsewhere."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from factories import some_labels

from tokbench.errors import UsageError
from tokbench.metric_names import METRICS
from tokbench.metrics import registry
from tokbench.metrics.registry import MetricContext, create_metric
from tokbench.testing.checks import Inapplicable, Requirement
from tokbench.testing.metrics import METRIC_REQUIREMENTS, ExampleTokenizer, MetricSubject, example_batch
from tokbench.tokenizers.tiled_decode import Seams

QUICK = ("numbers are finite and declared in the spec", "batch fields are required as the spec declares")
"""The requirements that are tested in one pass; the tests of the others are marked as slow."""


# `cost` times a generator by itself and looks at no batch: tests/evaluation/test_generate.py. `swap` decodes with the
# model, which must have holistic tokens: tests/metrics/test_swap.py. `generated_classes` needs a generator with
# classes: tests/metrics/test_generated_classes.py.
@pytest.fixture(params=[name for name in METRICS if name not in ("cost", "swap", "generated_classes")])
def metric_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(metric_name: str, networks):
    """Makes fresh metrics of one name."""
    context = MetricContext(networks, ExampleTokenizer(), labels=some_labels)
    return lambda: create_metric(metric_name, context)


@pytest.fixture(autouse=True)
def _few_images_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some metrics refuse twelve images only since they would learn little from them."""
    for module in ("compressibility", "probe", "code_prediction"):
        monkeypatch.setattr(f"tokbench.metrics.{module}.FEWEST", 2)
    monkeypatch.setattr("tokbench.metrics.code_prediction.STEPS", 2)


@pytest.fixture
def subject(make, metric_name: str, mark) -> MetricSubject:
    """Twelve pairs: enough for the ten splits of the Inception Score."""
    batch = example_batch()
    baseline = (0.5 * (batch.reference + batch.image) * 255).round() / 255
    batch = replace(batch, marked=mark(batch.reference), baseline=baseline, seams=Seams((128,), (64, 128)))
    return MetricSubject(make, batch, METRICS[metric_name])


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
    assert registry.choose("all") == list(METRICS)
    with pytest.raises(UsageError, match="no metric 'fid'"):
        registry.choose("psnr,fid")
    with pytest.raises(UsageError):
        registry.choose("")
