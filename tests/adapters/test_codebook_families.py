"""Families with a semantic and another codebook: hita, tokenflow, dualtoken and glotok, by what their parts do."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tokbench.nn.trainable import Trainable, TrainingBatch
from tokbench.tokenizers.registry import adapter_files, open_variant
from tokbench.tokenizers.tokens import Tokens

SMALL: dict[str, Any] = {"widths": [16], "stem": 8, "depth": 1}


def opened(name: str) -> tuple[Any, ModuleType]:
    return open_variant(name, adapter_files()[name])


def made(name: str, codes: int = 16, **changes: Any) -> Any:
    """A small untrained model of a variant."""
    variant, module = opened(name)
    variant.config["model"] |= changes
    variant.config["model"]["quantizer"]["codebook_size"] = codes
    torch.manual_seed(0)
    model: Trainable = module.model(variant)
    model.perceptual = 0.0
    model.ready("cpu")
    return model


@pytest.fixture(scope="module")
def batch() -> TrainingBatch:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(4, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, 64, mode="bicubic").mul(0.4).clamp(-1, 1)
    return TrainingBatch(images, features=torch.randn(4, 64, 64, generator=generator))


class TestHita:
    @pytest.mark.parametrize("name, causal", [("hita.n80", True), ("hita.n80_full", False)])
    def test_the_image_is_read_before_the_last_tokens_only_in_causal_order(self, name: str, causal: bool) -> None:
        """The learned part of the image reads the outputs 12 to 75 of 80, so it does not depend on the last four."""
        model = made(name, **SMALL, width=16).eval()
        torch.nn.init.xavier_uniform_(model.decoder.head[-1].weight)
        vectors = torch.randn(1, 80, 8, generator=torch.Generator().manual_seed(0))
        changed = vectors.clone()
        changed[:, 76:] += 1
        with torch.no_grad():
            assert torch.allclose(model.decoded(vectors), model.decoded(changed), atol=1e-6) == causal

    def test_a_query_changes_later_latents_only_in_causal_order(self, batch: TrainingBatch) -> None:
        for name, causal in (("hita.n80", True), ("hita.n80_full", False)):
            model = made(name, **SMALL, width=16).eval()
            for head in model.heads:
                torch.nn.init.xavier_uniform_(head.weight)
            model.mixer = torch.nn.Identity()  # it lets all positions see each other, before the causal attention
            with torch.no_grad():
                before = model.latents_of(batch.images, batch.features)
                model.queries[15] += 5 * torch.randn(16)
                after = model.latents_of(batch.images, batch.features)
            assert torch.allclose(before[:, :15], after[:, :15], atol=1e-5) == causal
            assert not torch.allclose(before[:, 16:], after[:, 16:], atol=1e-3)

    def test_holistic_tokens_are_swapped_and_local_ones_are_not(self) -> None:
        tokenizer = opened("hita.n80")[1].HitaTokenizer("hita.small", made("hita.n80", **SMALL, width=16))
        own, others = (Tokens.from_indices(torch.full((2, 80, 1), value), 16) for value in (1, 2))
        swapped = tokenizer.swap(own, others).tensor.flatten(1)
        assert (swapped[:, :16] == 2).all() and (swapped[:, 16:] == 1).all()


class TestTokenFlow:
    def test_each_decoder_reads_its_part_of_the_shared_code(self, batch: TrainingBatch) -> None:
        model = made("tokenflow.f8", **SMALL)
        model.start(batch)
        torch.nn.init.xavier_uniform_(model.decoder.head[-1].weight)
        terms = model.loss(batch, 0.5)
        pixel, semantic = model.encoder.head[-1].weight, model.semantic_encoder.head.weight
        for name, read, other in (("pixels", pixel, semantic), ("semantic", semantic, pixel)):
            found = torch.autograd.grad(terms[name], (read, other), allow_unused=True, retain_graph=True)
            assert found[0] is not None and float(found[0].abs().max()) > 0
            assert found[1] is None or float(found[1].abs().max()) == 0

    @pytest.mark.parametrize("name, squared", [("tokenflow.f8", 1.0), ("tokenflow.f8_w4", 0.25)])
    def test_semantic_latents_start_with_the_length_of_the_balance(
        self, name: str, squared: float, batch: TrainingBatch
    ) -> None:
        model = made(name, **SMALL)
        model.start(batch)
        with torch.no_grad():
            pixel, semantic = model.inputs(batch).split(8, dim=2)
        assert float(pixel.square().sum(2).mean()) == pytest.approx(1.0, rel=0.05)
        assert float(semantic.square().sum(2).mean()) == pytest.approx(squared, rel=0.01)


def test_dualtoken_reads_pixel_codes_from_shallow_blocks(batch: TrainingBatch) -> None:
    model = made("dualtoken.p8", shape={"patch": 8, "width": 16, "depth": 3, "heads": 2}, widths=[16], stem=8).eval()
    for head in model.pixel_heads:
        torch.nn.init.xavier_uniform_(head.weight)
    with torch.no_grad():
        before = model.encoded(batch.images)
        model.body.blocks[2].mlp[-1].bias += torch.randn(16)
        after = model.encoded(batch.images)
    assert torch.equal(before[..., :16], after[..., :16])
    assert not torch.allclose(before[..., 16:], after[..., 16:], atol=1e-3)


class TestGloTok:
    def test_the_histogram_is_that_of_the_cosines_of_all_pairs(self) -> None:
        histogram = opened("glotok.f8x2")[1].histogram
        rows = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])  # cosines 0, -1 and 0
        found = histogram(rows)
        assert found.shape == (40,) and float(found.sum()) == pytest.approx(1.0)
        lowest, middle = float(found[:5].sum()), float(found[15:25].sum())
        assert middle > lowest > 0.2 and middle + lowest == pytest.approx(1.0, abs=1e-3)
        assert torch.allclose(histogram(5 * rows), found)

    def test_residual_modules_change_the_image_and_not_the_codes(self, batch: TrainingBatch) -> None:
        model = made("glotok.f8x2", widths=[16], stem=8).eval()
        model.start(batch)
        with torch.no_grad():
            latents = model.latents(batch.images)
            vectors: Tensor = model.squeeze(latents)[0]
            before = model.pixels(vectors)
            assert torch.equal(model.restored(vectors), vectors)  # the modules start at zero
            for module in model.restorers:
                torch.nn.init.xavier_uniform_(module.head.weight)
            assert not torch.allclose(model.pixels(vectors), before, atol=1e-3)
            assert torch.equal(model.latents(batch.images), latents)
        assert not made("glotok.f8x2_hist", widths=[16], stem=8).restorers
