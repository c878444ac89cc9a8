"""The task truncate: the first tokens alone, their bits, what they decode to, and specs that lie."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import loaded, run_eval
from PIL import Image
from torch import Tensor

from tokbench.analysis.regression import CheckConfig, check
from tokbench.data.dataset import open_dataset
from tokbench.errors import AdapterError, UsageError
from tokbench.evaluation.tasks import RECONSTRUCT, Perturb, Task, Truncate, parse_task
from tokbench.nn.autoencoders import QueryAutoencoder
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.vit import Shape
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results import leaderboard
from tokbench.results.result import Result, load
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.registry import load_adapter
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

SIDE, COUNT = 64, 16


class Waves(Tokenizer):
    """A grey image's 4 x 4 block means in Walsh's waves, 255 levels each: without the last waves its error grows."""

    spec = TokenizerSpec("waves", "discrete", size=SIDE, num_tokens=COUNT, codebook={"codes": 255}, prefixes=True)

    def __init__(self) -> None:
        two = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
        four = torch.kron(two, two)
        self.waves = torch.kron(four, four)

    def encode(self, images: Tensor) -> Tokens:
        means = torch.nn.functional.adaptive_avg_pool2d(images.mean(1), 4).flatten(1) - 0.5
        return Tokens.from_indices((means @ self.waves / COUNT * 254).round().long() + 127, 255)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        heights = (tokens.tensor.float() - 127) / 254
        means = heights @ self.waves[: heights.shape[1]] + 0.5
        grid = means.unflatten(1, (1, 4, 4)).expand(-1, 3, -1, -1)
        return torch.nn.functional.interpolate(grid, scale_factor=SIDE // 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of 16 px blocks."""
    folder = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(0)
    for i in range(12):
        blocks = rng.integers(0, 256, (4, 4, 1), dtype=np.uint8).repeat(3, axis=2)
        Image.fromarray(blocks.repeat(16, axis=0).repeat(16, axis=1)).save(folder / f"{i:02d}.png")
    return folder


def run(folder: Path, networks, model, task: Task, metrics: str = "psnr,rate,rfid_64,codebook") -> list[Result]:
    data = open_dataset(str(folder), TOKBENCH)
    return run_eval([loaded(model)], data, metrics.split(","), task=task, networks=networks)


def value(result: Result, number: str) -> float:
    return result.metrics[number]["value"]


def test_all_tokens_are_the_reconstruction_bit_for_bit(folder: Path, networks) -> None:
    (whole,) = run(folder, networks, Waves(), RECONSTRUCT)
    (same,) = run(folder, networks, Waves(), Truncate((COUNT,)))
    assert same.task == f"truncate-{COUNT}"
    assert same.metrics == whole.metrics
    for name, values in whole.per_image.items():
        np.testing.assert_array_equal(same.per_image[name], values)
    for name, made in whole.replicates.items():
        np.testing.assert_array_equal(same.replicates[name].as_array(), made.as_array())


def test_bits_fall_in_proportion_and_images_get_worse(folder: Path, networks) -> None:
    made = run(folder, networks, Waves(), Truncate())
    counts = [1, 2, 4, 8, 16]
    assert [result.task for result in made] == [f"truncate-{count}" for count in counts]
    assert [value(result, "tokens_per_image") for result in made] == counts
    bits = [count * math.log2(255) for count in counts]
    assert [value(result, "bits_per_image") for result in made] == pytest.approx(bits)
    quality = [value(result, "psnr") for result in made]
    assert quality == sorted(quality) and quality[-1] > quality[0] + 10


def test_counts_that_are_no_power_of_two(folder: Path) -> None:
    class Dozen(Waves):
        spec = TokenizerSpec("dozen", "discrete", num_tokens=12, codebook={"codes": 255}, prefixes=True)

    assert [step.task for step in Truncate().steps(Dozen())] == [f"truncate-{count}" for count in (1, 2, 4, 8, 12)]


def test_a_trained_kind_of_tokenizer_decodes_first_tokens(folder: Path, networks) -> None:
    torch.manual_seed(0)
    model = QueryAutoencoder(Shape(SIDE, 16, 32, 1, 2), 8, VectorQuantizer(32, 6)).eval()
    made = run(folder, networks, LearnedTokenizer("row", model, prefixes=True), Truncate((2, 8)), "psnr,rate,speed")
    assert [result.error for result in made] == [None, None]
    assert [value(result, "bits_per_image") for result in made] == [10, 40]
    assert value(made[0], "psnr") != value(made[1], "psnr")
    assert value(made[0], "decode_images_per_second") > 0


# Tokens.first.


