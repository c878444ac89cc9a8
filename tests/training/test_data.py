"""Reading training data: order, unreadable items, and the memory that it takes."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokbench.data.dataset import open_dataset as open_images
from tokbench.errors import DataError
from tokbench.modalities.open import open_dataset
from tokbench.nn.trainable import TrainingData
from tokbench.protocol.protocol import TOKBENCH
from tokbench.training.data import load_training_data


def test_unreadable_images_are_left_out_and_the_others_keep_their_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, level in (("b/1", 10), ("a/2", 20), ("c/3", 30), ("a/1", 40)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (level, 0, 0)).save(tmp_path / f"{name}.png")
    (tmp_path / "b" / "0.png").write_bytes(b"no image")
    data = load_training_data(open_images(str(tmp_path), TOKBENCH, 8))
    assert data.pixels[:, 0, 0, 0].tolist() == [40, 20, 10, 30]
    assert "b/0.png" in caplog.text


def test_clips_have_their_own_masks_and_labels() -> None:
    dataset = open_dataset("sprites", TOKBENCH, limit=3)
    data = load_training_data(dataset)
    assert data.masks is not None
    assert data.labels is not None
    for position in range(3):
        drawn = dataset.source.clip(position, 16, 1)  # type: ignore[attr-defined]
        assert np.array_equal(data.pixels[position].permute(0, 2, 3, 1), drawn.frames)
        assert np.array_equal(data.masks[position], drawn.masks)
        assert data.labels[position] == dataset.source.labels()[dataset.names[position]]  # type: ignore[index]


def test_nothing_readable_names_the_kind_of_data(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    (tmp_path / "b.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match="no recording could be read"):
        load_training_data(open_dataset(str(tmp_path), TOKBENCH, 8000))


def test_the_digest_is_that_of_the_bytes_and_needs_no_copy() -> None:
    pixels = torch.arange(3 * 512 * 512 * 4, dtype=torch.int32).to(torch.uint8).view(4, 3, 512, 512)
    labels = torch.arange(4)
    expected = hashlib.sha256(pixels.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    tracemalloc.start()
    assert TrainingData(pixels, labels).sha256 == expected
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < pixels.numel() / 4
