"""The audit: every row equals an evaluation under that protocol, and statements about a claim are true."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import run_eval

from tokbench.analysis import audit_report
from tokbench.analysis.audit import ProtocolVariation, Row, audit, choices
from tokbench.data.dataset import open_dataset
from tokbench.errors import AdapterError, UsageError
from tokbench.evaluation.config import Context, EvalConfig
from tokbench.metrics.fid_statistics import FidStatistics
from tokbench.protocol.protocol import TOKBENCH, PublishedSetup, load_protocol, protocols
from tokbench.stats.split_half import Replicates
from tokbench.tokenizers.registry import load_adapter

NAMES = ("psnr", "ssim", "lpips", "rfid_64", "fd_efficientnet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten photos of unequal sizes, so that crops and filters matter."""
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("unequal")
    photos = [data.astronaut(), data.coffee(), data.rocket(), data.chelsea()]
    for i in range(10):
        photo = Image.fromarray(photos[i % 4]).crop((5 * i, 3 * i, 260 + 11 * i, 231 + 7 * i))
        photo.save(folder / f"{i}.png")
    return folder


@pytest.mark.slow
def test_rows_are_what_evaluations_give(folder: Path, networks) -> None:
    """One pass for all protocols gives the same numbers as one evaluation per protocol."""
    adapter = load_adapter("jpeg.q50")
    rows = audit(adapter, open_dataset(str(folder), TOKBENCH, 64), EvalConfig(NAMES), Context(networks=networks))
    assert [row.choice.title for row in rows] == [choice.title for choice in choices()]
    for row in rows:
        if row.choice.protocol.crop == "none":
            assert "does not resize images" in row.missing["psnr"], row.choice.title
            continue
        dataset = open_dataset(str(folder), row.choice.protocol, 64)
        vgg = row.choice.protocol.lpips.net == "vgg"
        names = ["lpips_vgg" if name == "lpips" and vgg else name for name in NAMES]
        (result,) = run_eval([adapter], dataset, names, networks=networks)
        assert result.error is None, result.error
        for name, own in zip(NAMES, names, strict=True):
            if own not in result.metrics:
                assert name in row.missing, (row.choice.title, name)
                continue
            expected = result.metrics[own]["value"]
            assert row.numbers[name]["value"] == pytest.approx(expected, rel=1e-9), (row.choice.title, name)


@pytest.mark.slow
def test_choices_move_what_they_should(folder: Path, networks) -> None:
    rows = audit(
        load_adapter("jpeg.q50"),
        open_dataset(str(folder), TOKBENCH, 64),
        EvalConfig(NAMES),
        Context(networks=networks),
    )
    default, by_title = rows[0], {row.choice.title: row for row in rows}

    def moved(title: str) -> set[str]:
        row = by_title[title]
        return {name for name in NAMES if row.numbers[name]["value"] != default.numbers[name]["value"]}

    assert moved("PSNR: of the pooled error") == {"psnr"}
    assert moved("SSIM: range 2 for images in [0, 1]") == {"ssim"}
    assert moved("reference: the original files") == {"rfid_64", "fd_efficientnet"}
    assert moved("storage: JPEG, quality 75") == set(NAMES)
    assert moved("filter: area") == set(NAMES)
    assert default.same_pixels
    assert not by_title["filter: area"].same_pixels


@pytest.mark.slow
def test_protocols_that_compare_with_statistics_get_them(folder: Path, networks) -> None:
    """The row of `adm` uses the file, the others do not; without the file, the row of `adm` contains a reason."""
    adapter, adm = load_adapter("jpeg.q50"), load_protocol("adm")
    network = networks.get("inception-2015-12-05", "tf1")
    moments = np.zeros(64), np.eye(64)
    statistics = FidStatistics({"64": moments}, network.name, network.input, "float32", network.sha256)
    dataset = open_dataset(str(folder), TOKBENCH, 64)
    alone, given = (
        audit(adapter, dataset, EvalConfig(("rfid_64",), statistics=s), Context(networks=networks))
        for s in (None, statistics)
    )
    for before, after in zip(alone, given, strict=True):
        if before.choice.title == "adm":
            assert "give them with --reference" in before.missing["rfid_64"]
            (result,) = run_eval(
                [adapter], open_dataset(str(folder), adm, 64), ["rfid_64"], networks=networks, statistics=statistics
            )
            assert after.numbers["rfid_64"]["value"] == pytest.approx(result.metrics["rfid_64"]["value"], rel=1e-9)
        else:
            assert before.numbers == after.numbers


def test_every_protocol_has_a_row() -> None:
    named = [choice.title for choice in choices() if choice.named]
    assert sorted([*named, "tokbench"]) == sorted(protocols())


def test_idle_choices_are_named_once(cli, photo_folder: Path) -> None:
    done = cli("audit", "jpeg.q10", "--data", photo_folder, "--metrics", "psnr,ssim", "--limit", 2)
    assert done.exit_code == 0, done.stderr
    assert "These choices do not change the pixels" in done.stdout
    assert "\n| filter: area" not in done.stdout
    assert "\n| titok" in done.stdout