def test_the_first_of_groups_and_of_latents() -> None:
    codes = torch.arange(2 * 6 * 3).reshape(2, 6, 3)
    some = Tokens.from_indices(codes, 64, groups=3).truncate(2)
    assert torch.equal(some.tensor, codes[:, :2])
    assert some.length.tolist() == [2, 2] and some.bits.tolist() == [36, 36]
    latents = Tokens.from_latents(torch.randn(2, 6, 5), tokens=6).truncate(4)
    assert latents.tensor.shape == (2, 4, 5) and latents.bits.tolist() == [4 * 5 * 16] * 2
    whole = Tokens.from_indices(codes, 64, groups=3)
    assert whole.truncate(6) is whole and whole.truncate(99) is whole


def test_shorter_images_stay_as_they_are() -> None:
    """The bits that state the number of tokens are those that the encoder charges for this number."""
    codes, length = torch.zeros(3, 8, dtype=torch.long), torch.tensor([1, 4, 8])
    some = Tokens.from_indices(codes, 32, length=length).truncate(4, variable=True)
    made = Tokens.from_indices(codes[:, :4], 32, length=length.clamp(max=4))
    assert some.length.tolist() == [1, 4, 4]
    assert some.bits.tolist() == pytest.approx(made.bits.tolist()) == [5 + 2, 20 + 2, 20 + 2]
    assert Tokens.from_indices(codes, 32, length=length).truncate(1, variable=True).bits.tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("tokens", "complaint"),
    [
        (Tokens.from_indices(torch.zeros(2, 4, 4, dtype=torch.long), 8), "are not a row"),
        (Tokens.from_latents(torch.zeros(2, 4, 4, 3), tokens=16), "are not a row"),
        (Tokens.from_bytes([b"a", b"b"]), "not a tensor"),
        (Tokens.from_samples(torch.zeros(2, 8, dtype=torch.uint8)), "are not a row"),
        (
            Tokens.from_indices(torch.zeros(2, 8, dtype=torch.long), 8, length=torch.tensor([3, 8])),
            "does not declare `variable`",
        ),
    ],
)
def test_what_has_no_first_tokens(tokens: Tokens, complaint: str) -> None:
    with pytest.raises(AdapterError, match=complaint):
        tokens.truncate(2)


# Specs that lie, and tokenizers that cannot.


def test_a_decoder_that_needs_all_tokens_is_caught(folder: Path, networks) -> None:
    class Whole(Waves):
        def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
            return super().decode(tokens.with_data(tokens.tensor.reshape(-1, COUNT)), seeds)

    short, whole = run(folder, networks, Whole(), Truncate((3, COUNT)))
    assert "its spec declares `prefixes`, but 3 tokens of 00.png do not decode" in short.error
    assert whole.error is None


def test_a_grid_is_no_row(folder: Path, networks) -> None:
    class Grid(Waves):
        def encode(self, images: Tensor) -> Tokens:
            return Tokens.from_indices(super().encode(images).tensor.unflatten(1, (4, 4)), 255)

        def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
            return super().decode(tokens.with_data(tokens.tensor.flatten(1)), seeds)

    (made,) = run(folder, networks, Grid(), Truncate((4,)))
    assert "tokens of shape (4, 4) are not a row" in made.error


def test_lengths_that_the_spec_does_not_know_of(folder: Path, networks) -> None:
    class Some(Waves):
        def encode(self, images: Tensor) -> Tokens:
            length = 1 + torch.arange(len(images)) % COUNT
            return Tokens.from_indices(super().encode(images).tensor, 255, length=length)

    (made,) = run(folder, networks, Some(), Truncate((4,)))
    assert (
        "encode returned 1 tokens for the image, but its spec declares 16; declare a number that varies with"
        in made.error
    )


@pytest.mark.parametrize("task", [Truncate(), Truncate((4,)), Perturb()])
@pytest.mark.parametrize("adapter", ["jpeg.q50", "identity"])
def test_a_codec_is_refused_by_name(folder: Path, networks, adapter: str, task: Task) -> None:
    data = open_dataset(str(folder), TOKBENCH)
    refused, good = run_eval([load_adapter(adapter), loaded(row())], data, ["psnr"], task=task, networks=networks)[:2]
    assert refused.error.startswith(f"{adapter}: ")
    assert refused.task == task.name
    assert good.error is None


def row() -> LearnedTokenizer:
    torch.manual_seed(0)
    model = QueryAutoencoder(Shape(SIDE, 16, 32, 1, 2), 4, VectorQuantizer(32, 6)).eval()
    return LearnedTokenizer("row", model, prefixes=True)


