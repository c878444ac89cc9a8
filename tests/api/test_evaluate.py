"""`tokbench.evaluate`: the command line's numbers, every form of a model, errors, and what is never
reused."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

import tokbench
from tokbench.errors import AdapterError, ResultError, UsageError
from tokbench.results.result import Result

QUIET = {"progress": False}
FAST = {"metrics": ["psnr", "rate"], "progress": False}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """24 smooth random images of 16 px, float32 in [0, 1]."""
    noise = torch.rand(24, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return interpolate(noise, (16, 16), mode="bilinear").clamp(0, 1)


class Patches(nn.Module):
    """The mean of each 4 x 4 px and channel as a latent; `scale` changes what is decoded."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return avg_pool2d(images, 4)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return interpolate(latents, scale_factor=4) * self.scale


class Levels(nn.Module):
    """The codes of the tokenizer of the fixture `levels`, as VQGAN returns them: vectors, loss, (.., .., codes)."""

    def encode(self, images: torch.Tensor) -> tuple:
        codes = (avg_pool2d(images.mean(1, keepdim=True), 4) * 10).round().long().clamp(0, 10)
        vectors = images.new_zeros(codes.shape) + codes / 10
        return vectors, torch.zeros(()), (None, None, codes.flatten())

    def decode(self, vectors: torch.Tensor) -> torch.Tensor:
        return interpolate(vectors, (16, 16)).expand(-1, 3, -1, -1)


