"""The options of `tokbench check` that change how numbers are judged, and `tokbench compare --fail-if-worse`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT

from tokbench.analysis.compare import Difference
from tokbench.analysis.outcomes import noise_between_seeds, outcome_of
from tokbench.analysis.tolerances import Rules, default_tolerances, parse_drops
from tokbench.errors import UsageError
from tokbench.metric_names import Tolerance
from tokbench.results.result import Result, load

METRICS = "psnr,ssim,rate"


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    """A root whose only adapters are the variants of the toy."""
    shutil.copytree(ROOT / "adapters" / "toy", tmp_path / "root" / "adapters" / "toy")
    return tmp_path / "root"


@pytest.fixture
def judge(cli, photo_folder: Path, tmp_path: Path):
    """Return a function that checks the committed results of tmp_path/results on the photos."""

    def run(*more: object) -> tuple[int, dict[str, str], str]:
        options = ["--against", tmp_path / "results", "--data", photo_folder, *more]
        done = cli("check", *options, "--json")
        checks = json.loads(done.stdout)["checks"] if done.stdout.startswith("{") else []
        return done.exit_code, {entry["number"]: entry["outcome"] for entry in checks}, done.stderr

    return run


@pytest.fixture
def measure(cli, photo_folder: Path, tmp_path: Path):
    """Return a function that measures an adapter on the photos and returns the path of its result."""

    def run(adapter: str, *more: object, out: str = "results") -> Path:
        options = ["--data", photo_folder, "--metrics", METRICS, "--out", tmp_path / out]
        done = cli("eval", adapter, *options, *more)
        assert done.exit_code == 0, done.stderr
        return next((tmp_path / out / adapter).glob("*.json"))

    return run


def change(path: Path, how: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the PSNR of the images of a committed result, and with it their mean."""
    result = load(path)
    result.per_image["psnr"] = how(result.per_image["psnr"])
    result.metrics["psnr"]["value"] = float(np.mean(result.per_image["psnr"]))
    out = path.parent.parent
    path.unlink()
    result.save(out)


@pytest.mark.slow
def test_a_committed_value_that_contradicts_its_images_is_refused(
    measure, judge, cli, photo_folder: Path, tmp_path: Path
) -> None:
    path = measure("jpeg.q50")
    result = load(path)
    result.metrics["psnr"]["value"] += 1.0  # the .npz file stays as it is
    out = path.parent.parent
    path.unlink()
    result.save(out)
    status, outcomes, _ = judge()
    assert status == 3 and "psnr" not in outcomes and outcomes["ssim"] == "same"
    done = cli("check", "--against", tmp_path / "results", "--data", photo_folder)
    assert "is not that of its images in the .npz file" in done.output


def exchange(values: np.ndarray) -> np.ndarray:
    """Return values whose mean is the same, although two of them have changed by 1 dB."""
    return values + np.array([1, -1] + [0] * (len(values) - 2))


@pytest.mark.slow
def test_strict_ignores_larger_tolerances_and_looks_at_every_image(measure, judge, tmp_path: Path) -> None:
    path = measure("jpeg.q50")
    change(path, lambda values: values + 1.3)
    (tmp_path / "loose.toml").write_text("[check.tolerance]\npsnr = 2\n")
    loose = ["--config", tmp_path / "loose.toml"]
    assert judge()[:2] == (1, judge()[1] | {"psnr": "regression"})
    assert judge(*loose)[0] == 0
    status, outcomes, _ = judge(*loose, "--strict")
    assert (status, outcomes["psnr"]) == (1, "regression")
    change(path, lambda values: exchange(values - 1.3))
    assert judge()[0] == 0
    status, outcomes, _ = judge("--strict")
    assert (status, outcomes["psnr"], outcomes["ssim"]) == (1, "regression", "same")
    change(path, lambda values: 2 * values - exchange(values))
    assert judge("--strict")[0] == 0


