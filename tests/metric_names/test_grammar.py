"""The one grammar of the names of numbers and of tasks."""

from __future__ import annotations

import json

import pytest
from checkout import ROOT
from hypothesis import given
from hypothesis import strategies as st

from tokbench.errors import UsageError
from tokbench.metric_names import EXTENSIONS, METRICS, MetricName, TaskName, perturbed_name
from tokbench.metric_names.registry import number_names
from tokbench.results.columns import column_of, columns

COMMITTED = [json.loads(path.read_text()) for path in sorted(ROOT.glob("results/*/*.json"))]
RESULTS = [result for result in COMMITTED if "metrics" in result and "task" in result and "skipped" in result]


def test_every_committed_number_is_parsed_and_written_again() -> None:
    names = {number for result in RESULTS for number in result["metrics"]}
    assert len(names) > 100
    for text in names:
        name = MetricName.parse(text)
        assert str(name) == text
        assert name.metric in METRICS, text
        assert name.base in {column.field for column in columns()}


def test_every_committed_task_is_parsed_and_written_again() -> None:
    tasks = {result["task"] for result in RESULTS}
    assert {"reconstruct", "truncate-8", "perturb"} <= tasks
    for text in tasks:
        assert str(TaskName.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pfid_768_grouped.a0.9-d10", MetricName("rfid_768", "grouped", part="a0.9-d10")),
        ("nfid_768_infinity", MetricName("rfid_768", "noise", infinite=True)),
        ("psnr", MetricName("psnr")),
        ("ppsnr", MetricName("psnr", "plain")),
        ("t_acc_ratio_all_easyocr", MetricName("t_acc", version="ratio", span="all", reader="_easyocr")),
        ("t_acc_curve.8 to 10", MetricName("t_acc", span="curve", part="8 to 10")),
        ("codebook_usage.sem", MetricName("codebook_usage", part="sem")),
        ("sharpness_infinity.x", MetricName("sharpness", infinite=True, part="x")),
    ],
)
def test_the_parts_of_a_name(text: str, expected: MetricName) -> None:
    assert MetricName.parse(text) == expected
    assert str(expected) == text


@given(st.text(max_size=30) | st.builds("{}{}".format, st.sampled_from(["rfid", "pfid", "t_acc"]), st.text(max_size=9)))
def test_every_text_is_a_name(text: str) -> None:
    assert str(MetricName.parse(text)) == text


def test_no_two_metrics_share_the_name_of_a_number() -> None:
    names = [name for spec in METRICS.values() for name in number_names(spec)]
    assert len(names) == len(set(names)) == len(columns())


def test_a_perturbed_number_belongs_to_the_metric_of_its_plain_one() -> None:
    assert perturbed_name("rfid_768", EXTENSIONS["binary"]) == "pfid_768_binary"
    assert MetricName.parse("pfid_768_binary").metric == "rfid_768"
    assert perturbed_name("bpp", EXTENSIONS["plain"]) is None
    assert column_of("pfid_768_binary.a0.5-d2")[1].title == "pFID-768 binary (a0.5-d2)"


@given(
    st.builds(TaskName, st.just("truncate"), tokens=st.integers(1, 10**6))
    | st.builds(TaskName, st.just("perturb"), anchor=st.sampled_from(["latent", "code"]))
    | st.builds(TaskName, st.just("generate"), guidance=st.none() | st.integers(0, 99999).map(lambda n: n / 100))
)
def test_tasks_survive_being_written(task: TaskName) -> None:
    assert TaskName.parse(str(task)) == task
    assert task.is_exact


@pytest.mark.parametrize(
    "text", ["", "truncate-0", "truncate-x", "perturb-latent", "generate-cfg", "prune", "generate-1"]
)
def test_other_texts_are_no_tasks(text: str) -> None:
    with pytest.raises(UsageError, match="no task"):
        TaskName.parse(text)


@pytest.mark.parametrize("scale", [1e-7, 1234567.5, 1e20])
def test_a_scale_that_its_name_does_not_hold(scale: float) -> None:
    assert not TaskName("generate", guidance=scale).is_exact
