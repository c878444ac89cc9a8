"""The one result that all cells of perturbed tokens make: means, intervals, names, resuming. alpha 0 reconstructs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import evaluate_model
from image_files import write_gradients
from torch import Tensor

from tokbench import metric_names
from tokbench.analysis.compare import differences
from tokbench.analysis.regression import CheckConfig, check
from tokbench.data.dataset import open_dataset
from tokbench.data.stream import CHUNK
from tokbench.evaluation.checkpoint import unfinished
from tokbench.evaluation.steps import TokenTransform
from tokbench.evaluation.tasks import RECONSTRUCT, Perturb, Task
from tokbench.metric_names import metric_of
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results import columns, leaderboard, markdown
from tokbench.results.result import Result, load
from tokbench.tokenizers.base import ImageModel, Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

SIDE = 32
SUFFIX = {"fsq": "_fsq", "lfq": "_binary", "bits": "_binary"}
SUFFIX |= dict.fromkeys(("product", "residual", "bins"), "_grouped")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy gradients of 32 px, more than one unit of a checkpoint."""
    return write_gradients(tmp_path_factory.mktemp("images"), CHUNK + 8, SIDE)


def run(folder: Path, networks, model: ImageModel, task: Task, metrics: str = "psnr,rfid_64", **options) -> Result:
    options = {"limit": 12} | options
    data = open_dataset(str(folder), TOKBENCH, limit=options.pop("limit"))
    return evaluate_model(model, data, metrics.split(","), task=task, networks=networks, **options)


class Still(Perturb):
    """alpha 0 in the first two cells, and no others."""

    def steps(self, model: ImageModel) -> Sequence[TokenTransform]:
        return [replace(step, alpha=0.0) for step in super().steps(model)[:2]]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vq", "lfq", "kl"])
def test_alpha_0_is_the_reconstruction(untrained, folder: Path, networks, name: str) -> None:
    plain = run(folder, networks, untrained(name), RECONSTRUCT)
    still = run(folder, networks, untrained(name), Still())
    for number in ("psnr", "rfid_64", "rfid_64_infinity"):
        letter = "n" if name == "kl" else "p"
        base = number.removesuffix("_infinity")
        called = f"{letter}{metric_names.perturbable()[base]}{SUFFIX.get(name, '')}" + number.removeprefix(base)
        assert (called in still.metrics) == (number in plain.metrics)
        for key, found in plain.metrics.get(number, {}).items():
            rounded = base != "psnr" and (key in ("low", "high") or number != base)  # the mean is of rounded values
            assert still.metrics[called][key] == (pytest.approx(found, rel=1e-8) if rounded else found)


class Loud(Tokenizer):
    """Its latents are the image and one large value; the scale of the noise is computed over both."""

    spec = TokenizerSpec("loud.x", kind="continuous", range=(-1.0, 1.0), downsample=1, bits_per_token=64)

    def encode(self, images: Tensor) -> Tokens:
        loud = torch.full_like(images[:, :1], 40.0)
        return Tokens.from_latents(torch.cat([images, loud], 1).permute(0, 2, 3, 1), tokens=SIDE**2)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return self.shift + tokens.tensor.float()[..., :3].permute(0, 3, 1, 2)

    shift = 0.0


def test_noise_may_lead_a_decoder_out_of_its_range(folder: Path, networks) -> None:
    """Which is a fault where nothing was perturbed, also before the first cell."""
    model = Loud()
    assert run(folder, networks, model, RECONSTRUCT, "psnr").error is None
    result = run(folder, networks, model, Perturb(), "psnr")
    assert result.error is None
    assert result.metrics["npsnr.a0.9"]["value"] < result.metrics["npsnr.a0.5"]["value"] < 20
    model.shift = 30.0
    for task in (RECONSTRUCT, Perturb()):
        assert "its spec declares the range -1 to 1" in (run(folder, networks, model, task, "psnr").error or "")


KEPT: list[Result] = []


@pytest.fixture
def result(untrained, folder: Path, networks) -> Result:
    """The result of a plain codebook."""
    what = "psnr,ssim,fd_efficientnet,rate,codebook"
    KEPT[:] = KEPT or [run(folder, networks, untrained("vq"), Perturb(), what, limit=8)]
    return KEPT[0]


