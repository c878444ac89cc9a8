"""The task decode: one result per variant of the decoder, from tokens that are encoded once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import loaded, run_eval
from PIL import Image
from torch import Tensor, nn

from tokbench.analysis.compare import differences
from tokbench.data.dataset import open_dataset
from tokbench.data.stream import PairedBatch
from tokbench.errors import ResultError, UsageError
from tokbench.evaluation.decode import ReferenceDecode, decode_batch
from tokbench.evaluation.reconstruct import RunSettings
from tokbench.evaluation.tasks import RECONSTRUCT, Decode, parse_task
from tokbench.metric_names import defaults
from tokbench.metrics.batch import DerivedCache
from tokbench.protocol.protocol import TOKBENCH
from tokbench.report import worst_seams
from tokbench.report.worst_crops import FONT, GAP, HEIGHT, WIDTH
from tokbench.results import leaderboard
from tokbench.results.result import Result, load
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

METRICS = [name for name in defaults("decode") if "lpips" not in name]
COUNT, SIDE = 6, 64


class Mixing(Tokenizer):
    """Means of 8 x 8 blocks. The decoder mixes each with the mean over all places, as group norms over the image do."""

    def __init__(self, name: str = "mixing") -> None:
        self.spec = TokenizerSpec(name, "continuous", multiple=8, downsample=8, bits_per_token=48)
        self.module = nn.ModuleDict({"map": nn.Conv2d(3, 3, 1, bias=False)})
        with torch.no_grad():
            self.module["map"].weight.copy_(torch.eye(3).view(3, 3, 1, 1))
        self.encoded = 0

    def encode(self, images: Tensor) -> Tokens:
        self.encoded += len(images)
        latents = nn.functional.avg_pool2d(images, 8)
        return Tokens.from_latents(latents, latents.shape[2] * latents.shape[3])

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        latents = self.module["map"](tokens.tensor.float())
        mixed = 0.5 * latents + 0.5 * latents.mean((2, 3), keepdim=True)
        return nn.functional.interpolate(mixed, scale_factor=8)


class Broken(Mixing):
    """A decoder whose values overflow in float16."""

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return (
            super().decode(tokens, seeds) + 0 * self.module["map"](1e5 * torch.ones_like(tokens.tensor.float())).mean()
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that are dark on the left and bright on the right, so that halves have other means than the whole."""
    folder = tmp_path_factory.mktemp("halves")
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        ramp = np.linspace(0, 200, SIDE)[None, :, None] + rng.integers(0, 50, (SIDE, SIDE, 3))
        Image.fromarray(ramp.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def run(folder: Path, model: Tokenizer, task, metrics=METRICS, **options) -> list[Result]:
    return run_eval([loaded(model)], open_dataset(str(folder), TOKBENCH), metrics, task=task, batch_size=4, **options)


def value(result: Result, number: str) -> float:
    return result.metrics[number]["value"]


@pytest.fixture(scope="module")
def made(folder: Path) -> list[Result]:
    return run(folder, Mixing(), Decode.of(["tiles=32", "tiles=32,overlap=16", "bf16"]))


def test_every_variant_has_a_result(made: list[Result]) -> None:
    assert [result.error for result in made] == [None] * 4
    assert [result.task for result in made] == [
        "decode", "decode-tiles32", "decode-tiles32-overlap16", "decode-bf16",
    ]  # fmt: skip
    assert [result.row for result in made][:2] == ["mixing", "mixing (tiles32)"]
    assert len({result.table for result in made}) == 1
    assert len({result.path for result in made}) == 4


def test_the_decoder_itself_is_the_reconstruction_and_its_own_reference(made: list[Result], folder: Path) -> None:
    (plain,) = run(folder, Mixing(), RECONSTRUCT, ["psnr", "ssim"])
    for number in ("psnr", "ssim"):
        assert made[0].metrics[number] == plain.metrics[number]
    assert (value(made[0], "decode_exact"), value(made[0], "decode_psnr")) == (COUNT, None)
    assert value(made[0], "decode_ssim") == 1
    assert "no tiles" in made[0].skipped["seams"]
    assert "no tiles" in made[3].skipped["seams"]


def test_tiles_of_a_decoder_that_sees_the_whole_image_differ_and_show_seams(made: list[Result]) -> None:
    _, tiles, overlap, half = made
    # The halves of the ramp have means that differ by about 100 levels; half of that is in every pixel.
    assert value(tiles, "seam_excess") > 20 > value(overlap, "seam_excess")
    assert value(tiles, "seam_excess_whole") < 8  # the decoded blocks are 8 px wide
    assert value(tiles, "decode_changed_share") > 0.9 > value(half, "decode_changed_share")
    assert value(half, "decode_psnr") > value(tiles, "decode_psnr") + 10
    assert value(tiles, "decode_max_error") >= value(tiles, "decode_p999_error") > value(half, "decode_max_error")
    assert {"low", "high"} <= tiles.metrics["decode_psnr"].keys()


def test_images_are_encoded_once_for_all_variants(folder: Path) -> None:
    model = Mixing()
    made = run(folder, model, Decode.of(["tiles=32", "tiles=16", "bf16"]), ["decode_psnr", "speed"])
    probed = 4  # the contract's checks of the first batch encode up to 4 images once more
    assert model.encoded <= COUNT + 2 * probed
    assert all(value(result, "decode_images_per_second") > 0 for result in made)
    assert len({value(result, "encode_images_per_second") for result in made}) == 1


def test_a_task_is_found_by_the_name_of_its_result(made: list[Result], folder: Path) -> None:
    for result in made:
        (again,) = run(folder, Mixing(), parse_task(result.task), ["decode_psnr", "decode_errors"])
        assert again.task == result.task
        for number in again.metrics:
            assert again.metrics[number] == result.metrics[number]


def test_an_overflow_in_half_precision_ends_only_that_variant(folder: Path) -> None:
    whole, half = run(folder, Broken(), Decode.of(["fp16"]), ["decode_psnr"])
    assert whole.error is None
    assert half.error is not None
    assert "decode returned NaN or infinite pixels" in half.error


def test_an_interrupted_run_is_resumed(folder: Path, tmp_path: Path) -> None:
    task = Decode.of(["tiles=32"])
    first = run(folder, Mixing(), task, ["decode_psnr", "seams"], cache=tmp_path)
    model = Mixing()
    second = run(folder, model, task, ["decode_psnr", "seams"], cache=tmp_path)
    assert model.encoded == 0
    assert [one.metrics for one in second] == [one.metrics for one in first]


def test_variants_are_rows_of_one_table_and_can_be_compared(made: list[Result], tmp_path: Path) -> None:
    saved = [load(result.save(tmp_path)[0]) for result in made]
    (rows,) = leaderboard.groups(saved).values()
    text = leaderboard.markdown(rows)
    assert "mixing (tiles32-overlap16)" in text
    assert "decode PSNR" in text
    frame = leaderboard.frame(rows)
    assert set(frame["adapter"]) == {"mixing"}
    assert set(frame["task"]) == {result.task for result in made}
    found = {one.number: one for one in differences(saved[1], saved[2])}
    assert found["seam_excess"].verdict == "better"


def test_metrics_of_variants_are_refused_for_other_tasks(cli, folder: Path) -> None:
    done = cli("eval", "identity", "--data", folder, "--metrics", "decode_psnr")
    assert done.exit_code == 2
    assert "decode_psnr: only for variants of a decoder; give --task decode" in done.output
    done = cli("eval", "identity", "--data", folder, "--decoder", "bf16")
    assert "--decoder requires --task decode" in done.output
    done = cli("eval", "identity", "--data", folder, "--task", "decode", "--decoder", "int4")
    assert done.exit_code == 2
    assert "'int4' is unknown" in done.output


def test_the_command_evaluates_variants_and_other_decoders(cli, folder: Path, tmp_path: Path) -> None:
    done = cli(
        "eval", "toy.p8", "--data", folder, "--task", "decode", "--decoder", "tiles=32", "--decoder", "adapter:toy.p8",
        "--decoder", "adapter:kmeans.f8", "--metrics", "decode_psnr,seams", "--out", tmp_path, "--no-cache", "--json",
    )  # fmt: skip
    facts = {one["task"]: one for one in json.loads(done.stdout)}
    assert done.exit_code == 1, done.output
    assert facts["decode-by-toy.p8"]["metrics"]["decode_exact"]["value"] == COUNT
    assert facts["decode-by-toy.p8"]["provenance"]["adapter"]["decoder"]["source"] == "toy.p8"
    assert facts["decode-tiles32"]["metrics"]["seam_excess"]["value"] is not None
    assert "kmeans.f8 cannot decode the tokens of toy.p8: its spec says" in facts["decode-by-kmeans.f8"]["error"]


def test_an_unknown_variant_in_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown or repeated"):
        parse_task("decode-int4")


def test_the_worst_tile_borders_are_drawn(made: list[Result], folder: Path) -> None:
    data = open_dataset(str(folder), TOKBENCH)
    sheet = worst_seams.picture(made[1], 2, loaded(Mixing()), data)
    pixels = np.asarray(sheet).astype(int)
    top, left = 2 * FONT + GAP, GAP + 2 * (WIDTH + GAP)
    variant = pixels[top : top + HEIGHT, left : left + WIDTH]
    whole = pixels[top : top + HEIGHT, left - WIDTH - GAP : left - GAP]
    middle = round(32 * HEIGHT / worst_seams.ALONG)  # the border at 32 px, in the scale of the crop
    assert sheet.height > 2 * HEIGHT
    jumps = [abs(crop[10:-10, middle + 6] - crop[10:-10, middle - 6]).mean() for crop in (variant, whole)]
    assert jumps[0] > 20 + jumps[1]
    with pytest.raises(ResultError, match="no tile borders"):
        worst_seams.picture(made[0], 2, loaded(Mixing()), data)


def test_progress_counts_the_decoder_itself() -> None:
    """It decodes everything before the first variant, and no call of a model passes without a sign."""
    model, memo, seen = Mixing(), DerivedCache(), list[float]()
    images = PairedBatch(torch.arange(4), list("abcd"), torch.rand(4, 3, 16, 16))
    for step in Decode.of(["tiles=8"]).steps(model):
        assert isinstance(step, ReferenceDecode)
        decode_batch(model, images, step, RunSettings("cpu", 2, advance=seen.append), memo)
    assert seen == [0.25, 0.5, 0.75, 1.0, 0.5, 1.0]