class Codes(Levels):
    """The same, of the codes alone."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return super().encode(images)[2][2].reshape(len(images), 4, 4)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        assert codes.dtype == torch.int64
        return super().decode(codes[:, None] / 10)


def values(result: Result) -> dict:
    return {name: (one.value, one.low, one.high, one.n) for name in result if (one := result[name])}


def same(first: Result, second: Result) -> bool:
    ours, theirs = values(first), values(second)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name], equal_nan=True) for name in ours
    )


@pytest.mark.slow
def test_results_are_those_of_the_command_line(cli, tmp_path: Path) -> None:
    names, chosen = ["toy.p8", "identity"], ["psnr", "ssim", "rate", "codebook"]
    done = cli(
        "eval", *names, "--data", "samples", "--limit", 6, "--metrics", ",".join(chosen), "--out", tmp_path / "a"
    )
    assert done.exit_code == 0, done.stderr
    results = tokbench.evaluate(names, "samples", limit=6, metrics=chosen, **QUIET)
    for result in results:
        result.save(str(tmp_path / "b"))
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.json"))
    assert len(files) == 2
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        ours, theirs = (np.load((tmp_path / folder / file).with_suffix(".npz")) for folder in "ab")
        assert set(ours.files) == set(theirs.files)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours.files if ours[name].dtype.kind != "f")
        assert all(
            np.array_equal(ours[name], theirs[name], equal_nan=True)
            for name in ours.files
            if ours[name].dtype.kind == "f"
        )
    # An adapter's model, and its Tokenizer in a dict, give the same numbers.
    model = tokbench.load_adapter("toy.p8")
    assert isinstance(model, tokbench.Tokenizer)
    again = tokbench.evaluate({"mine": model}, "samples", limit=6, metrics=chosen, **QUIET)
    assert same(again["mine"], results[0])
    assert again["mine"].adapter == "mine"


def test_a_module_with_latents(images: torch.Tensor) -> None:
    result = tokbench.evaluate(Patches(), images, **FAST)
    by_hand = interpolate(avg_pool2d(images.mul(255).round() / 255 * 2 - 1, 4).half().float(), scale_factor=4)
    truth = images.mul(255).round()
    made = ((by_hand + 1) / 2).clamp(0, 1).mul(255).round()
    expected = (10 * torch.log10(255**2 / (made - truth).square().flatten(1).double().mean(1))).mean()
    assert result["psnr"].value == pytest.approx(float(expected), abs=1e-9)
    assert result["psnr"].low < result["psnr"].value < result["psnr"].high
    assert (result["psnr"].n, result["psnr"].title, result["psnr"].higher_is_better) == (24, "PSNR", True)
    assert result["tokens_per_image"].value == 16
    assert result["bits_per_image"].value == 16 * 3 * 16
    assert result.adapter == "Patches"
    assert result.provenance["adapter"]["downsample"] == 4


def test_a_function_from_images_to_images(images: torch.Tensor, caplog: pytest.LogCaptureFixture) -> None:
    model = Patches()
    through = tokbench.evaluate(lambda x: model.decode(model.encode(x)), images, name="through", **FAST)
    whole = tokbench.evaluate(model, images, **FAST)
    assert through["psnr"].value == pytest.approx(whole["psnr"].value, abs=0.05)  # latents are float16 in one of them
    with pytest.raises(KeyError, match=r"no number 'bpp'.*rate was skipped"):
        through["bpp"]
    assert any("skipped rate" in record.message for record in caplog.records if record.levelno == logging.WARNING)

    class Forward(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, float]:
            return x * 0.5, 0.0

    assert "psnr" in tokbench.evaluate(Forward(), images, **FAST)


def test_codes_and_quantized_vectors_are_the_same_tokens(images: torch.Tensor, levels) -> None:
    metrics, range_ = ["psnr", "rate", "codebook"], {"value_range": (0, 1), "codebook_size": 11}
    expected = tokbench.evaluate(levels(), images, metrics=metrics, **QUIET)
    assert expected["bits_per_image"].value == pytest.approx(16 * math.log2(11))
    for model in (Levels(), Codes()):
        result = tokbench.evaluate(model, images, metrics=metrics, **range_, **QUIET)
        assert values(result).keys() == values(expected).keys()
        for name in result:
            assert result[name].value == pytest.approx(expected[name].value, rel=1e-6), (type(model), name)


@pytest.mark.slow
def test_outputs_of_diffusers(images: torch.Tensor) -> None:
    """The posterior's mode, `.latents` and `.sample`, as its classes return them, and its own classes."""

    class Box:
        def __init__(self, **held: object) -> None:
            vars(self).update(held)

        def mode(self) -> torch.Tensor:
            return self.mean

    class Posterior(Patches):
        def encode(self, images: torch.Tensor) -> Box:
            return Box(latent_dist=Box(mean=super().encode(images)))

        def decode(self, latents: torch.Tensor) -> Box:
            return Box(sample=super().decode(latents))

    class Latents(Patches):
        def encode(self, images: torch.Tensor) -> Box:
            return Box(latents=super().encode(images))

    expected = tokbench.evaluate(Patches(), images, **FAST)
    for model in (Posterior(), Latents()):
        assert same(tokbench.evaluate(model, images, **FAST), expected)
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'tokbench[hf]'")
    torch.manual_seed(0)
    vq = diffusers.VQModel(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, num_vq_embeddings=16, latent_channels=4,
    )  # fmt: skip
    result = tokbench.evaluate(vq, images, **FAST)
    assert result["bits_per_image"].value == 8 * 8 * 4
    assert vq.training


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (None, "encode returned None"),
        ({"z": torch.zeros(1)}, "a dict with the keys z"),
        (torch.zeros(1, 2, 3, 4, 5), r"latents of shape \(1, 2, 3, 4, 5\)"),
        (torch.zeros(1, 4, 4, dtype=torch.bool), "torch.bool"),
        (torch.zeros(7, 4), "the first axis must be the batch"),
        ((torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, 2, dtype=torch.int64)), "not one code per vector"),
        (tokbench.Tokens.from_latents(torch.zeros(1, 4), 1), "only a subclass of tokbench.Tokenizer"),
    ],
)
def test_other_outputs_are_refused(images: torch.Tensor, output: object, message: str) -> None:
    class Model:
        def encode(self, images: torch.Tensor) -> object:
            return output

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return latents

    with pytest.raises(AdapterError, match=message) as raised:
        tokbench.evaluate(Model(), images, **FAST)
    assert "subclass of tokbench.Tokenizer" in str(raised.value)


