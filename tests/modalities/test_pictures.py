"""The pictures of clips, waveforms and voxels on the page."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import torch
from factories import run_eval
from PIL import Image

from tokbench.evaluation.provenance import describe_adapter
from tokbench.modalities.open import open_dataset
from tokbench.modalities.registry import MODALITIES
from tokbench.protocol.protocol import TOKBENCH
from tokbench.report.pictures import Pictures, _add_worst
from tokbench.tokenizers.registry import load_adapter


def test_a_clip_is_a_strip_of_its_frames() -> None:
    clips = torch.rand(2, 16, 3, 4, 5)
    strip = MODALITIES["video"].picture(clips)
    assert strip.shape == (2, 3, 4, 40)
    assert torch.equal(strip[..., :5], clips[:, 0])
    assert torch.equal(strip[..., -5:], clips[:, -1])


def test_a_tone_is_a_bright_line_of_its_frequency() -> None:
    wave = 0.5 + 0.25 * torch.sin(2 * torch.pi * torch.arange(8000) / 8)
    picture = MODALITIES["sound"].picture(wave[None, None])
    assert picture.shape[:3] == (1, 3, 129)
    # A period of 8 samples is bin 32 of 256, counted from the lower edge.
    assert int(picture[0, 0, :, 60].argmax()) == 128 - 32


def test_voxels_are_seen_from_the_front_and_the_left() -> None:
    grid = torch.zeros(1, 4, 4, 4, 4)
    grid[0, :, 1, 0, 3] = torch.tensor([1, 1, 0, 0])  # red, in front at the top
    grid[0, :, 1, 2, 3] = torch.tensor([1, 0, 1, 0])  # green, behind it
    picture = MODALITIES["shape"].picture(grid)[0]
    assert picture.shape == (3, 16, 32)
    cells = picture[:, ::4, ::4]
    assert cells[:, 0, 1].tolist() == [1, 0, 0]
    left = cells[:, 0, 4:]
    assert left[0, 0] > 0 and left[1, 0] == 0
    assert left[1, 2] > 0 and left[0, 2] == 0
    assert (cells[:, 1:] == 1).all()


def test_the_worst_items_of_every_kind_are_shown(tmp_path: Path) -> None:
    found = Pictures()
    metrics = {
        "sprites": ("h264.q40", "frame_psnr"),
        "tones": ("pcm.b4", "si_sdr"),
        "solids": ("octree.c1", "colour_psnr"),
    }
    for data, (name, metric) in metrics.items():
        adapter = load_adapter(name)
        results = run_eval([adapter], open_dataset(data, TOKBENCH, limit=2), (metric,))
        _add_worst(found, adapter, describe_adapter(adapter), results, tmp_path, None)
        ((_, worst),) = found.worst[name].items()
        values = results[0].per_image[metric]
        assert worst[0]["caption"] == f"{np.nanmin(values):.2f}"
        for one in worst:
            assert min(Image.open(tmp_path / one["file"]).size) > 8
            assert Image.open(tmp_path / one["file"]).size == Image.open(tmp_path / one["original"]).size
            shape = Image.open(tmp_path / one["file"]).size
            assert (one["width"], one["height"]) == shape
            assert ("file_sound" in one) == ("original_sound" in one) == (data == "tones")


def test_a_recording_is_played_at_its_rate() -> None:
    item = 0.5 + 0.25 * torch.sin(2 * torch.pi * torch.arange(800) / 8)[None].repeat(2, 1)
    item[1] = 1
    with wave.open(io.BytesIO(MODALITIES["sound"].recording(item, 8000) or b"")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 8000, 800)
        samples = np.frombuffer(file.readframes(800), "<i2").reshape(800, 2)
    assert np.abs(samples[:, 0] / 32767 - (2 * item[0].numpy() - 1)).max() < 1e-4
    assert (samples[:, 1] == 32767).all()
    assert MODALITIES["image"].recording(torch.zeros(3, 8, 8), 8) is None
