"""What `tokbench check` calls a regression: tolerances alone, but for noise that was drawn anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from factories import run_eval

from tokbench.compare import Difference, judge
from tokbench.dataset import open_dataset
from tokbench.metrics import METRICS as AVAILABLE
from tokbench.plugins import load_adapter
from tokbench.protocol import TOKBENCH, load_protocol
from tokbench.randomness import draws_noise
from tokbench.regression import TIMED, _outcome
from tokbench.regression import check as measure_again
from tokbench.result import load
from tokbench.tasks import RECONSTRUCT
from tokbench.tolerances import TOLERANCES, tolerance_of

ROOT = Path(__file__).resolve().parent.parent
METRICS = "psnr,ssim,rate"


@pytest.fixture
def measured(cli, mirrored: Path, tmp_path: Path):
    """Measures an adapter on them; gives its result's file."""

    def measure(adapter: str, *more: object) -> Path:
        out = tmp_path / "results"
        done = cli("eval", adapter, "--data", mirrored, "--metrics", METRICS, "--out", out, *more)
        assert done.exit_code == 0, done.stderr
        return next((out / adapter).glob("*.json"))

    return measure


def check(cli, path: Path, mirrored: Path, *more: object):
    return cli("check", "--against", path.parent.parent, "--data", mirrored, *more)


def spoil(path: Path, by: float, images: slice, device: str = "cpu") -> None:
    """As if the committed result, measured on that device, had a higher PSNR on these images."""
    result = load(path)
    result.per_image["psnr"][images] += by
    result.metrics["psnr"]["value"] = float(np.nanmean(result.per_image["psnr"]))
    path.unlink()
    result.provenance["device"] = device
    result.save(path.parent.parent)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_drop_on_one_image_of_a_deterministic_codec_is_a_regression(
    cli, measured, mirrored: Path, tmp_path: Path, device: str
) -> None:
    """The same images through the same code: that the interval over images holds 0 is no excuse, on no device."""
    path = measured("jpeg.q50")
    spoil(path, 15.5, slice(0, 1), device)
    done = check(cli, path, mirrored, "--junit", tmp_path / "junit.xml", "--json", "--github")
    assert done.exit_code == 1
    told = {entry["number"]: entry for entry in json.loads(done.stdout)["checks"]}
    assert told["psnr"]["gap"] == pytest.approx(-15.5 / 12)
    assert told["psnr"]["low"] <= 0 <= told["psnr"]["high"]
    assert (told["psnr"]["outcome"], told["psnr"]["verdict"]) == ("regression", "cannot tell")
    assert next(iter(told["psnr"]["moved"].items())) == ("more/photo4-mirrored.png", pytest.approx(-15.5))
    assert {entry["outcome"] for number, entry in told.items() if number != "psnr"} == {"same"}
    cases = ElementTree.parse(tmp_path / "junit.xml").getroot().findall("testsuite/testcase")
    assert [case.get("name") for case in cases if case.find("failure") is not None] == ["psnr"]
    assert "::error title=tokbench jpeg.q50::" in done.stderr
    shown = check(cli, path, mirrored, "--limit", 12).stdout
    assert "1 regression" in shown
    assert "more/photo4-mirrored.png -15.5" in shown


@pytest.fixture(scope="module")
def sampling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose only adapter is the toy with a decoder that adds noise, drawn from each image's seed."""
    root = tmp_path_factory.mktemp("sampling")
    shutil.copytree(ROOT / "adapters" / "toy", root / "adapters" / "noisy")
    code = root / "adapters" / "noisy" / "adapter.py"
    added = """    def decode(self, tokens, seeds):
        images = self.mean(tokens, seeds)
        drawn = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (images + 0.05 * torch.stack(drawn)).clamp(0, 1)

    def mean(self"""
    code.write_text(code.read_text().replace("    def decode(self", added))
    return root


@pytest.mark.parametrize(
    ("device", "images", "outcome"),
    [
        ("cpu", slice(0, 1), "regression"),  # the same noise again
        ("cuda", slice(0, 1), "within noise"),
        ("cuda", slice(None), "regression"),  # its interval does not hold 0
    ],
)
def test_noise_drawn_anew_on_another_device_is_judged_by_the_interval(
    cli, measured, sampling: Path, mirrored: Path, device: str, images: slice, outcome: str
) -> None:
    path = measured("noisy.p8", "--root", sampling)
    spoil(path, 0.5, images, device)
    done = check(cli, path, mirrored, "--root", sampling, "--json")
    told = {entry["number"]: entry for entry in json.loads(done.stdout)["checks"]}
    assert told["psnr"]["outcome"] == outcome
    assert told["psnr"]["redrawn"] == (device != "cpu")
    assert done.exit_code == (outcome == "regression")


