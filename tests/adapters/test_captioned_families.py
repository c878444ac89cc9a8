"""Families with captions: textok reads them at both ends, ett writes them, meditok is aligned with them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tokbench.data.vocabulary import encode_captions
from tokbench.errors import AdapterError, DataError
from tokbench.nn.trainable import Trainable, TrainingBatch, TrainingData
from tokbench.tokenizers.registry import adapter_files, open_variant

SHAPE = {"patch": 16, "width": 16, "depth": 1, "heads": 2}
CAPTIONS = ["a large red circle on a white background", "a ct phantom without a lesion"] * 2


def opened(name: str, **changes: Any) -> tuple[Any, ModuleType]:
    variant, module = open_variant(name, adapter_files()[name])
    variant.config["model"] |= changes
    return variant, module


def made(name: str, **changes: Any) -> Any:
    variant, module = opened(name, **changes)
    torch.manual_seed(0)
    return module.model(variant)


def trained_parts(model: Trainable, batch: TrainingBatch, progress: float) -> set[str]:
    """The parts of a model that get a gradient."""
    model.zero_grad(set_to_none=True)
    sum(model.loss(batch, progress).values()).backward()
    return {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.fixture
def batch() -> TrainingBatch:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(4, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, 64, mode="bicubic").clamp(0, 1) * 2 - 1
    features = torch.randn(4, 64, 64, generator=generator)
    return TrainingBatch(images, features=features, captions=encode_captions(CAPTIONS))


class TestTexTok:
    def made(self, captions: str) -> Any:
        return made("textok.n4", shape=SHAPE, captions=captions)

    def test_captions_matter_at_both_ends(self, batch: TrainingBatch) -> None:
        model = self.made("own").eval()
        for layer in (model.encoder.head, model.head.linear):
            torch.nn.init.normal_(layer.weight)  # they start at zero
        words, others = batch.captions, batch.captions.roll(1, 0)
        with torch.no_grad():
            latents = model.latents(batch.images, words)
            assert latents.shape == (4, 4, 16)
            assert not torch.allclose(latents, model.latents(batch.images, others), atol=1e-3)
            vectors = model.squeeze(latents)[0]
            images = model.pixels(vectors, captions=words)
            assert not torch.allclose(images, model.pixels(vectors, captions=others), atol=1e-3)
            torch.testing.assert_close(model.reconstruct(batch), images)

    def test_shuffled_captions_are_those_of_other_images(self, batch: TrainingBatch) -> None:
        losses = []
        for captions, rows in (("shuffled", batch.captions), ("own", batch.captions.roll(1, 0))):
            model = self.made(captions)
            torch.manual_seed(1)
            terms = model.loss(TrainingBatch(batch.images, captions=rows), 0.0)
            losses.append(float(terms["pixels"].detach()))
        assert losses[0] == losses[1]

    def test_wrong_settings_and_data_are_named(self) -> None:
        variant, module = opened("textok.n4", captions="all")
        with pytest.raises(AdapterError, match=r"textok\.n4: captions = 'all'; give one of own, shuffled, none"):
            module.model(variant)
        data = TrainingData(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
        for model in (self.made("own"), made("meditok.f8x4")):
            with pytest.raises(DataError, match="needs captions; use a dataset that has them"):
                model.prepare_data(data, "cpu", False, lambda *_: None)


class TestETT:
    @pytest.fixture
    def tuned(self) -> Any:
        variant, module = opened("ett.f8", widths=[16], stem=8)
        variant.config["model"]["quantizer"] |= {"codebook_size": 16}
        variant.config["model"]["captioner"] = {"width": 16, "depth": 1, "heads": 2}
        torch.manual_seed(0)
        return module, module._untuned(variant)

    def test_the_tokenizer_is_trained_in_the_second_stage_alone(self, tuned: Any, batch: TrainingBatch) -> None:
        _, model = tuned
        model.perceptual = 0.0
        torch.nn.init.normal_(model.captioner.head.weight)  # it starts at zero
        torch.nn.init.normal_(model.decoder.head[-1].weight)
        torch.nn.init.normal_(model.encoder.head[-1].weight)
        for progress in (0.0, 0.9):
            assert trained_parts(model, batch, progress) == {"captioner"}
        assert trained_parts(model, batch, 0.5) == {"captioner", "encoder", "bottleneck", "decoder"}
        model.weight = 0.0  # the loss of the captions reaches the codebook and the encoder, not the decoder
        assert trained_parts(model, batch, 0.5) == {"captioner", "encoder", "bottleneck"}
        model.joint = False
        assert trained_parts(model, batch, 0.5) == {"captioner"}

    def test_captions_need_the_size_of_the_training(self, tuned: Any, batch: TrainingBatch) -> None:
        module, model = tuned
        tokenizer = module.CaptioningTokenizer("ett.f8", model.eval())
        with torch.no_grad():
            tokens = tokenizer.encode(batch.images)
            assert len(tokenizer.write_captions(tokens)) == 4
            larger = tokenizer.encode(torch.nn.functional.interpolate(batch.images, 128))
            with pytest.raises(AdapterError, match=r"ett\.f8: its captioner reads 64 tokens, .* 64 px, not 256"):
                tokenizer.write_captions(larger)


class TestMedITok:
    @pytest.mark.parametrize(
        ("text_from", "stages"), [(0.5, (False, True)), (0.0, (True, True)), (1.0, (False, False))]
    )
    def test_captions_are_aligned_from_the_second_stage_on(
        self, text_from: float, stages: tuple[bool, bool], batch: TrainingBatch
    ) -> None:
        model = made("meditok.f8x4", widths=[16], stem=8, text_from=text_from)
        model.perceptual = 0.0
        model.ready("cpu")
        assert tuple("text" in model.loss(batch, progress) for progress in (0.0, 1.0)) == stages

    def test_tokens_and_captions_have_one_space(self, batch: TrainingBatch) -> None:
        _, module = opened("meditok.f8x4")
        model = made("meditok.f8x4", widths=[16], stem=8).eval()
        tokenizer = module.AlignedTokenizer("meditok.f8x4", model)
        with torch.no_grad():
            texts = tokenizer.caption_embeddings(CAPTIONS)
            tokens: Tensor = tokenizer.token_embeddings(tokenizer.encode(batch.images))
        assert texts.shape == tokens.shape == (4, 64)
        assert torch.equal(texts[0], texts[2]) and not torch.allclose(texts[0], texts[1], atol=0.1)
