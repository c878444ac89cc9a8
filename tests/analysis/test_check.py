"""Regressions of `tokbench check`: tolerances alone decide, except for noise that is drawn again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from checkout import ROOT
from factories import run_eval
from markdown_it import MarkdownIt

from tokbench.analysis.regression import check as measure_again
from tokbench.analysis.tolerances import read_tolerances, tolerance_of
from tokbench.data.dataset import open_dataset
from tokbench.errors import MissingWeights, UsageError
from tokbench.evaluation.config import Context
from tokbench.evaluation.randomness import draws_noise
from tokbench.evaluation.tasks import RECONSTRUCT
from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import METRICS as AVAILABLE
from tokbench.metric_names import MetricName
from tokbench.protocol.protocol import TOKBENCH, load_protocol
from tokbench.results.markdown import table
from tokbench.results.result import load
from tokbench.tokenizers.registry import load_adapter

METRICS = "psnr,ssim,rate"


@pytest.fixture
def measured(cli, mirrored: Path, tmp_path: Path):
    """Return a function that measures an adapter on the photos and returns the path of its result."""

    def measure(adapter: str, *more: object) -> Path:
        out = tmp_path / "results"
        done = cli("eval", adapter, "--data", mirrored, "--metrics", METRICS, "--out", out, *more)
        assert done.exit_code == 0, done.stderr
        return next((out / adapter).glob("*.json"))

    return measure


def check(cli, path: Path, mirrored: Path, *more: object):
    return cli("check", "--against", path.parent.parent, "--data", mirrored, *more)


def spoil(path: Path, by: float, images: slice, device: str = "cpu") -> None:
    """Change the committed result: its device, and a higher PSNR on these images."""
    result = load(path)
    result.per_image["psnr"][images] += by
    result.metrics["psnr"]["value"] = float(np.nanmean(result.per_image["psnr"]))
    path.unlink()
    result.provenance["device"] = device
    result.save(path.parent.parent)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_drop_on_one_image_of_a_deterministic_codec_is_a_regression(
    cli, measured, mirrored: Path, tmp_path: Path, device: str
) -> None:
    """Images and code are equal, so a regression stays one on every device, even if the interval contains 0."""
    path = measured("jpeg.q50")
    spoil(path, 15.5, slice(0, 1), device)
    done = check(cli, path, mirrored, "--junit", tmp_path / "junit.xml", "--json", "--github")
    assert done.exit_code == 1
    checks = {entry["number"]: entry for entry in json.loads(done.stdout)["checks"]}
    assert checks["psnr"]["gap"] == pytest.approx(-15.5 / 12)
    assert checks["psnr"]["low"] <= 0 <= checks["psnr"]["high"]
    assert (checks["psnr"]["outcome"], checks["psnr"]["verdict"]) == ("regression", "cannot tell")
    assert next(iter(checks["psnr"]["moved"].items())) == ("more/photo4-mirrored.png", pytest.approx(-15.5))
    assert {entry["outcome"] for number, entry in checks.items() if number != "psnr"} == {"same"}
    cases = ElementTree.parse(tmp_path / "junit.xml").getroot().findall("testsuite/testcase")
    assert [case.get("name") for case in cases if case.find("failure") is not None] == ["psnr"]
    assert "::error title=tokbench jpeg.q50::" in done.stderr
    shown = check(cli, path, mirrored, "--limit", 12).stdout
    assert "1 regression" in shown
    assert "more/photo4-mirrored.png -15.5" in shown


@pytest.fixture(scope="module")
def sampling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose only adapter is the toy with a decoder that adds noise, sampled from each image's seed."""
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "by", "images", "outcome"),
    [
        ("cpu", 0.5, slice(0, 1), "regression"),  # the same noise again
        ("cuda", 0.03, slice(0, 1), "within noise"),
        ("cuda", 15.5, slice(0, 1), "regression"),  # its interval contains 0, but no seed changes an image that much
        ("cuda", 0.5, slice(None), "regression"),
    ],
)
def test_noise_drawn_anew_on_another_device_is_judged_by_other_seeds(
    cli, measured, sampling: Path, mirrored: Path, device: str, by: float, images: slice, outcome: str
) -> None:
    path = measured("noisy.p8", "--root", sampling)
    spoil(path, by, images, device)
    done = check(cli, path, mirrored, "--root", sampling, "--json", "--strict")
    checks = {entry["number"]: entry for entry in json.loads(done.stdout)["checks"]}
    assert checks["psnr"]["outcome"] == outcome
    assert checks["psnr"]["redrawn"] == (device != "cpu")
    assert done.exit_code == (outcome == "regression")


