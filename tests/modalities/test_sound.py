"""Waveforms: their readers, distances against definitions and libraries, and the codec rows."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from factories import evaluate_model, loaded, run_eval
from media_files import audio_bytes, media_batch, wave

from tokbench.errors import UsageError
from tokbench.metrics.batch import Batch
from tokbench.modalities.open import modality_of, open_dataset
from tokbench.modalities.registry import MODALITIES
from tokbench.modalities.sound import tones
from tokbench.modalities.sound.rate import SoundRate
from tokbench.modalities.sound.spectra import LogMel, MultiResolutionStft, SiSdr, mel_bank
from tokbench.protocol.protocol import TOKBENCH, Sound
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.registry import load_adapter
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

HALF = TOKBENCH.with_changes("half", sound=Sound(seconds=0.5))
RATE = 8000


def pair(reference: np.ndarray, image: np.ndarray, length: int | None = None) -> Batch:
    """One recording (N,) in [-1, 1] and its output, stored as the loop stores them."""
    stored = [torch.from_numpy((x + 1) / 2)[None, None] for x in (reference, image)]
    return media_batch(*stored, rates=[float(RATE)], lengths=[len(reference) if length is None else length])


def noise(seed: int, count: int = 4000) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(count)).clip(-1, 1)


class Blocks(Tokenizer):
    """A tokenizer of waveforms: the mean of every 16 samples, which is causal within a block."""

    spec = TokenizerSpec(
        "blocks", "continuous", range=(-1.0, 1.0), multiple=16, downsample=16, bits_per_token=16, modalities=("sound",)
    )

    def encode(self, images):
        return Tokens.from_latents(images.unflatten(-1, (-1, 16)).mean(-1), images.shape[-1] // 16)

    def decode(self, tokens, seeds):
        return tokens.tensor.float().repeat_interleave(16, -1)


def test_a_folder_of_recordings_is_padded_and_resampled(tmp_path: Path) -> None:
    levels = np.round(wave(0.25) * 32767).astype(np.int16)
    (tmp_path / "a.wav").write_bytes(audio_bytes(levels))
    (tmp_path / "b.flac").write_bytes(audio_bytes(np.stack([levels, levels], 1), kind="FLAC"))
    (tmp_path / "c.wav").write_bytes(audio_bytes(wave(1.0, 16000), 16000))
    (tmp_path / "d.wav").write_bytes(b"RIFF")
    (tmp_path / "e.wav").write_bytes(audio_bytes(levels[:0]))
    assert modality_of(str(tmp_path)) == "sound"
    data = open_dataset(str(tmp_path), HALF)
    (batch,) = data.batches(8)
    assert batch.names == ["a.wav", "b.flac", "c.wav"]
    assert batch.reference.shape == (3, 1, 4000)
    assert batch.extra["lengths"].tolist() == [2000, 2000, 4000]
    samples = 2 * batch.reference.numpy() - 1
    assert np.array_equal(samples[0, 0, :2000] * 32768, levels)
    assert np.array_equal(samples[0], samples[1])
    assert not samples[0, 0, 2000:].any()
    assert np.abs(samples[2, 0, 100:-100] - wave(0.5)[100:-100]).max() < 2e-3
    reasons = dict(data.unreadable)
    assert "cannot be decoded as audio" in reasons["d.wav"]
    assert "has no samples" in reasons["e.wav"]


def test_sixteen_bits_are_kept_exactly(tmp_path: Path) -> None:
    levels = np.arange(-32768, 32768, 16, dtype=np.int16)[:4000]
    (tmp_path / "a.wav").write_bytes(audio_bytes(levels))
    (batch,) = open_dataset(str(tmp_path), HALF).batches(1)
    assert np.array_equal((2 * batch.reference[0, 0].numpy() - 1) * 32768, levels)


def test_labels_follow_from_the_column_that_the_dataset_names(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "spoken-digits"
    folder.mkdir()
    files = [audio_bytes(wave(0.1, pitch=200 + 50 * i), kind="FLAC") for i in range(300)]
    columns = {"flac": files, "digit": [i % 10 for i in range(300)], "speaker": [f"s{i % 6}" for i in range(300)]}
    pq.write_table(pa.table(columns | {"split": ["test"] * 300}), folder / "digits.parquet")
    monkeypatch.setenv("TOKBENCH_DATA", str(tmp_path))
    for name, classes in (("spoken-digits", 10), ("spoken-digits-speakers", 6)):
        data = open_dataset(name, HALF)
        data.with_labels = True
        (batch, *_) = data.batches(32)
        assert batch.labels.tolist() == [i % classes for i in range(32)]
        assert data.labels_sha256 is not None


@pytest.mark.slow
def test_si_sdr_is_that_of_torchmetrics() -> None:
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

    reference, image = noise(0), 0.5 * noise(0) + 0.1 * noise(1)
    expected = float(
        scale_invariant_signal_distortion_ratio(torch.from_numpy(image), torch.from_numpy(reference), zero_mean=True)
    )
    found = SiSdr().per_sample(pair(reference, image))["si_sdr"]
    assert found == pytest.approx([expected], abs=1e-6)
    louder = SiSdr().per_sample(pair(reference / 2, image))["si_sdr"]
    assert louder == pytest.approx(found, abs=1e-6)


def test_padding_is_left_out_and_exact_or_silent_recordings_have_no_si_sdr() -> None:
    reference, image = noise(0), 0.5 * noise(0) + 0.1 * noise(1)
    padded = [np.concatenate([x, np.full(500, y)]) for x, y in ((reference, 0.0), (image, 0.9))]
    for metric, name in ((SiSdr(), "si_sdr"), (LogMel(), "log_mel"), (MultiResolutionStft(), "mr_stft")):
        expected = metric.per_sample(pair(reference, image))[name]
        assert metric.per_sample(pair(*padded, length=4000))[name] == pytest.approx(expected)
    assert math.isnan(SiSdr().per_sample(pair(reference, reference))["si_sdr"][0])
    assert math.isnan(SiSdr().per_sample(pair(0 * reference, image))["si_sdr"][0])


def test_spectral_distances_of_a_quieter_copy_are_logarithms_of_the_gain() -> None:
    reference = noise(3)
    assert LogMel().per_sample(pair(reference, reference))["log_mel"] == [0]
    quiet = pair(reference, reference / 2)
    assert LogMel().per_sample(quiet)["log_mel"] == pytest.approx([math.log(2)], abs=1e-3)
    # Spectral convergence of a copy of half the level is 1/2.
    assert MultiResolutionStft().per_sample(quiet)["mr_stft"] == pytest.approx([0.5 + math.log(2)], abs=2e-2)


def test_the_mel_bank_is_that_of_torchaudio_s_definition() -> None:
    bank = mel_bank(256, 8000.0)
    assert bank.shape == (80, 129)
    assert bank.min() == 0
    assert (bank.argmax(1)[10:] - bank.argmax(1)[9:-1] >= 0).all()
    wide = mel_bank(1 << 14, 8000.0)  # on a fine grid, every triangle has the area 1 over Hz
    assert wide.sum(1) * 8000 / (1 << 14) == pytest.approx(np.ones(80), rel=2e-2)


def test_rates_count_the_encoded_time() -> None:
    tokens = Tokens.from_bytes([b"x" * 500])
    found = SoundRate().per_sample(replace(pair(noise(0), noise(1), 100), tokens=tokens))
    assert found["sound_kbps"] == pytest.approx([4000 / 0.5 / 1000])


def test_a_tokenizer_of_waveforms_is_measured() -> None:
    data = open_dataset("tones", HALF, limit=4)
    names = ("sound_rate", "si_sdr", "streamable", "speed")
    (result,) = run_eval([loaded(Blocks())], data, names)
    assert result.error is None
    assert result["sound_tokens_per_second"].value == RATE / 16
    assert result["sound_kbps"].value == pytest.approx(RATE / 16 * 16 / 1000)
    assert result["streamable"].value == 1
    assert result["lookahead_ms"].value <= 15 / 8
    assert result.group == "tones.8000hz-4000.n4@half-reconstruct"

    class Backwards(Blocks):
        """It needs the whole recording: the output is reversed twice by way of its tokens."""

        def encode(self, images):
            return super().encode(images + images.mean(-1, keepdim=True) * 0.5)

    (late,) = run_eval([loaded(Backwards())], data, ("streamable",))
    assert late["streamable"].value == 0
    assert late["lookahead_ms"].value == pytest.approx(250)


def test_pcm_rounds_to_levels() -> None:
    data = open_dataset("tones", HALF, limit=2)
    results = run_eval([load_adapter("pcm.b8"), load_adapter("pcm.b16")], data, ("si_sdr", "sound_rate", "log_mel"))
    assert [result["sound_kbps"].value for result in results] == [64, 128]
    assert results[1]["log_mel"].value == 0
    assert 20 < results[0]["si_sdr"].value < 60


@pytest.mark.parametrize(("name", "least"), [("opus.k32", 12), ("mp3.k32", 15)])
def test_codecs_are_aligned_and_keep_their_bitrate(name: str, least: float) -> None:
    data = open_dataset("tones", TOKBENCH, limit=3)
    (result,) = run_eval([load_adapter(name)], data, ("si_sdr", "sound_rate"))
    assert result.error is None
    assert result["si_sdr"].value > least
    assert 31 < result["sound_kbps"].value < 40


def test_rates_without_an_encoder_and_malformed_names_are_refused() -> None:
    result = evaluate_model(load_adapter("opus.k8").model, open_dataset("tones", HALF, 11025, limit=1), ("si_sdr",))
    assert "it encodes 8000, 12000, 16000, 24000, 48000 Hz, not 11025 Hz" in result.error
    for name in ("opus.k0", "pcm.b1", "mp3.x"):
        with pytest.raises(UsageError):
            load_adapter(name)


def test_waveforms_are_padded_with_silence() -> None:
    plan = MODALITIES["sound"].plan(Blocks.spec, (1, 4001))
    waves = torch.rand(2, 1, 4001)
    pieces = plan.cut(waves)
    assert pieces.shape == (2, 1, 4016)
    assert (pieces[..., 4001:] == 0.5).all()
    assert torch.equal(plan.join(pieces), waves)


def test_tones_never_change_and_have_all_classes() -> None:
    """Results name these data, so the same name must always mean the same samples."""
    digest = hashlib.sha256()
    kinds = set()
    for position in range(16):
        tone = tones.make_tone("test", position)
        kinds.add(tone.kind)
        samples = tones.render(tone)
        assert np.abs(samples).max() <= 0.81
        digest.update(samples.tobytes())
    assert digest.hexdigest()[:16] == TONES
    assert len(kinds) >= 4


TONES = "0e07c60ca30ed297"
