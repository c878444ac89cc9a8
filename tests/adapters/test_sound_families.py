"""Families that are trained on recordings: their rows, and a training of a few steps."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from factories import run_eval

from tokbench.analysis.ablations import ablations
from tokbench.errors import AdapterError
from tokbench.modalities.open import open_dataset
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingData
from tokbench.protocol.protocol import TOKBENCH, Sound
from tokbench.tokenizers.registry import adapter_files, load_adapter, open_variant
from tokbench.training.data import load_training_data
from tokbench.training.zoo import TrainOptions, train_adapter, untrained

FILES = {name: toml for name, toml in adapter_files(ROOT).items() if name.startswith("dates_audio.")}
TRAINED = [name for name, toml in FILES.items() if "training" in open_variant(name, toml)[0].config]
SHORT = TOKBENCH.with_changes("short", sound=Sound(seconds=0.25))


@pytest.fixture(scope="module")
def recordings() -> TrainingData:
    return load_training_data(open_dataset("tones-train", SHORT, None, 16))


@pytest.mark.parametrize("name", TRAINED)
def test_rows_have_one_bitrate_and_few_parameters(name: str):
    variant, module = open_variant(name, FILES[name])
    model = untrained(variant, module, 0)
    spec = LearnedTokenizer(name, model).spec
    assert (spec.bits_per_token, spec.groups, spec.downsample) == (64, 8, 80)  # 6.4 kbit/s at 8 kHz
    assert spec.causal is (name != "dates_audio.rvq8_noncausal")
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_200_000


def test_every_ablation_is_of_a_row_that_exists():
    for ablation in ablations(FILES):
        assert {ablation.of, ablation.ablated} <= FILES.keys()
        assert all(open_variant(name, FILES[name])[0].config["taxonomy"] for name in (ablation.of, ablation.ablated))


def test_recordings_are_read_as_samples(recordings: TrainingData):
    assert recordings.pixels.shape == (16, 1, 2000)
    assert recordings.pixels.dtype == torch.float32
    assert not recordings.has_images
    values = recordings.values(torch.arange(16), "cpu")
    assert float(values.abs().max()) > 0.2
    assert torch.equal((values * 32768).round(), values * 32768)  # 16 bits, exactly


def test_a_codec_is_trained_and_decodes_from_its_first_codes(recordings: TrainingData, tmp_path: Path):
    folder = tmp_path / "adapters" / "dates_audio"
    shutil.copytree(ROOT / "adapters" / "dates_audio", folder, ignore=shutil.ignore_patterns("*.safetensors", "*.json"))
    shrink = (folder / "rvq8.toml").read_text().replace("codebook_size = 256", "codebook_size = 16")
    (folder / "rvq8.toml").write_text(shrink)
    options = TrainOptions("tones, 16 recordings", changes={"images": 32, "batch": 16})
    path, record = train_adapter("dates_audio.rvq8", folder / "rvq8.toml", recordings, options)
    assert path == folder / "rvq8.safetensors"
    assert record.steps == 2
    assert set(record.curve) == {"waveform", "spectral", "bottleneck"}
    batch = recordings.values(torch.arange(16), "cpu")
    errors = []
    for codes in (1, 2, 4, 8):
        model = load_adapter(f"dates_audio.rvq{codes}", root=tmp_path).model
        assert isinstance(model, LearnedTokenizer)
        with torch.inference_mode():
            tokens = model.encode(batch)
            errors.append(float((model.decode(tokens, [0] * 16) - batch).square().mean()))
        assert tokens.bits.tolist() == [25 * codes * 4.0] * 16
    assert errors[3] < errors[1] < errors[0] < float(batch.square().mean())

    dataset = open_dataset("tones", SHORT, None, 4)
    adapter = load_adapter("dates_audio.rvq2", root=tmp_path)
    (result,) = run_eval([adapter], dataset, ("sound_rate", "si_sdr", "streamable"))
    assert result.metrics["sound_kbps"]["value"] == 0.8
    assert result.metrics["sound_tokens_per_second"]["value"] == 100
    assert result.metrics["lookahead_ms"]["value"] < 10
    stated = {"quantizer": "RVQ", "codebooks": "2", "causal": "yes", "training": "joint", "domain": "synthetic sound"}
    assert result.provenance["adapter"]["taxonomy"] == stated


def test_recordings_are_never_mirrored(recordings: TrainingData, tmp_path: Path):
    options = TrainOptions("tones", changes={"images": 32, "batch": 16, "flip": True})
    with pytest.raises(AdapterError, match="only images can be mirrored"):
        train_adapter("dates_audio.fsq8", FILES["dates_audio.fsq8"], recordings, replace(options, out=tmp_path))