@pytest.mark.slow
def test_the_result_is_the_mean_of_all_cells(result: Result) -> None:
    assert result.task == "perturb"
    grid = [f"a{alpha:g}-d{delta}" for alpha in metric_names.ALPHAS for delta in (10, 15, 20)]
    numbers = {"ppsnr", "pssim", "pfid_efficientnet"}
    each = {f"{number}.{cell}" for number in numbers for cell in grid}
    assert {name for name in result.metrics if "." in name} == each
    assert {name for name in result.metrics if "." not in name} - {"pfid_efficientnet_infinity"} == numbers
    for number in numbers:
        entry, own = result.metrics[number], [result.metrics[f"{number}.{cell}"] for cell in grid]
        assert entry["value"] == pytest.approx(np.mean([one["value"] for one in own]), rel=1e-9)
        assert all(one["low"] <= one["value"] <= one["high"] for one in (entry, *own))
        assert entry["high"] - entry["low"] <= max(one["high"] - one["low"] for one in own)
        assert entry["n"] == 8


@pytest.mark.slow
def test_what_stands_beside_the_result(result: Result) -> None:
    assert set(result.per_image) == {"index", "name", "ppsnr", "pssim"}
    assert result.per_image["ppsnr"].mean() == pytest.approx(result.metrics["ppsnr"]["value"])
    assert set(result.replicates) == {"pfid_efficientnet"}
    facts = result.provenance["metrics"]["pfid_efficientnet"]
    assert facts["anchor"] == "latent" and "network" in facts and "extension" not in facts
    assert "tokbench grid" in facts["perturbed"] and "not comparable" in facts["perturbed"]
    assert set(result.skipped) == {"rate", "codebook"}
    assert result.computed == {"psnr", "ssim", "fd_efficientnet"}


@pytest.mark.slow
def test_it_can_be_saved_compared_and_shown(result: Result, tmp_path: Path) -> None:
    path, _ = result.save(tmp_path)
    assert path.name.endswith("-perturb.json")
    again = load(path)
    assert again.to_dict() == result.to_dict()
    gaps = differences(again, result)
    assert {gap.number for gap in gaps} - {"pfid_efficientnet_infinity"} == {"ppsnr", "pssim", "pfid_efficientnet"}
    assert {gap.verdict for gap in gaps} == {"same"}
    text, frame = markdown.markdown([again]), leaderboard.frame([again])
    assert "pFID-EfficientNet ↓" in text and "pPSNR ↑" in text and "a0.9" not in text
    assert {"ppsnr.a0.9-d10", "ppsnr.a0.9-d10_low"} <= set(frame.columns)
    assert "published pFIDs are not comparable" in markdown.legend([again])


def test_numbers_and_their_metrics() -> None:
    for number, metric in {
        "pfid": "rfid", "pfid_768_grouped": "rfid_768", "nfid_infinity": "rfid", "pfid_fsq.a0.9-d10": "rfid",
        "ppsnr_binary": "psnr", "psfid": "sfid", "pkid_768": "kid_768", "nfid_efficientnet.a0.5": "fd_efficientnet",
        "rfid_768": "rfid_768", "psnr": "psnr", "pfid_512": None,
    }.items():  # fmt: skip
        assert metric_of(number) == metric
    titles = {name: columns.column_of(name)[1].title for name in ("pfid", "pfid_768_grouped", "nfid", "ppsnr_fsq")}
    assert list(titles.values()) == ["pFID", "pFID-768 grouped", "nFID", "pPSNR FSQ"]
    assert columns.column_of("pfid_768_binary_infinity")[1].title == "pFID-768 binary ∞"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsq", "bits", "bins", "kl"])
def test_extensions_have_columns_of_their_own(untrained, folder: Path, networks, name: str) -> None:
    made = run(folder, networks, untrained(name), Perturb(), "psnr")
    number = "npsnr" if name == "kl" else f"ppsnr{SUFFIX[name]}"
    assert {key.partition(".")[0] for key in made.metrics} == {number}
    assert len(made.metrics) == 1 + (5 if name in ("kl", "bins") else 15)
    facts = made.provenance["metrics"][number]
    assert facts["extension"] and facts.get("anchor") == (None if name == "kl" else "latent")


