"""`tokbench.evaluate` with a results folder: what is finished there is not measured again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

import tokbench
from tokbench.api import evaluate
from tokbench.errors import UsageError
from tokbench.results.result import Result


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """24 smooth random images of 16 px, float32 in [0, 1]."""
    noise = torch.rand(24, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return interpolate(noise, (16, 16), mode="bilinear").clamp(0, 1)


def test_a_results_folder_leaves_only_what_is_missing_to_be_measured(images, tmp_path: Path, monkeypatch) -> None:
    measured: list[tuple[str, ...]] = []
    run = evaluate.run

    def counted(adapters, stream, config, context):
        measured.extend((adapter.name, *config.metrics) for adapter in adapters)
        return run(adapters, stream, config, context)

    monkeypatch.setattr(evaluate, "run", counted)

    def measure(names: list[str], metrics: list[str]) -> list[Result]:
        measured.clear()
        return tokbench.evaluate(names, images, metrics=metrics, out=tmp_path, progress=False)

    (first,) = measure(["jpeg.q50"], ["psnr"])
    assert measured == [("jpeg.q50", "psnr")] and len(list(tmp_path.rglob("*.json"))) == 1
    (again,) = measure(["jpeg.q50"], ["psnr"])
    assert not measured and again["psnr"] == first["psnr"]
    both = measure(["jpeg.q50", "identity"], ["psnr"])
    assert measured == [("identity", "psnr")] and [result.adapter for result in both] == ["jpeg.q50", "identity"]
    (more,) = measure(["jpeg.q50"], ["psnr", "ssim"])
    assert measured == [("jpeg.q50", "ssim")] and more["psnr"] == first["psnr"] and "ssim" in more
    with pytest.raises(UsageError, match="out= is not available"):
        tokbench.evaluate("jpeg.q50", images, task="perturb", out=tmp_path, progress=False)


def test_a_results_folder_keeps_no_result_of_other_outputs(images, tmp_path: Path) -> None:
    """All that an object computes cannot be known from its code and weights, so that its result is measured again."""

    def psnr(scale: float) -> float:
        def scaled(batch: torch.Tensor) -> torch.Tensor:
            return interpolate(avg_pool2d(batch, 4), scale_factor=4) * scale

        result = tokbench.evaluate(scaled, images, metrics=["psnr"], value_range=(0, 1), out=tmp_path, progress=False)
        return result["psnr"].value

    assert psnr(1.0) != psnr(0.5) and psnr(1.0) == psnr(1.0)