def test_vectors_without_codes_are_warned_of(images: torch.Tensor, caplog: pytest.LogCaptureFixture) -> None:
    """It is unknown whether they were quantized, so their bits are those of floats."""

    class Quantized(Levels):
        def encode(self, images: torch.Tensor) -> tuple:
            return super().encode(images)[:2]

    result = tokbench.evaluate(Quantized(), images, value_range=(0, 1), **FAST)
    assert result["bits_per_image"].value == 16 * 16
    assert any("a tuple of (Tensor, Tensor) without integer codes" in record.message for record in caplog.records)


def test_codes_whose_vectors_differ_are_refused(images: torch.Tensor) -> None:
    class Residual(Levels):
        def encode(self, images: torch.Tensor) -> tuple:
            vectors, *rest = super().encode(images)
            return vectors + avg_pool2d(images, 4)[:, :1] * 0.1, *rest

    with pytest.raises(AdapterError, match="different vectors for code"):
        tokbench.evaluate(Residual(), images, value_range=(0, 1), codebook_size=11, **FAST)


def test_a_wrong_range_is_an_error(images: torch.Tensor) -> None:
    with pytest.raises(AdapterError, match="its spec declares the range 0 to 1"):
        tokbench.evaluate(lambda x: x * 4 - 2, images, value_range=(0, 1), **FAST)
    with pytest.raises(AdapterError, match=r"range \(1, 0\)"):
        tokbench.evaluate(lambda x: x, images, value_range=(1, 0), **FAST)


def test_size_rules(images: torch.Tensor) -> None:
    sides = []

    def model(x: torch.Tensor) -> torch.Tensor:
        sides.append(tuple(x.shape[2:]))
        return x

    tokbench.evaluate(model, images, multiple=12, **FAST)
    tokbench.evaluate(model, images, input_size=8, **FAST)
    assert set(sides) == {(24, 24), (8, 8)}
    padded = images[:, :, :14]
    with pytest.raises(AdapterError, match=r"decode returned|multiple"):
        tokbench.evaluate(Patches(), padded, **FAST)
    assert "padded" in tokbench.evaluate(Patches(), padded, multiple=4, **FAST).provenance["adapter"]["fitted"]


