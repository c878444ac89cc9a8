"""Accuracy of drawn classes by probes, and diversity within a class, on samples whose classes are known."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import pytest
import torch
from factories import evaluate_model, some_labels
from torch import Tensor

from tokbench.data.dataset import Dataset, open_dataset
from tokbench.data.synthetic.styled import CLASSES, CONTENTS, STYLES, draw, make_styled
from tokbench.errors import NotApplicable
from tokbench.evaluation.sample_plan import SamplePlan
from tokbench.evaluation.tasks import Generate
from tokbench.extractors.pool import ExtractorPool
from tokbench.metrics.base import Metric
from tokbench.metrics.batch import Batch
from tokbench.metrics.generated_classes import GeneratedClasses
from tokbench.metrics.registry import MetricContext, create_metric
from tokbench.protocol.protocol import load_protocol
from tokbench.results.result import Result
from tokbench.stats.split_half import SplitHalves
from tokbench.tokenizers.base import Generator
from tokbench.tokenizers.registry import adapter_files, open_variant
from tokbench.tokenizers.tokens import Tokens

NAME = "style_tokenizer.n4"


class Painter(Generator):
    """Draws the content of a label in a style that is `shift` styles away; with `same`, one image per label."""

    classes = CLASSES
    factors = MappingProxyType({"content": len(CONTENTS), "style": len(STYLES)})

    def __init__(self, shift: int = 0, same: bool = False) -> None:
        self.tokenizer = open_variant(NAME, adapter_files()[NAME])[1].Patches("painter", 4)
        self.spec, self.module, self.shift, self.same = self.tokenizer.spec, None, shift, same

    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tokens:
        count = len(STYLES)
        drawn = [label // count * count + (label + self.shift) % count for label in labels.tolist()]
        places = [0 if self.same else seed for seed in seeds]
        images = [draw(make_styled("reference", *pair)) for pair in zip(places, drawn, strict=True)]
        return self.tokenizer.encode(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1)


@pytest.fixture(scope="module")
def references() -> Dataset:
    return open_dataset("styled", load_protocol("tokbench"), None, 300, None)


def evaluated(model: Generator, references: Dataset, networks: ExtractorPool, count: int = 192) -> Result:
    plan = SamplePlan(references.name, references.protocol, count, references)
    result = evaluate_model(model, plan, ["generated_classes"], task=Generate(), networks=networks)
    assert result.error is None, result.error
    return result


def test_each_part_of_a_label_has_a_probe(references: Dataset, networks: ExtractorPool) -> None:
    right = evaluated(Painter(), references, networks).metrics
    assert set(right) == {"class_accuracy", "content_accuracy", "style_accuracy", "class_diversity"}
    assert right["style_accuracy"]["value"] > 0.9
    assert right["content_accuracy"]["value"] > 2 / len(CONTENTS)
    assert right["class_accuracy"]["value"] > 5 / CLASSES
    assert right["style_accuracy"]["low"] <= right["style_accuracy"]["value"] <= right["style_accuracy"]["high"]
    assert 0.5 < right["class_diversity"]["value"] < 1.5


def test_another_style_is_noticed_and_the_content_is_not_affected(references: Dataset, networks: ExtractorPool) -> None:
    other = evaluated(Painter(shift=1), references, networks, count=96).metrics
    assert other["style_accuracy"]["value"] < 0.1 and other["class_accuracy"]["value"] < 0.1
    assert other["content_accuracy"]["value"] > 2 / len(CONTENTS)


def test_equal_samples_have_no_diversity(references: Dataset, networks: ExtractorPool) -> None:
    same = evaluated(Painter(same=True), references, networks).metrics
    assert same["class_diversity"]["value"] == pytest.approx(0, abs=1e-6)


def test_diversity_by_hand() -> None:
    """Distances 1 and 3 within two classes of samples, 4 within the one class of references with two members."""
    image = np.array([[0, 0, 0], [0, 1, 0], [5, 0, 1], [5, 3, 1], [9, 9, 2]], dtype=float)
    reference = np.array([[0, 0, 0], [4, 0, 0], [7, 7, 1]], dtype=float)
    assert GeneratedClasses.statistic(None, reference, image) == pytest.approx(0.5)  # type: ignore[arg-type]


def test_references_without_the_classes_are_refused(photo_folder: object, networks: ExtractorPool) -> None:
    photos = open_dataset(str(photo_folder), load_protocol("tokbench"), 32, None, None)
    result = evaluated(Painter(), photos, networks, count=4)
    assert list(result.skipped) == ["generated_classes"]


@pytest.mark.parametrize("factors", [{"colour": CLASSES}, {"content": 5, "style": 8}])
def test_parts_that_do_not_make_up_the_classes_are_refused(
    factors: dict[str, int], references: Dataset, networks: ExtractorPool
) -> None:
    painter = Painter()
    painter.factors = factors
    context = MetricContext(networks, painter, paired=False, labels=some_labels)
    with pytest.raises(NotApplicable, match="whose product is the number of classes, 96"):
        create_metric("generated_classes", context)


def test_shards_in_any_order_give_the_numbers_of_the_whole(networks: ExtractorPool) -> None:
    painter, generator = Painter(), torch.Generator().manual_seed(0)
    painter.classes, painter.factors = 3, {}
    context = MetricContext(networks, painter, labels=some_labels)
    reference, image = torch.rand(2, 24, 3, 16, 16, generator=generator)

    def measured(*shards: list[int]) -> Metric:
        metrics = []
        for positions in shards:
            metrics.append(create_metric("generated_classes", context))
            index = torch.tensor(positions)
            metrics[-1].update(Batch(index, reference[positions], image[positions], labels=index % 3))
        for other in metrics[1:]:
            metrics[0].merge(other)
        return metrics[0]

    whole, merged = measured(list(range(24))), measured([23, 1, 5, 7], [0, *range(8, 23)], [6, 2, 3, 4])
    assert whole.compute().keys() == {"class_accuracy", "class_diversity"}
    assert merged.compute() == pytest.approx(whole.compute(), rel=1e-9)
    halves = SplitHalves("x", 24)
    expected, made = (one.replicates(halves)["class_diversity"].as_array() for one in (whole, merged))
    np.testing.assert_allclose(made, expected, rtol=1e-9)
