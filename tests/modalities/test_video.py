"""Clips: their readers, frame-wise metrics, motion metrics and the H.264 rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import evaluate_model, loaded, run_eval
from media_files import media_batch, moving_square, write_clips, write_video

from tokbench.errors import DataError, UsageError
from tokbench.evaluation.config import Context
from tokbench.extractors.i3d import MIN_FRAMES
from tokbench.extractors.pool import ExtractorPool
from tokbench.metrics.frechet import distance_of_sets
from tokbench.metrics.psnr import PSNR
from tokbench.metrics.ssim import SSIM
from tokbench.modalities.open import modality_of, open_dataset
from tokbench.modalities.registry import MODALITIES
from tokbench.modalities.video import sprites
from tokbench.modalities.video.frames import ClipPSNR, FrameFrechet, FramePSNR, FrameSSIM, frames_of
from tokbench.modalities.video.motion import Flicker, WarpError, warp
from tokbench.modalities.video.rate import ClipRate
from tokbench.protocol.protocol import TOKBENCH, Video
from tokbench.results.result import load as load_result
from tokbench.stats.split_half import SplitHalves
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.registry import load_adapter
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

SHORT = TOKBENCH.with_changes("short", video=Video(frames=4))


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    """Three clips of four frames, float32 (3, 4, 3, 32, 32)."""
    return torch.from_numpy(np.stack([moving_square(4)] * 3)).permute(0, 1, 4, 2, 3).float() / 255


def noisy(clips: torch.Tensor, seed: int = 0) -> torch.Tensor:
    noise = 0.05 * torch.randn(clips.shape, generator=torch.Generator().manual_seed(seed))
    return ((clips + noise).clamp(0, 1) * 255).round() / 255


class Halves(Tokenizer):
    """A tokenizer of clips: pairs of frames become their mean, one token per 8 x 8 block and pair."""

    spec = TokenizerSpec(
        "halves", "continuous", multiple=8, downsample=8, temporal=2, bits_per_token=16 * 3 * 64, modalities=("video",)
    )

    def encode(self, images):
        pairs = images.unflatten(1, (-1, 2)).mean(2)
        blocks = pairs.unfold(3, 8, 8).unfold(4, 8, 8)  # (B, T/2, 3, h, w, 8, 8)
        tokens = blocks.shape[1] * blocks.shape[3] * blocks.shape[4]
        return Tokens.from_latents(blocks, tokens)

    def decode(self, tokens, seeds):
        blocks = tokens.tensor.float()
        pairs = blocks.permute(0, 1, 2, 3, 5, 4, 6).flatten(3, 4).flatten(4, 5)
        return pairs.repeat_interleave(2, 1)


def test_a_folder_of_videos_is_read_frame_by_frame(tmp_path: Path) -> None:
    clip = moving_square(6)
    for name in ("b.mp4", "a.mkv"):
        write_video(tmp_path / name, clip)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    write_video(tmp_path / "short.mp4", clip[:2])
    assert modality_of(str(tmp_path)) == "video"
    data = open_dataset(str(tmp_path), SHORT)
    (batch,) = data.batches(8)
    assert batch.names == ["a.mkv", "b.mp4"]
    assert batch.reference.shape == (2, 4, 3, 32, 32)
    assert batch.extra["rates"].tolist() == [10.0, 10.0]
    assert (batch.reference[0].permute(0, 2, 3, 1) * 255 - torch.from_numpy(clip[:4])).abs().mean() < 4
    reasons = dict(data.unreadable)
    assert "cannot be decoded as a video" in reasons["broken.mp4"]
    assert "has 2 frames, but a clip needs 4" in reasons["short.mp4"]
    strided = open_dataset(str(tmp_path), TOKBENCH.with_changes("strided", video=Video(frames=3, stride=2)), limit=1)
    (other,) = strided.batches(8)
    assert torch.equal(other.reference[0, :2], batch.reference[0, ::2])
    assert other.extra["rates"].tolist() == [5.0]


def test_rows_of_a_parquet_file_are_clips(tmp_path: Path) -> None:
    clip = moving_square(4)
    write_clips(tmp_path / "clips.parquet", [clip, clip[::-1], clip[:2]], ["train", "val", "val"])
    data = open_dataset(str(tmp_path / "clips.parquet"), SHORT)
    (batch,) = data.batches(8)
    assert np.array_equal(batch.levels[0].permute(0, 2, 3, 1).numpy(), clip)
    assert len(data.unreadable) == 1
    pq_val = open_dataset(str(tmp_path / "clips.parquet"), SHORT, reading=_split("val"))
    assert len(pq_val) == 2
    with pytest.raises(UsageError, match="no rows with split = 'test'"):
        open_dataset(str(tmp_path / "clips.parquet"), SHORT, reading=_split("test"))


def _split(name: str):
    from tokbench.data.reading import ReadOptions

    return ReadOptions(split=name)


def test_folders_of_several_kinds_are_refused_and_images_come_first(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(DataError, match="files of several kinds"):
        modality_of(str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"")
    assert modality_of(str(tmp_path)) == "image"


def test_frame_metrics_are_those_of_images_averaged_over_clips(clips: torch.Tensor) -> None:
    batch = media_batch(clips, noisy(clips))
    frames = frames_of(batch)
    psnr = PSNR().per_sample(frames)["psnr"].reshape(3, 4)
    assert FramePSNR().per_sample(batch)["frame_psnr"] == pytest.approx(psnr.mean(1))
    ssim = SSIM().per_sample(frames)["ssim"].reshape(3, 4)
    assert FrameSSIM().per_sample(batch)["frame_ssim"] == pytest.approx(ssim.mean(1))
    mse = 255**2 * (batch.image - clips).double().square().flatten(1).mean(1).numpy()
    assert ClipPSNR().per_sample(batch)["clip_psnr"] == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-4)


def test_exact_frames_have_no_psnr(clips: torch.Tensor) -> None:
    image = clips.clone()
    image[0, 1] = noisy(clips)[0, 1]
    values = FramePSNR().per_sample(media_batch(clips, image))["frame_psnr"]
    assert np.isnan(values[1:]).all()
    expected = PSNR().per_sample(media_batch(clips[0, 1:2], image[0, 1:2]))["psnr"]
    assert values[0] == pytest.approx(float(expected[0]))


def test_flicker_ignores_constant_errors(clips: torch.Tensor) -> None:
    dark = (clips * 255 - 10).clamp(min=0) / 255  # no value is below 10
    assert Flicker().per_sample(media_batch(clips, dark))["flicker"] == pytest.approx([0, 0, 0], abs=1e-4)
    flashing = clips.clone()
    flashing[:, 1::2] = (clips[:, 1::2] * 255 - 10) / 255
    assert Flicker().per_sample(media_batch(clips, flashing))["flicker"] == pytest.approx([10, 10, 10], abs=1e-3)


def test_the_flow_of_sprites_is_exact() -> None:
    drawn = sprites.draw(sprites.make_scene("test", 3), 5)
    frames = torch.from_numpy(drawn.frames).permute(0, 3, 1, 2).float()
    warped = warp(frames[:-1], torch.from_numpy(drawn.flow))
    gap = (warped - frames[1:]).abs().amax(1)
    assert gap[torch.from_numpy(drawn.visible)].max() < 1e-3
    assert 0.3 < drawn.visible.mean() <= 1
    assert set(np.unique(drawn.masks)) <= set(range(6))


def test_warp_error_is_zero_for_a_still_error_and_needs_flow() -> None:
    drawn = sprites.draw(sprites.make_scene("test", 0), 4)
    clip = torch.from_numpy(drawn.frames).permute(0, 3, 1, 2)[None].float() / 255
    extra = {"flow": drawn.flow[None], "visible": drawn.visible[None]}
    dark = (clip * 255 - 5).clamp(min=0) / 255
    found = WarpError().per_sample(media_batch(clip, dark, **extra))
    assert found["warp_error_original"] == pytest.approx([0], abs=1e-4)
    assert found["warp_error"] == pytest.approx([0], abs=0.2)
    still = clip[:, :1].expand_as(clip).contiguous()
    moving = WarpError().per_sample(media_batch(clip, still, **extra))["warp_error"]
    assert bool(moving > 1) == bool(np.abs(drawn.flow).max() > 0)
    with pytest.raises(Exception, match="needs 'flow'"):
        WarpError().per_sample(media_batch(clip, clip))


def test_sprites_never_change() -> None:
    """Results name these data, so the same name must always mean the same pixels."""
    import hashlib

    digest = hashlib.sha256()
    for position in range(8):
        digest.update(sprites.draw(sprites.make_scene("test", position)).frames.tobytes())
    assert digest.hexdigest()[:16] == SPRITES


SPRITES = "f29f5fab1a5db99d"


def test_rate_counts_seconds(clips: torch.Tensor) -> None:
    tokens = Tokens.from_bytes([b"x" * 100] * 3)
    batch = replace(media_batch(clips, clips, rates=[10.0, 20.0, 10.0]), tokens=tokens)
    found = ClipRate().per_sample(batch)
    assert found["clip_kbps"] == pytest.approx([0.8 / 0.4, 0.8 / 0.2, 2])
    assert found["clip_bpp"] == pytest.approx([800 / (4 * 32 * 32)] * 3)
    assert "tokens_per_clip" not in found


def test_image_tokenizers_run_frame_by_frame_and_clip_tokenizers_whole() -> None:
    data = open_dataset("sprites", SHORT, limit=3)
    names = ("clip_rate", "frame_psnr", "flicker", "warp_error", "speed")
    image, whole = run_eval([load_adapter("jpeg.q50"), loaded(Halves())], data, names)
    assert image.error is None and whole.error is None
    assert image.provenance["adapter"]["fitted"] == "passed frame by frame"
    assert whole.provenance["adapter"].get("fitted") is None
    assert whole["tokens_per_clip"].value == 2 * 8 * 8
    assert whole["warp_error_original"].value == pytest.approx(0, abs=1e-5)
    assert image.group == "sprites.t4.n3@short-reconstruct"
    frames = [frame for batch in data.batches(8) for frame in batch.reference.flatten(0, 1)]
    codec = load_adapter("jpeg.q50").model
    bits = codec.encode(torch.stack(frames)).bits.reshape(3, 4).sum(1)
    assert image["bits_per_clip"].value == pytest.approx(float(bits.mean()))


def test_results_are_saved_resumed_and_read_again(tmp_path: Path) -> None:
    data = open_dataset("sprites", SHORT, limit=3)
    context = Context(cache=tmp_path / "cache")
    (first,) = run_eval([load_adapter("jpeg.q30")], data, ("frame_psnr",), cache=context.cache)
    path, _ = first.save(tmp_path)
    assert load_result(path).to_dict() == first.to_dict()
    (again,) = run_eval([load_adapter("jpeg.q30")], data, ("frame_psnr",), cache=context.cache)
    assert again.metrics == first.metrics


def test_adapters_of_other_data_are_refused() -> None:
    result = evaluate_model(load_adapter("h264.q30").model, open_dataset("samples", TOKBENCH, 32, limit=1), ("psnr",))
    assert "it takes data of the kind video, but these are images" in result.error
    with pytest.raises(UsageError, match="q0 to q51"):
        load_adapter("h264.q52")


def test_a_clip_tokenizer_of_another_frame_size_fails_alone() -> None:
    class Small(Halves):
        spec = replace(Halves.spec, name="small", size=32)

    data = open_dataset("sprites", SHORT, limit=1)
    small, other = run_eval([loaded(Small()), load_adapter("jpeg.q50")], data, ("frame_psnr",))
    assert "it takes frames of 32x32 px, not 64x64; give --size 32" in small.error
    assert other.error is None


def test_h264_keeps_clips_and_costs_less_at_lower_quality(clips: torch.Tensor) -> None:
    sizes = []
    for quality, worst in ((4, 4), (40, 40)):
        codec = load_adapter(f"h264.q{quality}").model
        tokens = codec.encode(clips)
        decoded = codec.decode(tokens, [0] * 3)
        assert decoded.shape == clips.shape
        assert (decoded - clips).abs().mean() * 255 < worst
        assert b"x264" not in tokens.files[0]
        sizes.append(float(tokens.bits.mean()))
    assert sizes[1] < sizes[0] / 2


def test_clips_are_padded_in_time_and_space() -> None:
    plan = MODALITIES["video"].plan(replace(Halves.spec, first_frame=True), (4, 3, 30, 32))
    clip = torch.rand(2, 4, 3, 30, 32)
    pieces = plan.cut(clip)
    assert pieces.shape == (2, 5, 3, 32, 32)
    assert torch.equal(pieces[:, 4, :, :30], clip[:, 3])
    assert torch.equal(plan.join(pieces), clip)
    assert plan.describe() == "padded from 4x3x30x32 to 5x3x32x32"


class _Means:
    """A stand-in for a network: the mean and the deviation of each channel."""

    name, sha256, precision, key, stays, input = "means", "0" * 64, "float32", "means", False, None

    def request_layer(self, layer: str) -> None: ...

    def describe(self) -> dict[str, str]:
        return {"network": self.name}

    def __call__(self, images: torch.Tensor, chunk: int | None = None) -> dict[str, torch.Tensor]:
        return {"768": torch.cat([images.mean((2, 3)), images.std((2, 3))], 1)}


def test_the_frechet_distance_is_that_of_all_frames() -> None:
    reference = torch.rand(10, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    reference = (reference * 255).round() / 255
    image = noisy(reference)
    metric = FrameFrechet("frame_fid_768", _Means(), "768")
    for start in (0, 6):
        part = media_batch(reference[start : start + 6], image[start : start + 6])
        metric.update(replace(part, index=part.index + start))
    features = [_Means()(clips.flatten(0, 1))["768"].numpy() for clips in (reference, image)]
    expected = distance_of_sets(*features)
    assert metric.compute()["frame_fid_768"] == pytest.approx(expected)
    spread = metric.replicates(SplitHalves("seed", 10))["frame_fid_768"]
    halves = list(SplitHalves("seed", 10))
    half = [rows.reshape(10, 4, -1)[halves[0]].reshape(20, -1) for rows in features]
    assert spread.halves[0] == pytest.approx(distance_of_sets(*half), rel=1e-6)
    assert set(metric.stores_of(0)) == set(metric.stores())


class Stretched(torch.nn.Module):
    """A stand-in for the I3D network of TATS: means of channels and frames."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[3] == 224 and x.shape[4] == 224
        return x.mean((3, 4)).flatten(1)