def test_whether_noise_is_drawn_is_found_out(sampling: Path, mirrored: Path) -> None:
    data = open_dataset(str(mirrored), TOKBENCH)
    for name, root, drawn in (("noisy.p8", sampling, True), ("toy.p8", ROOT, False), ("jpeg.q50", ROOT, False)):
        assert draws_noise(load_adapter(name, "cpu", root).model, RECONSTRUCT, data, "cpu", 0) is drawn, name


def test_every_number_that_is_no_speed_has_a_tolerance() -> None:
    """Without one it would be left out of every check without a word, as those of words and faces once were."""
    for name, entry in AVAILABLE.items():
        for number in entry.numbers or (name,):
            if name not in TIMED and "_curve" not in number:
                assert tolerance_of(number) is not None, number


def test_numbers_of_faces_are_compared_as_a_whole(networks) -> None:
    data = open_dataset("faces", load_protocol("tokbench-peer"), limit=3)
    (result,) = run_eval([load_adapter("resize.2")], data, ["faces"], networks=networks)
    whole = measure_again([result], networks=networks)
    assert {one.outcome for one in whole.checks} == {"same"}
    assert {"faces", "f_sim_all", "f_distance_ceiling_all", "f_rank1_all"} <= {one.number for one in whole.checks}
    assert [number for number in result.metrics if "." in number]  # bins of sizes, which are parts of these
    assert not [one.number for one in whole.checks if "." in one.number]
    result.metrics["f_sim_all"]["value"] += 0.02
    assert [one.number for one in measure_again([result], networks=networks).regressions] == ["f_sim_all"]


def test_a_number_that_nothing_measures_any_more_is_listed(cli, measured, mirrored: Path) -> None:
    path = measured("jpeg.q50")
    told = json.loads(path.read_text())
    told["metrics"]["sharpness"] = {"value": 1.0}
    path.write_text(json.dumps(told))
    done = check(cli, path, mirrored)
    assert done.exit_code == 0
    assert "not compared: sharpness of jpeg.q50" in done.stdout
    assert "this version of tokbench does not measure it" in done.stdout


def without_bar(number: str, first: float, second: float) -> Difference:
    nan = float("nan")
    return Difference(number, first, second, second - first, nan, nan, 10, "no error bar")


def with_bar(number: str, first: float, second: float, low: float, high: float) -> Difference:
    return Difference(number, first, second, second - first, low, high, 10, judge(number, second - first, low, high))


def some_exact(first_only: int, second_only: int) -> Difference:
    """The same mean over the images that are exact in neither; so many are exact in one result only."""
    return Difference("psnr", 30.0, 30.0, 0.0, 0.0, 0.0, 9, "same", first_only, second_only)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (some_exact(first_only=0, second_only=1), "regression"),
        (some_exact(first_only=1, second_only=0), "better"),
        (some_exact(first_only=0, second_only=0), "same"),
        (without_bar("kid", 0.01, 0.005), "better"),
        (without_bar("kid", 0.005, 0.01), "regression"),
        (without_bar("exact", 3, 5), "better"),
        (without_bar("exact", 5, 3), "regression"),
        (without_bar("tokens_per_image", 256, 255), "regression"),
        (without_bar("kid", 0.01, 0.010001), "same"),
        (with_bar("psnr", 30, 28.71, -5, 2), "regression"),
        (with_bar("psnr", 30, 31.29, -2, 5), "better"),
        (with_bar("psnr", 30, 29.9995, -5, 2), "same"),
        (with_bar("rfid", 1, 1.01, -1, 1), "regression"),
        (with_bar("rfid", 1, 0.99, -1, 1), "better"),
        (with_bar("codebook_entropy", 9, 9.1, -1, 1), "regression"),  # neither way is better: it is another number
    ],
)
def test_outcomes(found: Difference, expected: str) -> None:
    assert _outcome(found, TOLERANCES[found.number]) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (with_bar("psnr", 30, 28.71, -5, 2), "within noise"),
        (with_bar("psnr", 30, 28.71, -2, -1), "regression"),
        (with_bar("rfid", 1, 0.99, -0.02, -0.005), "better"),
        (with_bar("psnr", 30, 29.9995, -5, 2), "same"),
        (without_bar("kid", 0.005, 0.01), "regression"),
        (some_exact(first_only=0, second_only=1), "regression"),
    ],
)
def test_outcomes_where_noise_was_drawn_anew(found: Difference, expected: str) -> None:
    assert _outcome(found, TOLERANCES[found.number], redrawn=True) == expected
