"""The evaluation with degraded input: what the tokenizer gets, what it is compared with, and how results are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import run_eval

import tokbench
from tokbench.data.dataset import open_dataset
from tokbench.errors import UsageError
from tokbench.evaluation.tasks import Decode, Perturb
from tokbench.metrics.registry import choose_for
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results import leaderboard
from tokbench.results.result import Result, load
from tokbench.tokenizers.registry import load_adapter

NOISY = TOKBENCH.degraded("noise:20")


def test_the_model_gets_degraded_images_and_is_compared_with_the_clean_ones(tiles: Path, tmp_path: Path) -> None:
    clean, noisy = (open_dataset(str(tiles), rules, limit=8) for rules in (TOKBENCH, NOISY))
    adapters = [load_adapter("identity"), load_adapter("resize.2")]
    plain = run_eval(adapters, clean, ["psnr"])
    found = run_eval(adapters, noisy, ["psnr", "restoration"])
    for result in found:
        assert result.provenance["data"]["sha256"] == plain[0].provenance["data"]["sha256"]  # the clean references
        assert result.provenance["protocol"]["degrade"] == "noise:20"
        assert not result.warnings or all("brighter" not in warning.text for warning in result.warnings)
    identity, resized = found
    assert identity["psnr"].value == identity["input_psnr"].value == pytest.approx(22.5, abs=1)
    assert identity["psnr_gain"].value == 0
    assert resized["psnr_gain"].value == pytest.approx(resized["psnr"].value - resized["input_psnr"].value)
    assert resized["psnr_gain"].value > 0.5  # the mean of four pixels has half the noise
    assert resized["input_psnr"].value == identity["input_psnr"].value

    path, _ = identity.save(tmp_path)
    assert path.name.endswith(".noise-20-reconstruct.json")
    assert load(path).group == identity.group
    assert path.name != plain[0].save(tmp_path)[0].name
    resized.save(tmp_path)
    tables = leaderboard.groups(leaderboard.read_all(tmp_path))
    assert sorted(len(results) for results in tables.values()) == [1, 2]  # no table mixes clean and degraded input
    leaderboard.write(tmp_path)
    shown = (tmp_path / "leaderboard" / f"{identity.group}.md").read_text()
    assert "input degraded by noise:20" in shown and "PSNR gain" in shown
    header = (tmp_path / "leaderboard" / f"{plain[0].group}.csv").read_text().splitlines()[0]
    assert "degrade" not in header


def test_batches_of_any_size_and_every_position_give_the_same_damage(tiles: Path) -> None:
    images = {}
    for size, limit in ((1, 3), (8, 8)):
        for batch in open_dataset(str(tiles), NOISY, limit=limit).batches(size):
            assert not torch.equal(batch.inputs, batch.reference)
            images |= {(size, name): image for name, image in zip(batch.names, batch.inputs, strict=True)}
    assert len([key for key in images if key[0] == 1]) == 3
    assert all(torch.equal(image, images[8, name]) for (size, name), image in images.items() if size == 1)


def test_other_tasks_decode_tokens_of_the_degraded_images(tiles: Path) -> None:
    noisy = open_dataset(str(tiles), NOISY, limit=4)
    adapter = load_adapter("toy.p8")
    assert isinstance(run_eval([adapter], noisy, ["psnr"], task=Perturb())[0], Result)
    first, *_ = run_eval([adapter], noisy, ["restoration"], task=Decode.of(["bf16"]))
    (whole,) = run_eval([adapter], noisy, ["restoration"])
    assert first["psnr_gain"].value == pytest.approx(whole["psnr_gain"].value, abs=1e-6)


def test_images_that_exist_already_are_refused(tiles: Path) -> None:
    (result,) = run_eval([load_adapter(f"images:{tiles}")], open_dataset(str(tiles), NOISY, limit=4), ["psnr"])
    assert result.error and "leave out --degrade" in result.error


def test_the_metric_exists_with_degraded_input_only() -> None:
    assert "restoration" in choose_for("reconstruct", None, NOISY)
    assert "restoration" not in choose_for("reconstruct", None)
    assert "restoration" not in choose_for("reconstruct", "all")
    with pytest.raises(UsageError, match="only for degraded input; give --degrade"):
        choose_for("reconstruct", "restoration")
    with pytest.raises(UsageError, match="a generator gets none"):
        choose_for("generate", None, NOISY)


def test_the_command_and_the_function_have_the_option(cli, tiles: Path, tmp_path: Path) -> None:
    asked = (
        "eval",
        "identity",
        "--data",
        tiles,
        "--limit",
        4,
        "--metrics",
        "psnr,restoration",
        "--out",
        tmp_path,
        "--json",
    )
    done = cli(*asked, "--degrade", "jpeg:10")
    assert done.exit_code == 0, done.output
    (facts,) = json.loads(done.stdout)
    images = torch.from_numpy(np.stack([np.asarray(image) for image in _opened(tiles, 4)])).permute(0, 3, 1, 2)
    result = tokbench.evaluate(
        lambda x: x, images, metrics=["psnr"], degrade="jpeg:10", value_range=(0, 1), progress=False, cache=False
    )
    assert result["psnr"].value == pytest.approx(facts["metrics"]["psnr"]["value"], abs=1e-6)
    failed = cli(*asked, "--degrade", "jpeg")
    assert failed.exit_code == 2 and "there are: rain:LEVEL" in failed.stderr


def _opened(folder: Path, count: int):
    from PIL import Image

    return [Image.open(path) for path in sorted(folder.glob("*.png"))[:count]]
