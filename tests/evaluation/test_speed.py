"""Nothing runs beside encode and decode, since their time and memory are measured."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import loaded, run_eval
from PIL import Image
from torch import Tensor

from tokbench.data.dataset import Dataset, open_dataset
from tokbench.data.loader import ImageLoader, PreparedImage
from tokbench.data.stream import CHUNK
from tokbench.metrics.psnr import PSNR
from tokbench.protocol.protocol import TOKBENCH
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens


class Decoding:
    """How many images are being decoded."""

    def __init__(self) -> None:
        self.now, self._lock = 0, threading.Lock()

    def add(self, change: int) -> None:
        with self._lock:
            self.now += change


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Decoding:
    found, prepared = Decoding(), Dataset.prepared

    def counted(dataset: Dataset, position: int) -> PreparedImage:
        found.add(1)
        try:
            return prepared(dataset, position)
        finally:
            found.add(-1)

    monkeypatch.setattr(Dataset, "prepared", counted)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than two units of JPEG files that take long to decode: links to a few of 1,500 x 1,000 px."""
    folder = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    for i in range(3):
        noise = Image.fromarray(rng.integers(0, 255, (250, 375, 3), dtype=np.uint8))
        noise.resize((1500, 1000)).save(folder / f"{i:03d}.jpg", quality=92)
    for i in range(3, 2 * CHUNK + 5):
        (folder / f"{i:03d}.jpg").hardlink_to(folder / f"{i % 3:03d}.jpg")
    return folder


class Watching(Tokenizer):
    """Averages of 8 x 8 blocks; looks while it works whether images are being decoded."""

    def __init__(self, name: str, decoding: Decoding) -> None:
        self.spec = TokenizerSpec(name, "continuous", multiple=8, downsample=8, bits_per_token=48)
        self.decoding, self.seen = decoding, []

    def _look(self) -> None:
        for _ in range(4):
            time.sleep(0.005)
            self.seen.append(self.decoding.now)

    def encode(self, images: Tensor) -> Tokens:
        self._look()
        latents = torch.nn.functional.avg_pool2d(images, 8)
        return Tokens.from_latents(latents, tokens=latents.shape[2] * latents.shape[3])

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        self._look()
        return torch.nn.functional.interpolate(tokens.tensor.float(), scale_factor=8)


@pytest.mark.slow
def test_no_image_is_decoded_while_any_adapter_works(
    folder: Path, decoding: Decoding, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not beside the first one, and not beside those that come after it in the same command, also where a cache is
    kept. Beside the last one's metrics they are."""
    beside: list[int] = []
    measure = PSNR.per_sample

    def slow(metric: PSNR, batch: object) -> dict[str, np.ndarray]:
        time.sleep(0.02)
        beside.append(decoding.now)
        return measure(metric, batch)

    monkeypatch.setattr(PSNR, "per_sample", slow)
    models = [Watching(name, decoding) for name in ("first", "second", "third")]
    dataset = open_dataset(str(folder), TOKBENCH, size=64)
    results = run_eval([loaded(model) for model in models], dataset, ["psnr", "speed"], cache=tmp_path)
    assert [result.error for result in results] == [None] * 3
    assert {model.spec.name: max(model.seen) for model in models} == {"first": 0, "second": 0, "third": 0}
    assert len(beside) == 3 * 3  # three adapters, three batches
    assert all(beside[at] == 0 for at in (0, 1, 3, 4, 6, 7, 8)), "decoding begins after the last adapter's turn"
    assert beside[2] > 0
    assert beside[5] > 0


@pytest.mark.slow
def test_an_adapter_that_resumes_last_lets_decoding_begin(
    folder: Path, decoding: Decoding, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The resumed adapter has nothing left to time, and the one before it is finished."""
    begun: list[str] = []
    ahead = ImageLoader.prefetch

    def noted(reader: ImageLoader) -> None:
        begun.append(threading.current_thread().name)
        ahead(reader)

    monkeypatch.setattr(ImageLoader, "prefetch", noted)
    models = [Watching(name, decoding) for name in ("first", "second")]
    adapters = [loaded(model) for model in models]
    dataset = open_dataset(str(folder), TOKBENCH, size=64)
    (kept,) = run_eval(adapters[1:], dataset, ["psnr", "speed"], cache=tmp_path)
    begun.clear()
    results = run_eval(adapters, open_dataset(str(folder), TOKBENCH, size=64), ["psnr", "speed"], cache=tmp_path)
    assert [result.error for result in results] == [None] * 2
    assert results[1].metrics["psnr"] == kept.metrics["psnr"]
    assert len(begun) == 3 + 3  # before each batch, and in each batch's last turn
    assert max(models[0].seen) == 0
