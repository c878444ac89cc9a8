"""The plan of `tokbench train`: order, estimates, and adapters that are up to date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkout import ROOT
from click.testing import CliRunner, Result
from image_files import write_noise
from two_families import write_two_families

from tokbench.cli import main
from tokbench.errors import UsageError
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.registry import read_variant
from tokbench.training.plan import TRAINING_DATA, cheap_first, choose_data, duration, make_plan
from tokbench.training.zoo import TrainOptions, recipe_of, trainable_adapters

RECORD = {"device": "CPU, 1 threads", "seconds": 50.0, "images": 1000, "steps": 10, "seed": 0, "recipe": {}}
NO_DATA = pytest.fail  # called if the images would be read


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with small adapters that are fitted in one pass, and some images; `mini.c2` is built on `mini.c4`."""
    folder = tmp_path / "adapters" / "mini"
    folder.mkdir(parents=True)
    (folder / "adapter.py").write_text((ROOT / "adapters" / "pca" / "adapter.py").read_text())
    for name, head in (("c4", ""), ("c2", 'base = "mini.c4"\n'), ("c3", "")):
        (folder / f"{name}.toml").write_text(f'summary = "x"\n{head}[model]\ncomponents = {name[1]}\n[training]\n')
    write_noise(tmp_path / "photos", 6, 16)
    return tmp_path


def record(root: Path, name: str, **changes: object) -> None:
    (root / f"adapters/mini/{name}.training.json").write_text(json.dumps(RECORD | changes))


def train(root: Path, *arguments: str) -> Result:
    run = CliRunner().invoke(main, ["train", "--root", str(root), "--data", str(root / "photos"), *arguments])
    assert run.exit_code == 0, run.output
    return run


def test_cheap_trainings_come_first_but_after_their_dependencies() -> None:
    cost = {"a": 9.0, "b": 1.0, "c": 5.0, "d": None, "e": 2.0}
    below = {"b": {"a"}, "e": {"d"}}
    assert cheap_first("abcde", below, cost) == ["c", "a", "b", "d", "e"]
    assert cheap_first("edcba", {}, cost) == ["b", "e", "c", "a", "d"]


def test_estimates_scale_the_cpu_time_of_records(root: Path) -> None:
    record(root, "c4", cpu_seconds=30.0)  # in place of 50 s of wall time
    record(root, "c3")
    wanted, options = trainable_adapters(root), TrainOptions("", changes={"images": 4000, "seed": 0})
    plan = make_plan(wanted, options, 6, NO_DATA, root=root, by_cost=True)
    found = [(training.name, training.images, training.seconds) for training in plan.trainings]
    assert found == [("mini.c4", 4000, 120.0), ("mini.c3", 4000, 200.0), ("mini.c2", 4000, None)]
    assert plan.seconds == 320 and plan.num_unknown == 1 and not plan.up_to_date
    record(root, "c3", steps=0, images=3)  # fitted: it sees each image of the dataset once
    assert {t.name: (t.images, t.seconds) for t in make_plan(wanted, options, 6, NO_DATA, root=root).trainings}[
        "mini.c3"
    ] == (6, 100.0)


def test_a_budget_in_seconds_is_its_own_estimate_and_a_record_of_another_device_is_none(root: Path) -> None:
    record(root, "c4")
    wanted = trainable_adapters(root)
    timed = make_plan(wanted, TrainOptions("", changes={"seconds": 90.0}), 6, NO_DATA, root=root)
    assert {(training.images, training.seconds) for training in timed.trainings} == {(None, 90.0)}
    other = make_plan(wanted, TrainOptions("", "gpu", {}, "cuda:0"), 6, NO_DATA, root=root)
    assert {training.seconds for training in other.trainings} == {None}


def test_a_dry_run_prints_only_the_plan(root: Path) -> None:
    record(root, "c4", cpu_seconds=30.0)
    record(root, "c3")
    run = train(root, "--all", "--budget", "120000i", "--jobs", "2", "--dry-run")
    assert run.stdout.splitlines() == [
        "adapter   images    estimate",
        "mini.c4  120,000   1 h 0 min",
        "mini.c3  120,000  1 h 40 min",
        "mini.c2  120,000     unknown",
        "3 trainings: about 2 h 40 min of CPU time, 1 h 20 min with --jobs 2, and 1 without an estimate",
    ]
    assert not list(root.rglob("*.safetensors"))


def test_what_is_up_to_date_is_skipped(root: Path) -> None:
    first = train(root, "--all")
    assert first.stderr.count("wrote") == 3
    record_file = root / "adapters/mini/c4.training.json"
    assert json.loads(record_file.read_text())["recipe"]["model"] == {"components": 4}
    again = train(root, "--all")
    assert again.stderr.count("wrote") == 0 and again.stdout == "nothing to train\n"
    assert "skipped mini.c2: up to date; --retrain trains again" in again.stderr
    assert train(root, "mini.c3", "--retrain").stderr.count("wrote") == 1