def test_more_tokens_than_there_are(folder: Path, networks) -> None:
    (made,) = run(folder, networks, Waves(), Truncate((4, 17)))
    assert made.error == "waves: has 16 tokens per image, fewer than 17"


def test_tasks_by_name() -> None:
    for task in (RECONSTRUCT, Perturb(), Perturb("code"), Truncate((8,))):
        (name,) = {step.task for step in task.steps(row() if task.name != "truncate" else Waves())}
        assert parse_task(name) == task
    for name in ("truncate", "truncate-", "truncate-0", "truncate-x", "perturb-x", ""):
        with pytest.raises(UsageError, match="no task"):
            parse_task(name)


# From the command line.

ADAPTER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_truncate import Waves

def load(variant, device):
    model = Waves()
    model.spec = type(model.spec)(**vars(model.spec) | {{"name": variant.name}})
    return model
"""


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    place = tmp_path / "waves"
    place.mkdir()
    (place / "adapter.py").write_text(ADAPTER)
    (place / "one.toml").write_text('summary = "a toy"\n')
    return place


def test_every_count_is_a_result_and_a_table(cli, folder: Path, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["eval", adapter, "--data", folder, "--metrics", "psnr,rate", "--out", out, "--task", "truncate"]
    done = cli(*command, "--tokens", "4, 1", "--json")
    assert done.exit_code == 0, done.stderr
    facts = json.loads(done.stdout)
    assert [one["task"] for one in facts] == ["truncate-1", "truncate-4"]
    files = sorted((out / "waves.one").glob("*.json"))
    assert [file.stem[-10:] for file in files] == ["truncate-1", "truncate-4"]
    assert [load(file).task for file in files] == ["truncate-1", "truncate-4"]
    done = cli(*command)
    assert [line.split(":")[0].split(", ")[1] for line in done.stdout.splitlines() if ", truncate-" in line] == [
        f"truncate-{count}" for count in (1, 2, 4, 8, 16)
    ]
    written = leaderboard.write(out)
    assert len(written) == 11  # all.csv, too


def test_a_committed_result_is_measured_again(cli, folder: Path, adapter: Path, tmp_path: Path) -> None:
    cli("eval", adapter, "--data", folder, "--metrics", "psnr,rate", "--out", tmp_path, "--task", "truncate")
    committed = leaderboard.read_all(tmp_path)
    assert len(committed) == 5
    report = check(committed, CheckConfig(data=str(folder)))
    assert report.exit_status == 0
    assert {one.outcome for one in report.checks} == {"same"} and not report.skipped
    assert {one.number for one in report.checks} >= {"psnr", "bpp"}
    committed[0].task = "truncated"
    assert "no task 'truncated'" in check(committed[:1], CheckConfig(data=str(folder))).skipped[0].reason


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--tokens", "4"], "--tokens requires --task truncate"),
        (["--task", "perturb", "--tokens", "4"], "--tokens requires --task truncate"),
        (["--task", "truncate", "--tokens", "4,x"], "--tokens 4,x: expected numbers of tokens"),
        (["--task", "truncate", "--tokens", "0"], "--tokens 0: expected numbers of tokens"),
        (["--task", "truncate", "--anchor", "code"], "--anchor requires --task perturb"),
        (["--anchor", "latent"], "--anchor requires --task perturb"),
        (["--task", "perturb", "--metrics", "psnr,rate"], "--task perturb has no rate; it has psnr, ssim, ms_ssim"),
        (["--task", "perturb", "--suite", "tokbench-256"], "--task perturb has no rate, text"),
        (["--task", "paint"], "'paint' is not one of 'reconstruct', 'truncate', 'perturb', 'generate'"),
    ],
)
def test_options_that_do_not_fit_together(cli, tmp_path: Path, options: list[str], complaint: str) -> None:
    done = cli("eval", "identity", *options, "--out", tmp_path)
    assert done.exit_code == 2
    assert complaint in " ".join(done.stderr.split())


def test_a_refusal_on_the_command_line(cli, folder: Path, adapter: Path, tmp_path: Path) -> None:
    command = ["eval", "jpeg.q50", adapter, "--data", folder, "--metrics", "psnr", "--out", tmp_path, "--json"]
    done = cli(*command, "--task", "truncate", "--tokens", "2")
    assert done.exit_code == 1
    assert "failed jpeg.q50 (truncate): its first tokens alone do not decode" in done.stderr
    assert [(one["adapter"], one["task"], "error" in one) for one in json.loads(done.stdout)] == [
        ("jpeg.q50", "truncate", True), ("waves.one", "truncate-2", False),
    ]  # fmt: skip
