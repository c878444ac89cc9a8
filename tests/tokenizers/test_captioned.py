"""Tokenizers that need captions: the evaluation passes them to both ends, and refuses images without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from factories import evaluate_model, loaded, run_eval
from torch import Tensor

import tokbench
from tokbench.data.dataset import open_dataset
from tokbench.data.vocabulary import encode_captions
from tokbench.errors import AdapterError
from tokbench.evaluation.tasks import Decode, Perturb
from tokbench.protocol.protocol import load_protocol
from tokbench.testing.adapters import check_adapter
from tokbench.testing.metrics import ExampleTokenizer
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.captioned import CaptionedTokenizer, bind_captions
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

TOKBENCH = load_protocol("tokbench")


class Tinted(CaptionedTokenizer):
    """Latents are 8x8 means plus an offset that the caption determines, which decode subtracts: only the same caption
    at both ends gives the image back."""

    def __init__(self, side: int | None = 64) -> None:
        self.spec = TokenizerSpec(
            "tinted.8", "continuous", multiple=8, size=side, downsample=8, bits_per_token=48, range=(0, 1)
        )

    def offset(self, captions: Sequence[str] | None, count: int) -> Tensor:
        rows = encode_captions(self.require_captions(captions, count)).float()
        return (rows @ torch.linspace(1, 2, rows.shape[1]) % 1)[:, None, None, None]

    def encode(self, images: Tensor, captions: Sequence[str] | None = None) -> Tokens:
        means = F.avg_pool2d(images, 8) + self.offset(captions, len(images))
        return Tokens.from_latents(means, means.shape[2] * means.shape[3])

    def decode(self, tokens: Tokens, seeds: Sequence[int], captions: Sequence[str] | None = None) -> Tensor:
        return F.interpolate(tokens.tensor.float() - self.offset(captions, len(tokens)), scale_factor=8)


class Plain(Tokenizer):
    """The same means without captions."""

    spec = TokenizerSpec("plain.8", "continuous", multiple=8, size=64, downsample=8, bits_per_token=48)

    def encode(self, images: Tensor) -> Tokens:
        return Tokens.from_latents(F.avg_pool2d(images, 8), 64)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return F.interpolate(tokens.tensor.float(), scale_factor=8)


@pytest.fixture(scope="module")
def scenes():
    return lambda limit=40: open_dataset("scenes", TOKBENCH, limit=limit)


@pytest.mark.parametrize("batch_size", [16, 7])
def test_both_ends_get_the_captions_of_their_images(scenes, batch_size: int) -> None:
    ours = evaluate_model(Tinted(), scenes(), ["psnr"], batch_size=batch_size)
    without = evaluate_model(Plain(), scenes(), ["psnr"], batch_size=batch_size)
    assert ours.error is None and without.error is None
    assert ours.metrics["psnr"]["value"] == pytest.approx(without.metrics["psnr"]["value"], abs=0.01)
    assert ours.provenance["data"]["captions"] == "exact, version 1"
    assert "captions" not in without.provenance["data"]
    assert ours.provenance["data"]["sha256"] == without.provenance["data"]["sha256"]


def test_noise_on_latents_is_added_to_those_of_the_caption(scenes) -> None:
    ours, without = (
        evaluate_model(model, scenes(8), ["psnr"], task=Perturb()).metrics["npsnr"]["value"]
        for model in (Tinted(), Plain())
    )
    assert ours == pytest.approx(without, abs=0.3)


class Dark(Tinted):
    """Decodes images of half the brightness from tokens of another scale."""

    def __init__(self) -> None:
        super().__init__(None)
        self.spec = replace(self.spec, name="dark.8")

    def encode(self, images: Tensor, captions: Sequence[str] | None = None) -> Tokens:
        return super().encode(images / 2, captions)


def test_variants_of_a_decoder_get_the_captions_of_their_tokens(scenes) -> None:
    task = Decode.of(["tiles=32"])
    whole, tiles = run_eval([loaded(Tinted(None))], scenes(8), ["psnr", "decode_psnr"], task=task, batch_size=3)
    assert tiles.error is None
    assert tiles.metrics["decode_exact"]["value"] == 8
    assert tiles.metrics["psnr"] == whole.metrics["psnr"]


def test_decoders_of_several_captioned_tokenizers_get_their_own_tokens(scenes) -> None:
    models = [Tinted(None), Dark(), Tinted(None), Dark()]
    adapters = [loaded(model, f"{at}") for at, model in enumerate(models)]
    made = run_eval(adapters, scenes(40), ["psnr", "decode_psnr"], task=Decode.of(["tiles=32"]), batch_size=4)
    for result in made:
        assert result.error is None
        assert result.metrics["decode_exact"]["value"] == 40
    values = [result.metrics["psnr"]["value"] for result in made[::2]]
    assert values[:2] == values[2:]
    assert values[0] > values[1] + 5


def test_tiles_have_the_caption_of_their_image() -> None:
    dataset = open_dataset("scenes", TOKBENCH, 128, limit=8)
    result = evaluate_model(Tinted(), dataset, ["psnr"], batch_size=3)
    assert result.error is None and result.metrics["psnr"]["value"] > 15


def test_variants_of_a_decoder_share_the_tokens_of_a_captioned_tokenizer(scenes) -> None:
    """They were stored by the address of an object that lives for one batch, where another adapter's can be next."""

    def count_encoded(kind: type[Tokenizer]) -> int:
        calls = list[int]()

        class Counted(kind):
            def encode(self, images: Tensor, *captions: Sequence[str]) -> Tokens:
                calls.append(len(images))
                return super().encode(images, *captions)

        assert evaluate_model(Counted(), scenes(8), ["psnr"], task=Decode((None,))).error is None
        return len(calls)

    assert count_encoded(Tinted) == count_encoded(Plain)