@pytest.mark.parametrize("change", ["seed", "data", "settings", "weights", "out"])
def test_what_changed_is_trained_with_what_is_built_on_it(root: Path, change: str) -> None:
    train(root, "--all")
    c4, arguments = root / "adapters/mini/c4.toml", []
    trained = {"mini.c2", "mini.c3", "mini.c4"}
    if change == "seed":
        arguments = ["--seed", "1"]
    elif change == "data":
        write_noise(root / "photos", 7, 16)
    elif change == "out":
        arguments = ["--out", str(root / "elsewhere")]
    else:
        trained = {"mini.c2", "mini.c4"}  # c2 is built on c4
        if change == "weights":
            c4.with_suffix(".safetensors").unlink()
        else:
            c4.write_text(c4.read_text().replace("components = 4", "components = 5"))
    lines = train(root, "--all", "--dry-run", *arguments).stdout.splitlines()
    assert {line.split()[0] for line in lines[1:-1]} == trained


def test_other_weights_of_a_base_are_noticed(tmp_path: Path) -> None:
    """Only the base was trained again, in a command of its own."""
    write_two_families(tmp_path, tmp_path / "photos")
    write_noise(tmp_path / "others", 3, 16)
    train(tmp_path, "--all")
    assert train(tmp_path, "upper.v1", "--dry-run").stdout == "nothing to train\n"
    arguments = ["train", "lower.v1", "--root", str(tmp_path), "--data", str(tmp_path / "others")]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert "upper.v1" in train(tmp_path, "upper.v1", "--dry-run").stdout


def test_a_record_without_its_bases_is_not_up_to_date(tmp_path: Path) -> None:
    """Earlier versions did not record the weights of the bases, which may be others now."""
    write_two_families(tmp_path, tmp_path / "photos")
    train(tmp_path, "--all")
    for path in tmp_path.glob("adapters/*/v1.training.json"):
        record = json.loads(path.read_text())
        record["recipe"].pop("bases", None)
        path.write_text(json.dumps(record))
    assert "upper.v1" in train(tmp_path, "upper.v1", "--dry-run").stdout
    assert train(tmp_path, "lower.v1", "--dry-run").stdout == "nothing to train\n"


def test_the_recipe_of_a_record_counts(root: Path) -> None:
    train(root, "mini.c4")
    path = root / "adapters/mini/c4.training.json"
    trained = json.loads(path.read_text())
    wanted = {"mini.c4": root / "adapters/mini/c4.toml"}
    variant = AdapterConfig("mini.c4", root / "adapters/mini", read_variant(wanted["mini.c4"]))
    recipe = recipe_of(variant, "cpu", {})
    for rate, expected in ((recipe.rate, ["mini.c4"]), (recipe.rate / 2, [])):
        fields = {**vars(recipe), "rate": rate}
        path.write_text(json.dumps(trained | {"steps": 5, "recipe": trained["recipe"] | fields}))
        plan = make_plan(wanted, TrainOptions(""), 6, lambda: trained["recipe"]["data"], root=root)
        assert plan.up_to_date == expected


@pytest.mark.parametrize(
    "seconds, text", [(3.2, "3 s"), (59.4, "59 s"), (59.6, "1 min"), (3570, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class TestData:
    """The data of a command, for one adapter without data in its TOML file and two with some."""

    @pytest.fixture
    def wanted(self, tmp_path: Path) -> dict[str, Path]:
        texts = {"any": "", "one": 'data = "scenes-train"', "other": 'data = "phantoms-train"'}
        found = {}
        for name, text in texts.items():
            found[name] = tmp_path / f"{name}.toml"
            found[name].write_text(f"[training]\n{text}\nflip = false\n")
        return found

    def test_all_leaves_out_what_is_trained_on_other_data(self, wanted: dict[str, Path]) -> None:
        assert choose_data(wanted, None, True) == (
            TRAINING_DATA, {"one": "scenes-train", "other": "phantoms-train"}
        )  # fmt: skip
        assert choose_data(wanted, "scenes-train", True) == ("scenes-train", {"other": "phantoms-train"})

    def test_named_adapters_bring_their_data(self, wanted: dict[str, Path]) -> None:
        assert choose_data({"one": wanted["one"]}, None, False) == ("scenes-train", {})
        assert choose_data({"any": wanted["any"]}, None, False) == (TRAINING_DATA, {})
        assert choose_data({"any": wanted["any"]}, "some/folder", False) == ("some/folder", {})

    def test_other_data_are_refused(self, wanted: dict[str, Path]) -> None:
        with pytest.raises(UsageError, match=r"one is trained on scenes-train, .* give --data scenes-train"):
            choose_data({"one": wanted["one"]}, "tiny-imagenet-train", False)
        with pytest.raises(UsageError, match=r"any on tiny-imagenet-train.*one command for each"):
            choose_data({name: wanted[name] for name in ("any", "one")}, None, False)