@pytest.mark.slow
def test_the_other_anchor_is_another_result(untrained, folder: Path, networks) -> None:
    latent, code = (
        run(folder, networks, untrained("vq"), Perturb(one), "psnr", limit=4) for one in metric_names.ANCHORS
    )
    assert (latent.task, code.task) == ("perturb", "perturb-code")
    assert code.provenance["metrics"]["ppsnr"]["anchor"] == "code"
    assert latent.metrics["ppsnr"]["value"] != code.metrics["ppsnr"]["value"]


class Broken(LearnedTokenizer):
    """Fails after so many images were decoded."""

    left = 10**9

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        self.left -= len(seeds)
        if self.left < 0:
            raise RuntimeError("the device is lost")
        return super().decode(tokens, seeds)


@pytest.mark.slow
def test_an_interrupted_run_goes_on(untrained, folder: Path, networks, tmp_path: Path) -> None:
    def measured(cache: Path | None, left: int) -> tuple[Result, int]:
        torch.manual_seed(0)
        model = Broken("vq", untrained("simvq").model)
        model.left = left
        return run(folder, networks, model, Perturb(), limit=None, batch_size=16, cache=cache), left - model.left

    whole, all_images = measured(None, 10**9)
    error = measured(tmp_path, all_images * 9 // 10)[0].error
    assert error.startswith("failed on the batch that starts with 032.png: RuntimeError: the device is lost at ")
    assert " in Broken.decode (cell a0." in error
    assert len(list(unfinished(tmp_path / "runs"))) == 5
    again, decoded = measured(tmp_path, 10**9)
    assert 0 < decoded < all_images / 2
    assert json.dumps(again.to_dict(), sort_keys=True) == json.dumps(whole.to_dict(), sort_keys=True)
    for name, values in whole.per_image.items():
        np.testing.assert_array_equal(again.per_image[name], values)
    for name, made in whole.replicates.items():
        np.testing.assert_array_equal(again.replicates[name].as_array(), made.as_array())
    again.checkpoint.discard()
    assert not list(unfinished(tmp_path / "runs"))


ADAPTER = """
import torch
from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.quantizers.simvq import SimVQ

def load(variant, device):
    torch.manual_seed(0)
    bottleneck = KL(4) if variant.name == "some.kl" else SimVQ(64, 8)
    return LearnedTokenizer(variant.name, ConvAutoencoder(bottleneck).eval())
"""


@pytest.mark.slow
def test_from_the_command_line_and_back(cli, folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "some"
    place.mkdir()
    (place / "adapter.py").write_text(ADAPTER)
    for name in ("simvq", "kl"):
        (place / f"{name}.toml").write_text('summary = "not trained"\n')
    what = ["--data", folder, "--limit", 8, "--out", tmp_path / "out", "--task", "perturb"]
    both = [place / "simvq.toml", place / "kl.toml"]
    done = cli("eval", *both, "jpeg.q50", *what, "--metrics", "psnr", "--json")
    assert done.exit_code == 1
    assert "failed jpeg.q50 (perturb): a codec has no codes to perturb" in done.stderr
    facts = {one["adapter"]: one for one in json.loads(done.stdout)}
    assert {name: one["task"] for name, one in facts.items()} == dict.fromkeys(facts, "perturb")
    assert "ppsnr" in facts["some.simvq"]["metrics"] and "npsnr" in facts["some.kl"]["metrics"]
    report = check(leaderboard.read_all(tmp_path / "out"), CheckConfig(data=str(folder)))
    assert report.exit_status == 0
    assert {(one.number, one.outcome) for one in report.checks} == {("ppsnr", "same"), ("npsnr", "same")}
    done = cli("eval", *both, *what, "--anchor", "code", "--metrics", "psnr")
    assert "failed some.kl (perturb-code): continuous tokens have no codes" in done.stderr
    assert ", perturb-code: 8 images" in done.stdout