def test_whether_noise_is_drawn_is_found_out(sampling: Path, mirrored: Path) -> None:
    data = open_dataset(str(mirrored), TOKBENCH)
    for name, root, drawn in (("noisy.p8", sampling, True), ("toy.p8", ROOT, False), ("jpeg.q50", ROOT, False)):
        assert draws_noise(load_adapter(name, "cpu", root).model, RECONSTRUCT, data, "cpu", 0) is drawn, name


def test_every_number_that_is_no_speed_has_a_tolerance() -> None:
    """A number without a tolerance would silently be left out of every check."""
    for entry in AVAILABLE.values():
        for number in entry.names():
            if not entry.timed and MetricName.parse(number).span != "curve":
                assert tolerance_of(number) is not None, number


def test_numbers_of_faces_are_compared_as_a_whole(networks) -> None:
    data = open_dataset("faces", load_protocol("tokbench-peer"), limit=3)
    (result,) = run_eval([load_adapter("resize.2")], data, ["faces"], networks=networks)
    context = Context(networks=networks)
    whole = measure_again([result], context=context)
    assert {one.outcome for one in whole.checks} == {"same"}
    assert {"faces", "f_sim_all", "f_distance_ceiling_all", "f_rank1_all"} <= {one.number for one in whole.checks}
    assert [number for number in result.metrics if "." in number]  # bins of sizes, which are parts of these
    assert not [one.number for one in whole.checks if "." in one.number]
    result.metrics["f_sim_all"]["value"] += 0.02
    assert [one.number for one in measure_again([result], context=Context(networks=networks)).regressions] == [
        "f_sim_all"
    ]


def test_a_number_that_nothing_measures_any_more_is_listed(cli, measured, mirrored: Path) -> None:
    path = measured("jpeg.q50")
    document = json.loads(path.read_text())
    document["metrics"]["sharpness"] = {"value": 1.0}
    path.write_text(json.dumps(document))
    assert check(cli, path, mirrored, "--allow-missing").exit_code == 0
    done = check(cli, path, mirrored)
    assert done.exit_code == 1
    assert "not compared: MISSING sharpness of jpeg.q50" in done.stdout
    assert "this version of tokbench does not compute it" in done.stdout


@pytest.fixture(scope="module")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose adapters are two variants of the toy."""
    root = tmp_path_factory.mktemp("toys")
    shutil.copytree(ROOT / "adapters" / "toy", root / "adapters" / "toy")
    return root


CONTINUOUS = """

class Means(Tokenizer):
    \"\"\"The same means, not quantised.\"\"\"

    def __init__(self, name, patch):
        self.patch = patch
        self.spec = TokenizerSpec(name, kind="continuous", range=(0.0, 1.0), multiple=patch, downsample=patch)

    def encode(self, images):
        means = avg_pool2d(images, self.patch)
        return Tokens.from_latents(means, means[0, 0].numel())

    def decode(self, tokens, seeds):
        return interpolate(tokens.tensor, scale_factor=self.patch, mode="bicubic")