def test_json(cli, photo_folder: Path) -> None:
    asked = ["--metrics", "psnr", "--limit", 2, "--json", "--claim", "psnr=30"]
    done = cli("audit", "jpeg.q10", "--data", photo_folder, *asked)
    entries = json.loads(done.stdout)["choices"]
    assert [entry["choice"] for entry in entries] == [choice.title for choice in choices()]
    assert json.loads(done.stdout)["claim"]["ranking"][0]["choices"]
    assert all(set(entry["metrics"]["psnr"]) == {"value", "low", "high", "n"} for entry in entries)


NAMED = {"adm", "titok", "pytorch-fid"}


def rows_of(values: dict[str, float], spread: float = 0.0) -> list[Row]:
    """Return rows as an audit returns them, the default first."""
    rows = []
    for title, value in values.items():
        entry = {"value": value, "low": value - spread, "high": value + spread, "n": 1000}
        rows.append(Row(ProtocolVariation(title, TOKBENCH.with_changes(title), named=title in NAMED), {"rfid": entry}))
    return rows


def test_a_claim_is_ranked_and_put_into_a_sentence() -> None:
    """The sentence quotes the default protocol, although another unnamed choice is closer to the claim."""
    rows = rows_of({"default": 1.74, "adm": 3.91, "truncated": 2.1, "titok": 1.74, "pytorch-fid": 1.70}, spread=0.01)
    claim = audit_report.match_claim(rows, "rfid", 3.9, 1000)
    assert [one.value for one in claim.found] == [3.91, 2.1, 1.74, 1.70]
    assert claim.found[2].title == "titok, default"
    text = audit_report.verdict(claim)
    assert "The value closest to 3.9 is 3.910, under `adm`; the default, `titok` (and 1 more), gives" in text


def test_a_claim_that_many_choices_explain() -> None:
    rows = rows_of({"default": 1.74, "adm": 1.8}, spread=0.5)
    text = audit_report.verdict(audit_report.match_claim(rows, "rfid", 1.75, 48))
    assert (
        "The 95 % intervals of 2 of 2 values contain 1.75, so 48 images do not determine which choice produced it."
        in text
    )


def test_a_claim_that_nothing_explains() -> None:
    text = audit_report.verdict(audit_report.match_claim(rows_of({"default": 1.74}, spread=0.1), "rfid", 0.5, 48))
    assert "No interval contains 0.5" in text


def with_halves(rows: list[Row], mean: float, quarters: float) -> list[Row]:
    """Return the rows with an N that authors state, and replicates that allow an extrapolation to it, or do not."""
    for row in rows:
        value = row.numbers["rfid"]["value"]
        row.replicates["rfid"] = Replicates(np.full(200, value + mean), np.full(200, value + mean + quarters))
        row.choice = replace(
            row.choice, protocol=replace(row.choice.protocol, published=PublishedSetup(num_images=50_000))
        )
    return rows


def test_few_images_cannot_tell() -> None:
    """The authors state an N with a smaller bias, and there are too few images to extrapolate to it."""
    rows = with_halves(rows_of({"default": 25.0, "adm": 30.0}, spread=1.0), 10.0, 10.0)
    text = audit_report.verdict(audit_report.match_claim(rows, "rfid", 0.92, 48))
    assert "48 images are too few to decide: authors use 50,000" in text
    assert "none of these choices" not in text


def test_a_claim_is_held_against_the_n_that_authors_state() -> None:
    """The bias is c / n: 5 + 1000 / n is 6 at 1,000 images and 5.02 at 50,000."""
    rows = with_halves(rows_of({"default": 6.0, "adm": 9.0}, spread=0.1), 1.0, 2.0)
    claim = audit_report.match_claim(rows, "rfid", 5.0, 1000)
    assert claim.found[0].compared == pytest.approx(5.02)
    text = audit_report.verdict(claim)
    assert "The value closest to 5 is 5.020 (estimated at N = 50,000), under `default`." in text


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--claim", "rfid"], "for example rfid=0.92"),
        (["--claim", "rfid=nan"], "must be finite"),
        (["--claim", "fid=1"], "no metric 'fid'"),
        (["--metrics", "psnr,rate"], "no protocol choice affects rate"),
    ],
)
def test_wrong_usage(cli, photo_folder: Path, arguments: list[str], complaint: str, monkeypatch) -> None:
    monkeypatch.delenv("TOKBENCH_WEIGHTS", raising=False)
    done = cli("audit", "jpeg.q10", "--data", photo_folder, *arguments)
    assert done.exit_code == 2
    assert complaint in done.stderr


def test_a_claim_needs_its_number() -> None:
    with pytest.raises(UsageError, match="available: rfid"):
        audit_report.match_claim(rows_of({"default": 1.0}), "kid", 1.0, 10)


def test_a_claim_whose_weights_are_missing_ends_at_once(cli, photo_folder: Path, monkeypatch) -> None:
    monkeypatch.delenv("TOKBENCH_WEIGHTS", raising=False)
    done = cli("audit", "jpeg.q10", "--data", photo_folder, "--claim", "rfid=1")
    assert done.exit_code == 1
    assert "weights-inception-2015-12-05-6726825d.pth" in done.stderr


def test_an_adapter_that_fails_is_named(photo_folder: Path) -> None:
    adapter = load_adapter("jpeg.q10")
    adapter.model.decode = lambda tokens, seeds: 1 / 0
    with pytest.raises(AdapterError, match=r"jpeg\.q10 failed on the batch that starts with .*ZeroDivisionError"):
        audit(adapter, open_dataset(str(photo_folder), TOKBENCH, limit=2), EvalConfig(("psnr",)))