@pytest.mark.slow
def test_max_drop_allows_a_drop_of_this_size(measure, judge) -> None:
    path = measure("jpeg.q50")
    change(path, lambda values: values + 0.08)
    status, outcomes, _ = judge("--max-drop", "psnr=0.1,ssim=2%")
    assert (status, outcomes["psnr"], outcomes["ssim"]) == (0, "allowed drop", "same")
    assert judge("--max-drop", "psnr=0.1", "--strict")[0] == 0
    for drop in ("psnr=0.05", "psnr=0.1%", "ssim=0.1"):
        assert judge("--max-drop", drop)[:2] == (1, outcomes | {"psnr": "regression"})
    change(path, lambda values: values - 5)
    assert judge("--max-drop", "psnr=0.1")[1]["psnr"] == "better"  # a gain has no limit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pnsr=1", "--max-drop: tokbench check compares no number 'pnsr'; did you mean 'psnr'"),
        ("psnr=-1", "a tolerance is not negative"),
        ("psnr=", "give a number, or a share"),
        ("codebook_entropy=1", "codebook_entropy is neither better nor worse when it grows"),
        ("", "compares no number ''"),
    ],
)
def test_drops_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_drops(text, "--max-drop")
    assert parse_drops("psnr = 0.1, lpips=2%", "--max-drop") == {
        "psnr": Tolerance(absolute=0.1), "lpips": Tolerance(relative=0.02),
    }  # fmt: skip


def test_numbers_of_a_distance_may_drop_as_the_distance_may() -> None:
    drop = Rules(max_drop=parse_drops("rfid=0.5", "--max-drop"))
    for number in ("rfid", "rfid_infinity", "pfid"):
        found = Difference(number, 1.0, 1.4, 0.4, 0.3, 0.5, 10, "worse")
        assert outcome_of(found, default_tolerances()["rfid"], drop) == "allowed drop"
    found = Difference("kid", 1.0, 1.4, 0.4, 0.3, 0.5, 10, "worse")
    assert outcome_of(found, default_tolerances()["kid"], drop) == "regression"


@pytest.mark.slow
def test_new_weights_are_compared_and_written_on_request(measure, judge, toys: Path, tmp_path: Path) -> None:
    """The committed result is that of earlier weights, which were 1.3 dB better on one image."""
    path = measure("toy.p8", "--root", toys)
    change(path, lambda values: values + np.array([7.8] + [0] * (len(values) - 1)))
    before = json.loads(path.read_text())
    adapter = before["provenance"]["adapter"]
    assert "parameters_sha256" not in adapter  # the toy has no weights
    adapter["parameters_sha256"] = "0" * 64
    path.write_text(json.dumps(before))
    root = ["--root", toys]
    status, outcomes, _ = judge(*root)
    assert (status, outcomes) == (3, {})  # refused: the weights differ
    status, outcomes, errors = judge(*root, "--new-weights")
    assert (status, outcomes["psnr"]) == (1, "regression")
    assert "updated" not in errors and json.loads(path.read_text()) == before
    assert judge(*root, "--new-weights", "--max-drop", "psnr=2")[0] == 0
    status, _, errors = judge(*root, "--new-weights", "--update")
    assert status == 1 and f"updated {path}" in errors
    written = load(path)
    assert "parameters_sha256" not in written.provenance["adapter"]
    assert written.metrics["psnr"]["value"] == pytest.approx(before["metrics"]["psnr"]["value"] - 1.3)
    content = path.read_bytes()
    status, outcomes, errors = judge(*root, "--update")
    assert (status, set(outcomes.values())) == (0, {"same"})
    assert "updated" not in errors and path.read_bytes() == content


def test_numbers_without_direction_may_change_with_the_weights() -> None:
    found = Difference("codebook_entropy", 9.0, 9.4, 0.4, 0.3, 0.5, 10, "no direction")
    tolerance = default_tolerances()["codebook_entropy"]
    assert outcome_of(found, tolerance, new_weights=True) == "changed"
    assert outcome_of(found, tolerance) == "regression"