def load(variant, device):
    return Means(variant.name, variant.config["model"]["patch"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [[], ["--limit", 4]])
def test_numbers_that_vanish_with_the_codebook_are_lost(
    cli, measured, toy_root: Path, mirrored: Path, tmp_path: Path, limit: list[object]
) -> None:
    """The tokenizer became continuous and has no codebook to measure, so the check must fail."""
    path = measured("toy.p8", "--root", toy_root, "--metrics", "psnr,rate,codebook")
    code = tmp_path / "root" / "adapters" / "toy"
    shutil.copytree(toy_root / "adapters" / "toy", code)
    (code / "adapter.py").write_text((code / "adapter.py").read_text() + CONTINUOUS)
    for toml in sorted(code.glob("*.toml")):
        assert "patch" in toml.read_text()
    more = ["--root", tmp_path / "root", "--junit", tmp_path / "junit.xml", *limit]
    done = check(cli, path, mirrored, *more, "--json")
    assert done.exit_code == 1
    output = json.loads(done.stdout)
    lost = {entry["what"]: entry["reason"] for entry in output["not_compared"] if entry["kind"] == "lost"}
    assert {"codebook_usage", "perplexity", "codebook_entropy"} <= set(lost)
    assert f"delete perplexity from {Path('toy.p8') / path.name} or measure that result again" in lost["perplexity"]
    cases = ElementTree.parse(tmp_path / "junit.xml").getroot().findall("testsuite/testcase")
    failed = {case.get("name") for case in cases if case.find("failure") is not None}
    assert set(lost) <= failed
    shown = check(cli, path, mirrored, *more).stdout
    assert "not compared: LOST perplexity of toy.p8/" in shown


@pytest.mark.slow
def test_an_adapter_that_is_gone_is_lost(cli, measured, toy_root: Path, mirrored: Path, tmp_path: Path) -> None:
    for adapter in ("toy.p8", "toy.p16", "jpeg.q50"):
        path = measured(adapter, "--root", toy_root)
    shutil.copytree(toy_root, tmp_path / "root")
    (tmp_path / "root" / "adapters" / "toy" / "p8.toml").unlink()
    done = check(cli, path, mirrored, "--root", tmp_path / "root", "--junit", tmp_path / "junit.xml")
    assert done.exit_code == 1
    assert "not compared: LOST toy.p8/" in done.stdout
    assert "no adapter 'toy.p8'" in done.stdout and "restore it, or delete toy.p8/" in done.stdout
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (root.get("failures"), root.get("errors"), root.get("skipped")) == ("1", "0", "0")
    assert check(cli, path, mirrored, "toy.p16", "jpeg.q50", "--root", tmp_path / "root").exit_code == 0


@pytest.mark.slow
def test_what_this_machine_lacks_is_a_failure_unless_allowed(
    cli, measured, mirrored: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the weights of a committed metric the check cannot pass unnoticed."""

    def without(self: ExtractorPool, name: str, path: str | None = None) -> None:
        raise MissingWeights(f"{name}: no weights here")

    path = measured("jpeg.q50", "--metrics", "psnr,fd_efficientnet")
    monkeypatch.setattr(ExtractorPool, "get", without)
    for more, status, kind, tag in (([], 1, "missing", "failure"), (["--allow-missing"], 0, "absent", "skipped")):
        done = check(cli, path, mirrored, "--junit", tmp_path / "junit.xml", "--json", "--github", *more)
        assert done.exit_code == status
        output = json.loads(done.stdout)
        assert {entry["kind"] for entry in output["not_compared"]} == {kind}
        assert "fd_efficientnet" in {entry["what"] for entry in output["not_compared"]}
        cases = ElementTree.parse(tmp_path / "junit.xml").getroot().findall("testsuite/testcase")
        assert "fd_efficientnet" in {case.get("name") for case in cases if case.find(tag) is not None}
        assert f"::{'error' if status else 'warning'} title=tokbench jpeg.q50::" in done.stderr


def test_missing_data_is_a_failure_unless_allowed(cli, measured, mirrored: Path) -> None:
    path = measured("jpeg.q50")
    against = "--against", path.parent.parent
    assert cli("check", *against).exit_code == 1  # the folder of images is no named dataset
    assert cli("check", *against, "--allow-missing").exit_code == 3  # nothing was compared


@pytest.mark.slow
def test_all_outputs_count_alike(cli, measured, toy_root: Path, mirrored: Path, tmp_path: Path) -> None:
    """All outputs agree on a regression, a missing adapter, a failure, other pixels and a retired number."""
    for adapter in ("toy.p8", "toy.p16", "jpeg.q50", "jpeg.q90", "resize.2"):
        path = measured(adapter, "--root", toy_root)
    results = path.parent.parent
    spoil(next(results.glob("jpeg.q50/*.json")), 0.5, slice(None))
    for adapter, change in (
        ("jpeg.q90", lambda document: document["provenance"]["data"].update(sha256="0" * 64)),
        ("resize.2", lambda document: document["metrics"].update(sharpness={"value": 1.0})),
    ):
        file = next(results.glob(f"{adapter}/*.json"))
        document = json.loads(file.read_text())
        change(document)
        file.write_text(json.dumps(document))
    shutil.copytree(toy_root, tmp_path / "root")
    code = tmp_path / "root" / "adapters" / "toy"
    (code / "p8.toml").unlink()
    (code / "adapter.py").write_text((code / "adapter.py").read_text().replace("codes = tokens", "codes = tokens.no"))
    more = ["--root", tmp_path / "root", "--junit", tmp_path / "junit.xml"]
    shown = check(cli, path, mirrored, *more)
    counts = json.loads(check(cli, path, mirrored, *more, "--json").stdout)["counts"]
    assert shown.exit_code == 1
    expected = {"regression": 1, "lost": 1, "failed": 1, "refused": 1, "missing": 1, "better": 0, "within noise": 0}
    assert {kind: counts[kind] for kind in expected} == expected
    assert shown.stdout.splitlines()[-1].endswith(
        f": 1 regression, {counts['same']} same; 1 lost, 1 missing, 1 failed, 1 refused"
    )
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    counted = {key: int(root.get(key, "-1")) for key in ("tests", "failures", "errors", "skipped")}
    assert counted == {"tests": sum(counts.values()), "failures": 3, "errors": 2, "skipped": 0}
    suites = [{key: int(suite.get(key, "-1")) for key in counted} for suite in root.findall("testsuite")]
    assert counted == {key: sum(suite[key] for suite in suites) for key in counted}


def test_names_of_images_break_no_table(cli, mirrored: Path, tmp_path: Path) -> None:
    """Bars, backticks and backslashes in names are escaped, because they have a meaning in Markdown tables."""
    photos = tmp_path / "photos"
    shutil.copytree(mirrored, photos)
    (photos / "photo1.png").rename(photos / "a|b`c\\|d.png")
    out = tmp_path / "results"
    done = cli("eval", "jpeg.q50", "--data", photos, "--metrics", METRICS, "--out", out)
    assert done.exit_code == 0, done.stderr
    path = next(out.glob("jpeg.q50/*.json"))
    spoil(path, 15.5, slice(0, 1))
    shown = check(cli, path, photos).stdout
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert "a\\|b\\`c\\\\\\|d.png -15.5" in rows[-1]
    page = MarkdownIt("commonmark").enable("table").render("\n".join(rows))
    assert page.count("<td") == 8 * (len(rows) - 2)
    assert "a|b`c\\|d.png -15.5" in page


def test_cells_are_text_on_one_line() -> None:
    text = table(["a|b", "c"], [["x\ny", "`z`"]])
    assert text.splitlines()[0].count("|") == 4 and "a\\|b" in text
    assert "x y" in text and "\\`z\\`" in text and len(text.splitlines()) == 3
    assert "`z`" in table(["a", "c"], [["x", "`z`"]], markup=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[check.tolerance]\npsnr = true", "psnr = True; give a number"),
        ("[check.tolerence]\npsnr = 1", r"there is no \[check\] tolerence; tolerances are set in one table, "),
        ("[check]\ntolerances = 1", r"there is no \[check\] tolerances; .*\[check.tolerance\]"),
        ("[check]\npsnr = 1", r"there is no \[check\] psnr; .*\[check.tolerance\]"),
        ("[tolerance]\npsnr = 1", r"there is no \[tolerance\]; .*\[check.tolerance\]"),
        ("[checks.tolerance]\npsnr = 1", r"there is no \[checks\]; .*\[check.tolerance\]"),
        ("psnr = 1", r"there is no psnr; .*\[check.tolerance\]"),
        ("[[check]]\npsnr = 1", r"tolerances are set in one table, \[check.tolerance\]"),
        ("[check.tolerance]\npnsr = 1", "compares no number 'pnsr'; did you mean"),
        ("[check.tolerance]\n'pfid.a0.9-d10' = 1", "compares no number 'pfid.a0.9-d10'"),
        ("[check.tolerance]\npsnr_infinity = 1", "compares no number 'psnr_infinity'"),
        ("[check.tolerance]\nparameters = 1", "compares no number 'parameters'"),
    ],
)
def test_settings_without_effect_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tokbench.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_tolerances(tmp_path / "tokbench.toml")


def test_a_number_judged_by_anothers_tolerance_may_have_its_own(tmp_path: Path) -> None:
    config = tmp_path / "tokbench.toml"
    config.write_text("codebook_size = 64000\n[check.tolerance]\npfid = '1%'\nrfid = '2%'\n")  # beside TorchScript
    read = read_tolerances(config)
    for number, share in (("pfid", 0.01), ("pfid_infinity", 0.01), ("rfid", 0.02), ("rfid_infinity", 0.02)):
        tolerance = tolerance_of(number, read)
        assert tolerance is not None and tolerance.relative == share, number
    assert tolerance_of("pfid_grouped", read) == read["rfid"]
    config.write_text("[check.tolerance]\nrfid_infinity = 0.5\n")
    read = read_tolerances(config)
    assert tolerance_of("rfid_infinity", read) == read["rfid_infinity"] != tolerance_of("rfid", read)