def test_images_without_captions_are_refused() -> None:
    result = evaluate_model(Tinted(None), open_dataset("samples", TOKBENCH, limit=4), ["psnr"])
    assert "it needs a caption of each image; use a dataset with captions, such as scenes" in str(result.error)


def test_missing_captions_and_another_number_are_refused() -> None:
    images, model = torch.rand(3, 3, 64, 64), Tinted()
    for captions, message in (
        (None, "needs a caption"),
        (["a cat"] * 2, "got 2 captions for 3 images"),
        ("a cat", "got one string for 3 images"),
    ):
        with pytest.raises(AdapterError, match=message):
            model.encode(images, captions)
    tokens = model.encode(images, ["a cat"] * 3)
    with pytest.raises(AdapterError, match="got 4 captions for 3 images"):
        model.decode(tokens, [0] * 3, ["a cat"] * 4)
    with pytest.raises(AdapterError, match="needs a caption"):
        bind_captions(model, None)
    other = Plain()
    assert bind_captions(other, None) is other


def test_a_decoder_that_ignores_its_captions_and_tokens_is_found(scenes) -> None:
    class Stuck(Tinted):
        def encode(self, images: Tensor, captions: Sequence[str] | None = None) -> Tokens:
            self.last = images
            return super().encode(images, captions)

        def decode(self, tokens: Tokens, seeds: Sequence[int], captions: Sequence[str] | None = None) -> Tensor:
            return self.last[: len(tokens)]

    assert "decode ignores its tokens" in str(evaluate_model(Stuck(), scenes(), ["psnr"]).error)


def test_the_contract_gives_captions() -> None:
    failed = [check for check in check_adapter(Tinted(None)) if check.outcome == "fail"]
    assert not failed


def test_python_objects_get_captions() -> None:
    result = tokbench.evaluate(Tinted(), "scenes", limit=32, metrics="psnr", progress=False, cache=False)
    assert result.error is None and result.metrics["psnr"]["value"] > 15


def test_python_objects_that_embed_or_write_captions_are_measured() -> None:
    names = ["retrieval", "caption_accuracy"]
    result = tokbench.evaluate(ExampleTokenizer(), "scenes", limit=8, metrics=names, progress=False, cache=False)
    assert result.error is None and not result.skipped
    assert {"image_to_caption_r1", "caption_words"} <= result.metrics.keys()