def test_models_that_fail(images: torch.Tensor) -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("of my own")

    with pytest.raises(AdapterError, match=r"broken: failed on the batch.*ZeroDivisionError: of my own") as raised:
        tokbench.evaluate(broken, images, **FAST)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    results = tokbench.evaluate({"bad": broken, "good": Patches()}, images, **FAST)
    assert "of my own" in results["bad"].error
    assert results["good"].error is None and "psnr" in results["good"]
    with pytest.raises(KeyError, match="the adapter failed"):
        results["bad"]["psnr"]

    class Half:
        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return x

    for model, message in ((Half(), "must have both `encode` and `decode`"), (3, "of type int is not a model")):
        with pytest.raises(AdapterError, match=message):
            tokbench.evaluate(model, images, **FAST)
    with pytest.raises(AdapterError, match="codebook_size=K"):
        tokbench.evaluate(Codes(), images, **FAST)
    with pytest.raises(AdapterError, match="returned no integer codes"):
        tokbench.evaluate(Patches(), images, codebook_size=9, **FAST)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ([Patches(), Patches()], {}, "two models have the name Patches"),
        ({"a/b": Patches()}, {}, "invalid model name 'a/b'"),
        ([Patches()], {"name": "a"}, "name applies only to a single model"),
        ("identity", {"name": "a"}, "an adapter has its own name"),
        ("identity", {"value_range": (0, 1)}, "these have one: identity"),
        ([], {}, "no models were given"),
        (Patches, {}, "Patches is a class"),
        (Patches(), {"metrics": ["psnrr"]}, "no metric 'psnrr'"),
        (Patches(), {"task": "generate"}, "tokbench eval --task generate"),
        (Patches(), {"device": "tpu9"}, "device 'tpu9' cannot be used"),
        (Patches(), {"protocol": "nope"}, "no protocol 'nope'"),
        (Patches(), {"batch_size": 0}, "batch_size must be an integer of at least 1, but is 0"),
        (Patches(), {"size": 16.0}, "size must be an integer of at least 1"),
        (Patches(), {"limit": 0}, "limit must be an integer"),
        (Patches(), {"multiple": 0}, "multiple must be an integer of at least 1, but is 0"),
        (Patches(), {"input_size": -8}, "input_size must be an integer of at least 1"),
        (Patches(), {"codebook_size": 0}, "codebook_size must be an integer of at least 1"),
        (Patches(), {"seed": -1}, "seed must be an integer of at least 0"),
        (Patches(), {"precision": "fp8"}, "precision must be float32 or bfloat16, but is 'fp8'"),
    ],
)
def test_wrong_arguments(images: torch.Tensor, model: object, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tokbench.evaluate(model, images, **(FAST | options))


def test_a_changed_model_gets_no_old_numbers(images: torch.Tensor, tmp_path: Path) -> None:
    """Neither from the cache nor joined in a file, also where no hash of its parameters shows the change."""

    class Hidden(Patches):
        gain = 1.0

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return super().decode(latents) * self.gain

    model = Hidden()
    first = tokbench.evaluate(model, images, **FAST)
    with torch.no_grad():
        model.scale.fill_(0.5)
    second = tokbench.evaluate(model, images, **FAST)
    model.gain = 0.5
    third = tokbench.evaluate(model, images, metrics=["psnr", "ssim"], **QUIET)
    assert len({round(result["psnr"].value, 3) for result in (first, second, third)}) == 3
    second.save(tmp_path)
    path, replaced = third.save(tmp_path)
    assert "other fingerprint" in replaced and "bpp" in replaced
    assert "bpp" not in tokbench.compare(path, path).verdicts


def test_perturbed_and_truncated_tokens(images: torch.Tensor) -> None:
    result = tokbench.evaluate(Patches(), images, metrics=["psnr"], task="perturb", **QUIET)
    assert result.task == "perturb" and "npsnr" in result
    with pytest.raises(AdapterError, match="its first tokens alone do not decode"):
        tokbench.evaluate(Patches(), images, metrics=["psnr"], task="truncate-2", **QUIET)


def test_comparison(images: torch.Tensor, tmp_path: Path, cli) -> None:
    better, worse = tokbench.evaluate({"better": Patches(), "worse": Patches(0.9)}, images, **FAST).values()
    found = tokbench.compare(better, worse)
    assert found["psnr"].verdict == found.verdicts["psnr"] == "worse"
    assert found.to_frame().loc["psnr", "gap"] == pytest.approx(worse["psnr"].value - better["psnr"].value)
    files = [result.save(tmp_path)[0] for result in (better, worse)]
    assert tokbench.compare(*files).to_markdown() in cli("compare", *files).stdout
    with pytest.raises(KeyError, match="no difference of 'lpips'; compared numbers"):
        found["lpips"]
    with pytest.raises(ResultError, match="different images"):
        tokbench.compare(better, tokbench.evaluate(Patches(), images[:20], **FAST))


def test_a_model_that_cannot_be_identified_fails_alone(images) -> None:
    """The hash of the weights reads all tensors, which may raise any error."""

    class Broken(Patches):
        def state_dict(self, *arguments, **options):  # type: ignore[override]
            raise RuntimeError("no room")

    broken, fine = tokbench.evaluate(
        {"broken": Broken(), "fine": Patches()}, images, value_range=(0, 1), **FAST
    ).values()
    assert broken.error is not None and "cannot be identified" in broken.error and "no room" in broken.error
    assert fine.error is None and "psnr" in fine
