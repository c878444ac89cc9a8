"""drsformer: its network and its training data, and restoration in front of other adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import loaded, run_eval

from tokbench.data.dataset import open_dataset
from tokbench.errors import AdapterError, UsageError
from tokbench.evaluation.restore import Restorer
from tokbench.nn.trainable import TrainingBatch
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results import leaderboard
from tokbench.results.result import load
from tokbench.tokenizers.registry import adapter_files, load_adapter, open_variant


def made(name: str = "d24", **changes: Any) -> tuple[Any, Any]:
    """The untrained network of a variant, smaller, and the code of the folder."""
    variant, module = open_variant(f"drsformer.{name}", adapter_files()[f"drsformer.{name}"])
    variant.config["model"] |= {"width": 8, "blocks": [1, 1, 1]} | changes
    torch.manual_seed(0)
    return module.model(variant), module


def test_the_untrained_network_returns_its_input_and_a_step_changes_every_part() -> None:
    model, _ = made()
    images = torch.rand(2, 3, 16, 24)
    assert torch.equal(model(images), images)
    torch.nn.init.normal_(model.out.weight)
    loss = model.loss(TrainingBatch(images * 2 - 1), 0.0)["l1"]
    loss.backward()
    assert float(loss.detach()) > 0
    assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.numel() > 1)
    with torch.no_grad():
        together = model(images)
        torch.testing.assert_close(together, torch.cat([model(one[None]) for one in images]), atol=1e-5, rtol=1e-4)


def test_training_images_get_each_of_the_degradations() -> None:
    model, _ = made(degradations=["rain:1", "jpeg:5"])
    grey = torch.full((32, 3, 16, 16), 0.4)
    damaged = model.degraded(grey)
    brighter = (damaged > 0.45).flatten(1).any(1)
    assert damaged.shape == grey.shape and 4 < int(brighter.sum()) < 28  # rain adds light, JPEG keeps a grey image
    with pytest.raises(UsageError, match="no degradation 'snow:1'"):
        made(degradations=["snow:1"])


def test_the_ablations_differ_in_the_shares_only() -> None:
    configs = [open_variant(f"drsformer.{name}", adapter_files()[f"drsformer.{name}"])[0].config["model"]
               for name in ("d24", "d24_dense", "d24_half")]  # fmt: skip
    assert [config.pop("shares") for config in configs] == [[0.5, 0.6667, 0.75, 0.8], [1.0], [0.5]]
    assert configs[0] == configs[1] == configs[2]


class TestInFrontOfOthers:
    def test_others_get_the_restored_images(self, tiles: Path, tmp_path: Path) -> None:
        model, module = made()
        torch.nn.init.constant_(model.out.bias, 0.1)  # it makes every image brighter
        adapter = loaded(module.Restoration("drsformer.tiny", model))
        noisy = open_dataset(str(tiles), TOKBENCH.degraded("noise:20"), limit=4)
        others = [load_adapter("identity")]
        (alone,) = run_eval([adapter], noisy, ["psnr", "restoration"])
        (plain,) = run_eval(others, noisy, ["psnr", "restoration"])
        (behind,) = run_eval(others, noisy, ["psnr", "restoration"], restorer=Restorer(adapter))
        assert alone["psnr"].value == pytest.approx(behind["psnr"].value)
        assert alone["psnr_gain"].value < -1 and behind["psnr_gain"].value == 0
        assert behind["input_psnr"].value == pytest.approx(alone["psnr"].value)
        assert behind.provenance["restore"]["name"] == "drsformer.tiny"
        assert behind.provenance["restore"]["parameters_sha256"] == alone.provenance["adapter"]["parameters_sha256"]

        path, _ = behind.save(tmp_path)
        assert ".noise-20.restored-drsformer.tiny-reconstruct" in path.name
        assert load(path).group == behind.group != plain.group
        plain.save(tmp_path)
        assert len(leaderboard.groups(leaderboard.read_all(tmp_path))) == 2
        torch.nn.init.constant_(model.out.bias, 0.2)
        (changed,) = run_eval(others, noisy, ["psnr"], restorer=Restorer(adapter))
        assert "restorer's parameters_sha256" in changed.differs_from(load(path))

    def test_it_needs_degraded_images_and_a_network(self, cli, tiles: Path, tmp_path: Path) -> None:
        failed = cli("eval", "identity", "--data", tiles, "--restore", "identity", "--out", tmp_path)
        assert failed.exit_code == 2 and "--restore requires --degrade" in failed.stderr
        with pytest.raises(AdapterError, match="exist already"):
            Restorer(load_adapter(f"images:{tiles}"))
