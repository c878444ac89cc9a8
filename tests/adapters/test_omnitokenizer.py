"""omnitokenizer: causality, windows, the start from PCA, the curricula, and the evaluation of clips and images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from factories import evaluate_model
from torch import Tensor

from tokbench.errors import AdapterError, DataError
from tokbench.modalities.open import open_dataset
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.protocol.protocol import TOKBENCH, Video
from tokbench.tokenizers.registry import adapter_files, open_variant
from tokbench.training.data import load_training_data
from tokbench.training.loop import TrainConfig, train
from tokbench.training.zoo import untrained

FIVE = TOKBENCH.with_changes("five", video=Video(frames=5))


def made(name: str, **changes: Any) -> Any:
    """A small untrained model of a variant, without a perceptual loss."""
    variant, module = open_variant(f"omnitokenizer.{name}", adapter_files()[f"omnitokenizer.{name}"])
    variant.config["model"] |= changes
    variant.config["model"]["quantizer"]["codebook_size"] = 16
    variant.config["model"]["shape"] |= {"width": 16}
    model: Any = untrained(variant, module, 0)
    model.perceptual = 0.0
    return model


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load_training_data(open_dataset("sprites-train", FIVE, None, 8))


@pytest.fixture(scope="module")
def clips(data: TrainingData) -> Tensor:
    """Eight clips of 5 frames, (8, 5, 3, 64, 64) in [-1, 1]."""
    return data.values(torch.arange(8), "cpu")


@pytest.fixture(scope="module")
def started(clips: Tensor) -> Any:
    """A model that starts from PCA and whose networks contribute to the latents and the pixels."""
    model = made("joint")
    model.start(TrainingBatch(clips))
    for head in (model.encoder.head, model.decoder.first, model.decoder.later):
        torch.nn.init.xavier_uniform_(head.weight, gain=0.2)
    return model.eval()


def test_a_change_of_later_frames_leaves_earlier_tokens_unchanged(started: Any, clips: Tensor) -> None:
    clip = clips[:1, [0, 1, 2, 3, 4, 0, 1, 2, 3]]
    changed = clip.clone()
    changed[:, 5:] = -changed[:, 5:]
    with torch.no_grad():
        before, after, alone = (started.latents(items) for items in (clip, changed, clip[:, 0]))
    assert before.shape == (1, 3, 8, 8, 8)
    assert torch.allclose(before[:, :2], after[:, :2], atol=1e-5)
    assert not torch.allclose(before[:, 2], after[:, 2], atol=1e-2)
    assert torch.allclose(before[:, 0], alone, atol=1e-5), "an image has the tokens of a first frame"


def test_frames_do_not_depend_on_later_tokens(started: Any) -> None:
    vectors = torch.randn(1, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = vectors.clone()
    changed[:, 2] += 1
    with torch.no_grad():
        before, after = started.pixels(vectors), started.pixels(changed)
    assert before.shape == (1, 9, 3, 64, 64)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-5)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-2)


def test_windowed_attention_stays_inside_its_window(started: Any) -> None:
    block = started.encoder.blocks[1]
    x = torch.randn(1, 2, 8, 8, 16, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 0, 1, 2] *= -3
    with torch.no_grad():
        differs = (block(x) - block(changed)).abs().amax(-1) > 1e-7
    expected = torch.zeros(1, 2, 8, 8, dtype=torch.bool)
    expected[:, 0, :4, :4] = True
    assert torch.equal(differs, expected)


def test_the_start_from_pca_reconstructs_clips_and_images(clips: Tensor) -> None:
    model = made("joint").eval()
    model.start(TrainingBatch(clips))
    with torch.no_grad():
        for items in (clips, clips[:, 0]):
            own = model.reconstruct(TrainingBatch(items))
            assert own.shape == items.shape
            flat = items.flatten(-2).mean(-1)[..., None, None]
            assert (own - items).square().mean() < 0.7 * (flat - items).square().mean()


def test_clips_of_other_lengths_are_continued_and_cut(started: Any, clips: Tensor) -> None:
    with torch.no_grad():
        assert started.reconstruct(TrainingBatch(clips[:1, :3])).shape == (1, 3, 3, 64, 64)
        assert started.filled(clips[:1, :3]).shape[1] == 5
        assert torch.equal(started.filled(clips[:1, :3])[:, 4], clips[:1, 2])


def test_the_curriculum_decides_what_a_step_uses(clips: Tensor) -> None:
    joint = made("joint")
    assert joint.uses_frames(0.29)
    torch.manual_seed(0)
    assert {joint.uses_frames(0.31) for _ in range(20)} == {True, False}
    assert made("image").uses_frames(1.0) and not made("video").uses_frames(0.0)
    frames = joint.some_frames(clips)
    assert frames.shape == (16, 3, 64, 64)
    assert all(any(torch.equal(frame, own) for own in clips[place // 2]) for place, frame in enumerate(frames))


def test_unsuitable_data_and_settings_are_refused(clips: Tensor) -> None:
    with pytest.raises(DataError, match=r"needs clips.*sprites-train"):
        made("video").loss(TrainingBatch(clips[:, 0]), 0.0)
    with pytest.raises(AdapterError, match="give one of image, video, joint"):
        made("joint", curriculum="both")
    with pytest.raises(AdapterError, match="windows of 3 tokens"):
        made("joint", window=3)


@pytest.mark.parametrize("name", ["joint", "image"])
def test_a_trained_model_is_evaluated_on_clips(name: str, data: TrainingData) -> None:
    model = made(name)
    record = train(model, data, TrainConfig(images=8, batch=4, flip=False))
    assert record.steps == 2 and set(record.curve) == {"pixels", "bottleneck"}
    dataset = open_dataset("sprites", FIVE, None, 2)
    result = evaluate_model(LearnedTokenizer(f"omnitokenizer.{name}", model), dataset, ["frame_psnr", "clip_rate"])
    tokens = 128 if name == "joint" else 320
    assert result["tokens_per_clip"].value == tokens
    assert result["bits_per_clip"].value == 4 * tokens
    assert result["frame_psnr"].value > 10


def test_a_model_of_clips_is_evaluated_on_images(started: Any) -> None:
    images = open_dataset("samples", TOKBENCH, 64, 2)
    result = evaluate_model(LearnedTokenizer("omnitokenizer.joint", started), images, ["psnr", "rate"])
    assert result["tokens_per_image"].value == 64 and result["bits_per_image"].value == 256
    assert result["psnr"].value > 5
