"""Families whose tokens carry meaning: illume_plus, longtextar, vl_gpt and seed, by what their parts do."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tokbench.data.vocabulary import encode_captions
from tokbench.errors import AdapterError
from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.nn.vit import Shape
from tokbench.tokenizers.registry import adapter_files, open_variant
from tokbench.tokenizers.tokens import Tokens

CAPTIONS = encode_captions(["a photo of a bus", "a photo of a bee", "a photo of a bee", "a photo of a lion"])
SMALL = Shape(width=16, depth=1, heads=2)


def opened(name: str) -> tuple[Any, ModuleType]:
    return open_variant(name, adapter_files()[name])


@pytest.fixture
def features() -> Tensor:
    return torch.randn(4, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def images() -> Tensor:
    coarse = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, 64, mode="bicubic").clamp(0, 1) * 2 - 1


class TestIllumePlus:
    def made(self, **changes: Any) -> Any:
        variant, module = opened("illume_plus.f8")
        variant.config["model"] |= {"widths": [16], "stem": 8, **changes}
        variant.config["model"]["quantizer"] = {"kind": "vq", "codebook_size": 16, "dim": 4, "normalised": False}
        torch.manual_seed(0)
        model = module.model(variant)
        model.perceptual = 0.0
        model.ready("cpu")
        return model

    def test_semantic_codes_come_first_and_depend_on_the_features_alone(self, images: Tensor, features: Tensor) -> None:
        model = self.made().eval()
        model.start(TrainingBatch(images, features=features))
        with torch.no_grad():
            plain, other = model.latents_of(images, features), model.latents_of(-images, features)
            moved = model.latents_of(images, features.roll(1, 0))
        assert plain.shape == (4, 80, 4)
        assert torch.equal(plain[:, :16], other[:, :16])
        assert not torch.equal(plain[:, 16:], other[:, 16:])
        assert torch.equal(plain[:, 16:], moved[:, 16:])
        assert not torch.equal(plain[:, :16], moved[:, :16])

    def test_the_semantic_codes_alone_decode(self, images: Tensor, features: Tensor) -> None:
        model = self.made().eval()
        model.start(TrainingBatch(images, features=features))
        with torch.no_grad():
            vectors = model.squeeze(model.latents_of(images, features))[0]
            zeros = torch.cat([vectors[:, :16], torch.zeros(4, 64, 4)], 1)
            assert torch.equal(model.pixels(vectors[:, :16]), model.pixels(zeros))
            assert not torch.equal(model.pixels(zeros), model.pixels(vectors))

    def test_replaced_pixel_codes_change_the_images_and_not_the_semantic_loss(
        self, images: Tensor, features: Tensor
    ) -> None:
        terms = []
        for drop in (0.0, 1.0):
            model = self.made(drop=drop)
            batch = TrainingBatch(images, features=features)
            model.start(batch)
            torch.manual_seed(1)
            terms.append(model.loss(batch, 0.0))
        assert terms[1]["pixels"] > terms[0]["pixels"]
        torch.testing.assert_close(terms[1]["semantic"], terms[0]["semantic"])

    @pytest.mark.parametrize("changes", [{"semantic": 0}, {"semantic": 8, "pixel": False}])
    def test_one_branch_has_64_codes(self, changes: dict[str, Any], images: Tensor, features: Tensor) -> None:
        model = self.made(drop=0.0, **changes)
        batch = TrainingBatch(images, features=features)
        model.start(batch)
        assert ("semantic" in model.loss(batch, 0.0)) == bool(changes["semantic"])
        assert model.latents_of(images, features).shape == (4, 64, 4)

    def test_an_unknown_quantizer_is_named(self) -> None:
        variant, module = opened("illume_plus.f8")
        variant.config["model"]["quantizer"]["kind"] = "simple"
        with pytest.raises(AdapterError, match=r"illume_plus\.f8: .*'simple'; give one of simvq, vq"):
            module.model(variant)


class TestLongTextAR:
    @pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.5, 4), (1.0, 9)])
    def test_a_share_of_the_photos_is_replaced_by_pages(self, share: float, count: int) -> None:
        variant, module = opened("longtextar.f8b12")
        variant.config["model"] |= {"text": share, "widths": [16]}
        photos = torch.randint(0, 256, (9, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        data = TrainingData(photos, torch.arange(9))
        mixed = module.model(variant).prepare_data(data, "cpu", False, lambda *_: None)
        assert int((mixed.pixels != photos).flatten(1).any(1).sum()) == count
        assert torch.equal(data.pixels, photos)
        assert mixed.labels is None

    def test_a_page_depends_on_its_index_and_has_ink(self) -> None:
        _, module = opened("longtextar.f8b12")
        pages = sys.modules[f"{module.__name__}.pages"]
        grey = torch.full((3, 64, 64), 128, dtype=torch.uint8)
        first = [pages.page(index, grey) for index in range(8)]
        assert all(torch.equal(pages.page(index, grey), image) for index, image in enumerate(first))
        assert len({image.numpy().tobytes() for image in first}) == 8
        assert all(float(image.float().std((1, 2)).max()) > 15 for image in first)

    @pytest.mark.parametrize(
        ("changes", "message"), [({"text": 1.5}, "a share of the images from 0 to 1"), ({}, "'bits'; give one of sign")]
    )
    def test_wrong_settings_are_named(self, changes: dict[str, Any], message: str) -> None:
        variant, module = opened("longtextar.f8b12")
        variant.config["model"] |= changes
        variant.config["model"]["quantizer"]["kind"] = "sign" if changes else "bits"
        with pytest.raises(AdapterError, match=message):
            module.model(variant)


class TestVLGPT:
    @pytest.mark.parametrize("causal", [True, False])
    def test_a_later_query_changes_earlier_tokens_only_without_causal_order(
        self, causal: bool, images: Tensor, features: Tensor
    ) -> None:
        _, module = opened("vl_gpt.n16")
        torch.manual_seed(0)
        model = module.VLGPTTokenizer(SMALL, 4, 3, causal, 0.1, linear=False).eval()
        with torch.no_grad():
            before = model.latents_of(images, features)
            model.encoder.queries[3] += 5 * torch.randn(16)
            after = model.latents_of(images, features)
        assert torch.allclose(before[:, :3], after[:, :3], atol=1e-6) == causal
        assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-3)


class TestSEED:
    @pytest.fixture
    def model(self) -> Any:
        _, module = opened("seed.n16")
        torch.manual_seed(0)
        around = ConvAutoencoder(KL(4), (16,), 8).eval().requires_grad_(False)
        quantizer = VectorQuantizer(8, 4, normalised=False)
        model = module.SEED(around, SMALL, 4, quantizer, True, steps=2, guidance=1.5)
        model.ready("cpu")
        return model

    def test_the_queries_learn_first_and_the_codes_then(self, model: Any, images: Tensor, features: Tensor) -> None:
        latents = torch.randn(4, 64, 8, generator=torch.Generator().manual_seed(2))
        batch = TrainingBatch(images, None, latents, features, CAPTIONS)
        model.start(batch)
        learned = {}
        for progress in (0.0, 0.5):
            model.zero_grad(set_to_none=True)
            sum(model.loss(batch, progress).values()).backward()
            learned[progress] = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
        assert {"queries", "text"} <= learned[0.0]
        assert not {"down", "up", "image", "bottleneck"} & learned[0.0]
        assert {"down", "up", "image", "read_embeddings", "read_image"} <= learned[0.5]
        assert not {"queries", "text"} & learned[0.5]

    def test_equal_captions_match_each_other(self, model: Any) -> None:
        model.temperature.data.fill_(4.0)
        with torch.no_grad():
            own = model.caption_embedding(CAPTIONS)[:, None].expand(-1, 4, -1)
            right = model.contrast(own, CAPTIONS)
            assert float(right) < float(model.contrast(own.roll(1, 0), CAPTIONS))
            torch.testing.assert_close(model.contrast(own[[0, 2, 1, 3]], CAPTIONS), right)  # two have one caption

    def test_the_first_codes_have_embeddings_and_images(self, model: Any) -> None:
        model.eval()
        tokenizer = opened("seed.n16")[1].SEEDTokenizer("seed.small", model, prefixes=True)
        codes = torch.randint(0, 8, (3, 4, 1), generator=torch.Generator().manual_seed(0))
        other = codes.clone()
        other[:, 2:] = (other[:, 2:] + 1) % 8
        with torch.no_grad():
            first, second, few = (Tokens.from_indices(one, 8) for one in (codes, other, codes[:, :2]))
            assert tokenizer.token_embeddings(first).shape == (3, 16)
            assert not torch.allclose(tokenizer.token_embeddings(first), tokenizer.token_embeddings(second))
            torch.testing.assert_close(tokenizer.token_embeddings(first.truncate(2)), tokenizer.token_embeddings(few))
            torch.testing.assert_close(tokenizer.token_embeddings(second.truncate(2)), tokenizer.token_embeddings(few))
            assert tokenizer.decode(few, [1, 2, 3]).shape == (3, 3, 64, 64)
            assert tokenizer.caption_embeddings(["a photo of a bus", "a red circle"]).shape == (2, 16)

    def test_images_depend_on_codes_and_seeds_alone(self, model: Any, images: Tensor, features: Tensor) -> None:
        model.eval()
        with torch.no_grad():
            vectors = model.squeeze(model.latents_of(images, features))[0]
            whole = model.pixels(vectors, [1, 2, 3, 4])
            torch.testing.assert_close(model.pixels(vectors[2:3], [3]), whole[2:3], rtol=1e-4, atol=1e-4)
            assert not torch.allclose(model.pixels(vectors[2:3], [4]), whole[2:3], atol=1e-3)

    def test_images_without_captions_are_refused(self, model: Any) -> None:
        with pytest.raises(AdapterError, match="use a dataset with captions, such as tiny-imagenet-train"):
            model.prepare_data(SimpleNamespace(captions=None), "cpu", False, lambda *_: None)