@pytest.mark.slow
def test_an_update_loses_no_number_that_is_missing_here(measure, judge) -> None:
    path = measure("jpeg.q50")
    change(path, lambda values: values - 1)
    document = json.loads(path.read_text())
    document["metrics"]["sharpness"] = {"value": 1.0}
    path.write_text(json.dumps(document))
    status, _, errors = judge("--update")
    assert status == 1 and "because sharpness could not be measured here; --allow-missing" in errors
    assert json.loads(path.read_text()) == document
    status, _, errors = judge("--update", "--limit", 2)
    assert status == 2 and "leave out --limit" in errors
    status, _, errors = judge("--update", "--allow-missing")
    assert status == 0 and "\nupdated " in f"\n{errors}"
    assert load(path).metrics["psnr"]["value"] == pytest.approx(document["metrics"]["psnr"]["value"] + 1)


@pytest.mark.slow
def test_compare_fails_if_a_number_is_worse(cli, measure) -> None:
    good, bad = measure("jpeg.q90"), measure("jpeg.q50")

    def status(first: Path, second: Path, numbers: str, *more: object) -> tuple[int, str]:
        done = cli("compare", first, second, "--fail-if-worse", numbers, *more)
        return done.exit_code, done.stderr

    assert cli("compare", good, bad).exit_code == 0
    assert status(good, bad, "psnr,bpp") == (1, "worse in jpeg.q50: psnr\n")
    assert status(good, bad, "psnr,bpp", "--json")[0] == 1
    assert status(good, bad, "bpp")[0] == 0
    assert status(bad, good, "psnr,ssim")[0] == 0
    assert status(good, bad, "psnr=50%")[0] == 0
    assert status(good, bad, "bpp,lpips") == (3, "could not be compared: lpips\n")
    assert status(good, bad, "psnr,lpips")[0] == 1
    code, message = status(good, bad, "pnsr")
    assert code == 2 and "did you mean 'psnr'" in message


@pytest.mark.slow
def test_compare_fails_for_a_drop_whose_interval_contains_zero(cli, measure) -> None:
    earlier, now = measure("jpeg.q50", out="earlier"), measure("jpeg.q50", out="now")
    change(earlier, lambda values: values + np.array([7.8] + [0] * (len(values) - 1)))
    done = cli("compare", earlier, now, "--fail-if-worse", "psnr", "--json")
    psnr = next(one for one in json.loads(done.stdout) if one["number"] == "psnr")
    assert psnr["gap"] == pytest.approx(-1.3) and psnr["verdict"] == "cannot tell"
    assert done.exit_code == 1


def draws(values: np.ndarray, number: str = "psnr") -> list[Result]:
    """Return results of one adapter with several seeds. values: (seeds, images)."""
    return [
        Result("a", "d", "reconstruct", len(row), {number: {"value": float(row.mean())}}, {}, [], {},
               per_image={number: row} if number == "psnr" else {})
        for row in values
    ]  # fmt: skip


@pytest.mark.parametrize("number", ["psnr", "rfid"])
def test_noise_between_seeds_covers_a_further_seed(number: str) -> None:
    """The difference between two seeds is noise in all but about 0.1 % of cases, and a larger one is not."""
    drawn = np.random.default_rng(0)
    levels = drawn.normal(30, 5, 50)  # images differ by far more than seeds
    outside = 0
    for _ in range(1000):
        values = levels + drawn.normal(0, 0.1, (5, 50))
        noise = noise_between_seeds(number, draws(values[:4], number))
        outside += abs(values[4].mean() - values[0].mean()) > noise
        assert noise < (0.1 if number == "psnr" else 1.3)
    assert outside <= 8


def test_a_seed_that_failed_gives_no_noise() -> None:
    found = draws(np.random.default_rng(0).normal(30, 1, (4, 50)))
    assert noise_between_seeds("psnr", found) > 0
    found[2] = Result("a", "d", "reconstruct", 0, {}, {}, [], {}, error="out of memory")
    assert noise_between_seeds("psnr", found) == 0
