"""The contract of every metric, on stand-in networks; what the numbers are is tested file by file elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tokbench.data.stream import AnnotatedImage
from tokbench.errors import MissingField, UsageError
from tokbench.metric_names import METRICS
from tokbench.metrics import registry
from tokbench.metrics.batch import Batch, Timing
from tokbench.metrics.registry import MetricContext, create_metric
from tokbench.metrics.throughput import Throughput
from tokbench.tokenizers.registry import load_adapter
from tokbench.tokenizers.tokens import Tokens

FIELDS = ("reference", "image", "tokens", "timing", "marked")


def stream(
    reference: torch.Tensor, image: torch.Tensor, marked: list[AnnotatedImage] | None = None, *, size: int
) -> list[Batch]:
    """The pair of image sets as batches of `size`, with tokens and timings."""
    codes = (image[:, 0, ::32, ::32] * 15).long()
    batches = []
    for start in range(0, len(image), size):
        part = slice(start, start + size)
        count = len(image[part])
        tokens = Tokens.from_indices(codes[part], 16)
        batches.append(
            Batch(
                torch.arange(start, start + count),
                reference[part],
                image[part],
                tokens,
                Timing(0.5 * count, 0.25 * count),
                marked=marked[part] if marked else None,
            )
        )
    return batches


# `cost` times a generator by itself and looks at no batch: tests/test_generate.py.
@pytest.fixture(params=[name for name in METRICS if name != "cost"])
def metric_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make(metric_name: str, networks):
    """Makes fresh metrics of one name."""
    return lambda: create_metric(metric_name, MetricContext(networks, load_adapter("identity").model))


@pytest.fixture(autouse=True)
def _few_images_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """`coding` refuses twelve images only since its coders would learn little."""
    monkeypatch.setattr("tokbench.metrics.compressibility.FEWEST", 2)


@pytest.fixture
def pair(photos: torch.Tensor, damaged: torch.Tensor, mark) -> tuple[torch.Tensor, torch.Tensor, list[AnnotatedImage]]:
    """Twelve pairs: enough for the ten splits of the Inception Score."""
    reference = torch.cat([photos, photos.flip(3)])
    return reference, torch.cat([damaged, damaged.flip(3)]), mark(reference)


def run(metric, batches):
    for batch in batches:
        metric.update(batch)
    return metric.compute()


def same(a: dict[str, float], b: dict[str, float]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name] == pytest.approx(b[name], rel=1e-9, abs=1e-9, nan_ok=True), name


def test_numbers_are_finite(make, pair) -> None:
    for name, value in run(make(), stream(*pair, size=4)).items():
        assert math.isfinite(value), name


def test_batch_size_does_not_change_a_value(make, pair) -> None:
    whole = run(make(), stream(*pair, size=12))
    for size in (1, 5):
        same(run(make(), stream(*pair, size=size)), whole)


def test_merge_equals_one_pass(make, pair) -> None:
    batches = stream(*pair, size=4)
    left, right = make(), make()
    for batch in batches[:2]:
        left.update(batch)
    right.update(batches[2])
    left.merge(right)
    same(left.compute(), run(make(), batches))


def test_merge_does_not_depend_on_the_order_of_shards(make, pair) -> None:
    batches = stream(*pair, size=4)
    left, right = make(), make()
    left.update(batches[2])
    for batch in batches[:2]:
        right.update(batch)
    left.merge(right)
    merged, whole = left.per_image(), make()
    numbers = run(whole, batches)
    if not isinstance(whole, Throughput):  # its warm-up batch is the first that came
        same(left.compute(), numbers)
    for name, (index, values) in whole.per_image().items():
        np.testing.assert_array_equal(merged[name][0], index)
        np.testing.assert_array_equal(merged[name][1], values)


@pytest.mark.parametrize("missing", FIELDS)
def test_a_missing_field_raises_for_the_metrics_that_eat_it(metric_name: str, make, pair, missing: str) -> None:
    full = stream(*pair, size=12)[0]
    batch = Batch(full.index, **{name: getattr(full, name) for name in FIELDS if name != missing})
    if missing in METRICS[metric_name].requires:
        with pytest.raises(MissingField, match=f"'{missing}'|words and faces"):
            make().update(batch)
    else:
        make().update(batch)


def test_per_image_values_average_to_the_number(make, pair) -> None:
    metric = make()
    numbers = run(metric, stream(*pair, size=5))
    intervals = metric.intervals(0)
    for name, (index, values) in metric.per_image().items():
        assert list(index) == list(range(12))
        assert np.nanmean(values) == pytest.approx(numbers[name])
        assert intervals[name].low <= numbers[name] <= intervals[name].high
        assert intervals[name].n == 12


def test_intervals_are_deterministic(make, pair) -> None:
    one, two = make(), make()
    assert run(one, stream(*pair, size=4)) == run(two, stream(*pair, size=4))
    assert one.intervals(3) == two.intervals(3)


def test_choose() -> None:
    assert registry.choose("psnr, ssim,psnr") == ["psnr", "ssim"]
    assert set(registry.choose(None)) <= set(METRICS)
    assert registry.choose("all") == list(METRICS)
    with pytest.raises(UsageError, match="no metric 'fid'"):
        registry.choose("psnr,fid")
    with pytest.raises(UsageError):
        registry.choose("")