class Flagged(torch.nn.Module):
    """A stand-in for the file of StyleGAN-V, which has these flags."""

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        assert rescale and resize and return_features
        return x.mean((3, 4)).flatten(1)


def test_fvd_passes_clips_as_each_convention_requires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKBENCH_WEIGHTS", str(tmp_path))
    data = open_dataset("sprites", TOKBENCH.with_changes("nine", video=Video(frames=MIN_FRAMES)), limit=2)
    names = ("rfvd_tats", "rfvd_styleganv")
    (missing,) = run_eval([load_adapter("identity")], data, names)
    assert "i3d-tats.ts" in missing.skipped["rfvd_tats"]
    assert "i3d_torchscript.pt" in missing.skipped["rfvd_styleganv"]
    torch.jit.script(Stretched()).save(str(tmp_path / "i3d-tats.ts"))
    torch.jit.script(Flagged()).save(str(tmp_path / "i3d_torchscript.pt"))
    networks = ExtractorPool()
    (batch,) = data.batches(2)
    means = batch.reference.transpose(1, 2).mean((3, 4)).flatten(1)
    stretched = networks.get("i3d-tats")(batch.reference)["logits"]
    assert torch.allclose(stretched, 2 * means - 1, atol=2e-2)  # stretching changes means a little
    assert torch.allclose(networks.get("i3d-styleganv")(batch.reference)["logits"], 255 * means, rtol=1e-5)
    (found,) = run_eval([load_adapter("jpeg.q1")], data, names, networks=networks)
    assert found["rfvd_styleganv"].value > found["rfvd_tats"].value > 0
    (refused,) = run_eval([load_adapter("identity")], open_dataset("sprites", SHORT, limit=2), names)
    assert "too short" in refused.skipped["rfvd_tats"]
