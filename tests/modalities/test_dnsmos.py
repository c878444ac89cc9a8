"""Predicted listening scores of speech: what the networks get, and which numbers result."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from factories import run_eval

from tokbench.errors import MissingWeights
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.modalities.open import open_dataset
from tokbench.modalities.sound.dnsmos import RATE, Dnsmos
from tokbench.protocol.protocol import TOKBENCH
from tokbench.tokenizers.registry import load_adapter


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The samples that a stand-in for speechmos gets; its scores are those of their loudness."""
    found: list[np.ndarray] = []

    def run(samples: np.ndarray, rate: int) -> dict[str, Any]:
        assert rate == RATE
        found.append(samples)
        loud = float(np.abs(samples).mean())
        return {"ovrl_mos": 1 + loud, "sig_mos": 2 + loud, "bak_mos": 3 + loud, "p808_mos": np.float32(4 + loud)}

    module = ModuleType("speechmos.dnsmos")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "speechmos", ModuleType("speechmos"))
    monkeypatch.setitem(sys.modules, "speechmos.dnsmos", module)
    return found


def pair(rate: float, length: int) -> Batch:
    image = 0.5 + 0.4 * torch.sin(2 * torch.pi * 100 * torch.arange(rate) / rate)[None, None]
    extra = {"lengths": torch.tensor([length]), "rates": torch.tensor([rate], dtype=torch.float64)}
    return Batch(index=torch.tensor([0]), reference=torch.full_like(image, 0.5), image=image, extra=extra)


def test_the_networks_get_the_encoded_part_at_their_rate(heard: list[np.ndarray]) -> None:
    found = Dnsmos().per_sample(pair(8000, 4000))
    original, output = heard
    assert output.shape == original.shape == (8000,)  # half a second
    assert not original.any()
    wanted = 0.8 * np.sin(2 * np.pi * 100 * np.arange(8000) / RATE)
    assert np.abs(output - wanted)[200:-200].max() < 2e-3
    loud = float(np.abs(output).mean())
    assert {name: values.tolist() for name, values in found.items()} == {
        "dnsmos": [1 + loud],
        "dnsmos_original": [1.0],
        "dnsmos_signal": [2 + loud],
        "dnsmos_background": [3 + loud],
        "dnsmos_p808": [pytest.approx(4 + loud)],
    }


def test_samples_at_the_rate_are_passed_on(heard: list[np.ndarray]) -> None:
    batch = pair(16000, 16000)
    Dnsmos().per_sample(batch)
    assert np.array_equal(heard[1], (2 * batch.require("image")[0, 0] - 1).double().numpy())


def test_originals_are_scored_once_for_all_adapters(heard: list[np.ndarray]) -> None:
    one = pair(16000, 16000)
    other = replace(one, image=one.require("image") / 2 + 0.25, image_memo=DerivedCache())
    first, second = (Dnsmos().per_sample(batch) for batch in (one, other))
    assert len(heard) == 3
    assert first["dnsmos_original"] == second["dnsmos_original"] and first["dnsmos"] > second["dnsmos"]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "speechmos.dnsmos", None)
    with pytest.raises(MissingWeights, match=r"speechmos, librosa and onnxruntime .*tokbench\[speech\]"):
        Dnsmos()


def test_the_package_scores_noise_low() -> None:
    pytest.importorskip("speechmos.dnsmos")
    data = open_dataset("tones", TOKBENCH, limit=1)
    (result,) = run_eval([load_adapter("pcm.b8")], data, ("dnsmos",))
    assert result.error is None
    assert 1 <= result["dnsmos"].value <= result["dnsmos_original"].value + 0.5 <= 5
    assert len(result.provenance["metrics"]["dnsmos"]["model_v8.onnx"]) == 64
