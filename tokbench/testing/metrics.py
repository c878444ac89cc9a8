"""The contract of metrics: requirements on every metric, tested on a few images."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from tokbench.errors import MissingField
from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import METRICS, MetricName, MetricSpec, Section
from tokbench.metric_names.spec import Field
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch, DerivedCache, Timing
from tokbench.metrics.registry import MetricContext, create_metric
from tokbench.stats.bootstrap import mean_statistic
from tokbench.testing.adapters import photos
from tokbench.testing.checks import Check, Inapplicable, Requirement, expect, run_requirements
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.captioned import Captioner, TextAligned
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

SAME = 1e-9
"""The largest relative or absolute difference between numbers that must be equal."""

VALUES = 1e-6
"""The largest relative or absolute difference of the value of an image between batch sizes."""


@dataclass(frozen=True)
class MetricSubject:
    """The subject of a test.

    make: creates a new metric. batch: all images in order. spec: the spec of the metric; None if it is an unregistered
    class.
    """

    make: Callable[[], Metric]
    batch: Batch
    spec: MetricSpec | None = None

    def split(self, size: int) -> list[Batch]:
        """Return the images in batches of `size`."""
        places = list(range(len(self.batch)))
        return [_select(self.batch, places[start : start + size]) for start in range(0, len(places), size)]

    def compute(self, batches: Sequence[Batch]) -> tuple[Metric, dict[str, float]]:
        """Update a new metric with the batches in order. Returns the metric and its numbers."""
        metric = self.make()
        for batch in batches:
            metric.update(batch)
        return metric, metric.compute()


def example_batch(model: Tokenizer | None = None) -> Batch:
    """Return twelve photos (12, 3, 256, 256) as references, with noisy copies as images, tokens of `model` (by default
    codes), timings, captions and labels."""
    reference = torch.cat([photos(), photos().flip(3)])
    noise = 0.05 * torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    image = ((reference + noise).clamp(0, 1) * 255).round() / 255
    count = len(image)
    timing = Timing(0.5 * count, 0.25 * count)
    captions = [f"a photo of the number {number % 7}, mostly grey" for number in range(count)]
    tokens, labels = (model or ExampleTokenizer()).encode(image), torch.arange(count) % 3
    return Batch(torch.arange(count), reference, image, tokens, timing, captions=captions, labels=labels)


class ExampleTokenizer(TextAligned, Captioner, Tokenizer):
    """The tokenizer of `example_batch`, whose codes are 4-bit levels of red; it embeds tokens and captions, and writes
    captions."""

    spec = TokenizerSpec("example", "discrete", multiple=32, downsample=32, codebook={"codes": 16})

    def encode(self, images: Tensor) -> Tokens:
        return Tokens.from_indices((images[:, 0, ::32, ::32] * 15).long(), 16)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        red = (tokens.tensor / 15).repeat_interleave(32, 1).repeat_interleave(32, 2)
        return red[:, None].expand(-1, 3, -1, -1)

    def vectors(self, tokens: Tokens) -> Tensor:
        return tokens.tensor.float()[..., None]

    def token_embeddings(self, tokens: Tokens) -> Tensor:
        return torch.stack([tokens.tensor.float().flatten(1).mean(1), torch.ones(len(tokens))], 1)

    def caption_embeddings(self, captions: Sequence[str]) -> Tensor:
        return torch.tensor([[float(sum(map(ord, caption)) % 16), 1.0] for caption in captions])

    def write_captions(self, tokens: Tokens) -> list[str]:
        return [f"a photo of the number {int(codes.sum()) % 7}, mostly grey" for codes in tokens.tensor]


class ExampleLatents(Tokenizer):
    """A tokenizer whose latents are means of 8 x 8 pixels; decoding repeats them."""

    spec = TokenizerSpec("example", "continuous", multiple=8, downsample=8)

    def encode(self, images: Tensor) -> Tokens:
        small = torch.nn.functional.avg_pool2d(images, 8)
        return Tokens.from_latents(small, small[0, 0].numel())

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return tokens.tensor.float().repeat_interleave(8, 2).repeat_interleave(8, 3)


def example_model(spec: MetricSpec | None) -> Tokenizer:
    """Return the tokenizer with which a metric is tested: one with latents for metrics of latents, else with codes."""
    latents = spec is not None and spec.section == Section.LATENTS and not spec.needs_codebook
    return ExampleLatents() if latents else ExampleTokenizer()


def example_context(networks: ExtractorPool, model: Tokenizer, batch: Batch, **more: Any) -> MetricContext:
    """Return the values with which a metric of a batch is created. Mirrored references are its neighbours."""
    return MetricContext(networks, model, neighbours=lambda: model.encode(batch.require("reference").flip(3)), **more)


def _select(batch: Batch, places: list[int]) -> Batch:
    share = len(places) / len(batch)
    timing = batch.timing
    return replace(
        batch,
        index=batch.index[places],
        reference=None if batch.reference is None else batch.reference[places],
        image=None if batch.image is None else batch.image[places],
        tokens=None if batch.tokens is None else batch.tokens.select(places),
        timing=None if timing is None else replace(timing, encode=timing.encode * share, decode=timing.decode * share),
        marked=None if batch.marked is None else [batch.marked[place] for place in places],
        captions=None if batch.captions is None else [batch.captions[place] for place in places],
        labels=None if batch.labels is None else batch.labels[places],
        baseline=None if batch.baseline is None else batch.baseline[places],
        degraded=None if batch.degraded is None else batch.degraded[places],
        reference_memo=DerivedCache(),
        image_memo=DerivedCache(),
        baseline_memo=DerivedCache(),
    )


def _same(found: dict[str, float], expected: dict[str, float], when: str) -> None:
    expect(found.keys() == expected.keys(), f"{when}, the numbers are {sorted(found)} instead of {sorted(expected)}")
    for name, value in expected.items():
        near = math.isclose(found[name], value, rel_tol=SAME, abs_tol=SAME)
        near |= math.isnan(found[name]) and math.isnan(value)
        expect(near, f"{when}, {name} is {found[name]:.12g} instead of {value:.12g}")


def gives_its_numbers(subject: MetricSubject) -> None:
    for name, value in subject.compute(subject.split(4))[1].items():
        expect(isinstance(value, int | float | np.number), f"{name} is {type(value).__name__}, not a number")
        expect(math.isfinite(value), f"{name} is {value}")
        if subject.spec is not None:
            expect(MetricName.parse(name).metric == subject.spec.name, f"the spec does not declare the number {name}")


def does_not_depend_on_the_batch(subject: MetricSubject) -> None:
    whole, expected = subject.compute(subject.split(len(subject.batch)))
    for size in (1, 5):
        metric, numbers = subject.compute(subject.split(size))
        _same(numbers, expected, f"in batches of {size}")
        for name, (_, values) in metric.per_image().items():
            near = np.allclose(values, whole.per_image()[name][1], rtol=VALUES, atol=VALUES, equal_nan=True)
            expect(near, f"in batches of {size}, images have different values of {name}")


def merges_to_one_pass(subject: MetricSubject) -> None:
    batches = subject.split(4)
    left, right = subject.make(), subject.make()
    for batch in batches[:2]:
        left.update(batch)
    for batch in batches[2:]:
        right.update(batch)
    left.merge(right)
    _same(left.compute(), subject.compute(batches)[1], "merged from two shards")


def does_not_depend_on_the_order(subject: MetricSubject) -> None:
    if subject.spec is not None and subject.spec.timed:
        raise Inapplicable("it measures time, and the first batch is its warm-up")
    batches = subject.split(4)
    left, right = subject.make(), subject.make()
    for batch in batches[2:]:
        left.update(batch)
    for batch in batches[:2]:
        right.update(batch)
    left.merge(right)
    whole, expected = subject.compute(batches)
    _same(left.compute(), expected, "with the shards in a different order")
    merged = left.per_image()
    for name, (index, values) in whole.per_image().items():
        expect(np.array_equal(merged[name][0], index), f"the positions of {name} depend on the order of shards")
        expect(np.array_equal(merged[name][1], values, equal_nan=True), f"{name} per image depends on the order")


def resumes_from_stored_columns(subject: MetricSubject) -> None:
    """Check that a new metric computes the same numbers from stored columns, as a resumed run does."""
    batches = subject.split(4)
    expected = subject.compute(batches)[1]
    stored, fresh = subject.make(), subject.make()
    if hasattr(stored, "references"):
        raise Inapplicable("a resumed run reads the features of its references from a separate cache")
    with tempfile.TemporaryDirectory() as folder:
        for batch in batches:
            stored.update(batch)
        for number, (name, rows) in enumerate(stored.stores().items()):
            index, columns = rows.pop_in_memory()
            file = Path(folder) / f"{number}.npz"
            np.savez(file, **{f"m/{column}": values for column, values in columns.items()})  # type: ignore[arg-type]
            fresh.stores()[name].add_file(index, list(columns), file, "m/")
        _same(fresh.compute(), expected, "resumed from stored columns")


def has_values_per_image(subject: MetricSubject) -> None:
    metric, numbers = subject.compute(subject.split(5))
    found = metric.per_image()
    if not found:
        raise Inapplicable("its numbers are not means over images")
    count = len(subject.batch)
    columns = {name: values for name, (_, values) in found.items()}
    for name, (index, values) in found.items():
        expect(list(index) == list(range(count)), f"{name} has the positions {list(index)} for {count} images")
        expect(values.shape == (count,), f"{name} has values of shape {values.shape} for {count} images")
        if (how := mean_statistic(name, columns)) is not None and name in numbers:
            mean = how.of(float(np.nanmean(columns[how.values])))
            expect(
                math.isclose(mean, numbers[name], rel_tol=1e-6),
                f"{name} is {numbers[name]}, the mean of its values is {mean}",
            )


def has_intervals_around_its_values(subject: MetricSubject) -> None:
    batches = subject.split(4)
    metric, numbers = subject.compute(batches)
    intervals = metric.intervals(0)
    if not intervals:
        raise Inapplicable("it has no intervals")
    again = subject.compute(batches)[0].intervals(0)
    for name, interval in intervals.items():
        inside = interval.low <= numbers[name] <= interval.high
        expect(inside, f"the interval of {name} is {interval.low} to {interval.high}, its value is {numbers[name]}")
        expect(again[name] == interval, f"the interval of {name} differs between two runs with the same seed")


def asks_for_what_it_requires(subject: MetricSubject) -> None:
    fields = get_args(Field)
    required = subject.spec.requires if subject.spec else ()
    present = [name for name in fields if getattr(subject.batch, name) is not None]
    for missing in present:
        batch = Batch(
            subject.batch.index, **{name: getattr(subject.batch, name) for name in present if name != missing}
        )
        try:
            subject.make().update(batch)
        except MissingField:
            expect(
                missing in required or subject.spec is None, f"it needs '{missing}', which its spec does not declare"
            )
        else:
            expect(missing not in required, f"its spec declares '{missing}', but it does not need it")


METRIC_REQUIREMENTS = (
    Requirement(
        "numbers are finite and declared in the spec", "declare every number in the spec; return floats from compute",
        gives_its_numbers,
    ),
    Requirement(
        "numbers do not depend on the batch size", "compute the columns of each image only from that image",
        does_not_depend_on_the_batch,
    ),
    Requirement(
        "merged shards equal one pass", "store everything that compute needs in the sample store (`self.rows`)",
        merges_to_one_pass,
    ),
    Requirement(
        "the order of shards does not matter", "read rows in the order of positions, as SampleStore returns them",
        does_not_depend_on_the_order,
    ),
    Requirement(
        "an interrupted run resumes from stored columns", "store no state outside the stores that `stores()` returns",
        resumes_from_stored_columns,
    ),
    Requirement(
        "values per image have one row per image", "return (positions (n,), values (n,)) for each number",
        has_values_per_image,
    ),
    Requirement(
        "intervals contain the values and are repeatable", "draw resamples only from the seed of `intervals`",
        has_intervals_around_its_values,
    ),
    Requirement(
        "batch fields are required as the spec declares", "correct `requires` in the spec; use batch.require",
        asks_for_what_it_requires,
    ),
)  # fmt: skip


def check_metric(
    metric: str | MetricSpec | Callable[[], Metric], batch: Batch | None = None, networks: ExtractorPool | None = None
) -> list[Check]:
    """Test a metric against its contract.

    metric: the name or the spec of a registered metric, or a class or function that creates a metric without arguments.
    batch: all images in one batch, at least six, with the fields that the metric reads; `example_batch()` if not given.
    networks: the frozen networks of the metric; if not given, those of this machine, which need their weights.
    Returns one Check per requirement.
    """
    if isinstance(metric, str | MetricSpec):
        spec: MetricSpec | None = METRICS[metric if isinstance(metric, str) else metric.name]
        model = example_model(spec)
        batch = batch or example_batch(model)
        context = example_context(networks or ExtractorPool(), model, batch)
        name = spec.name if spec else ""
        subject = MetricSubject(lambda: create_metric(name, context), batch, spec)
    else:
        subject = MetricSubject(metric, batch or example_batch())
    return run_requirements(METRIC_REQUIREMENTS, subject)
