"""Families of conditions: disco_token tunes those of a frozen flow, style_tokenizer places a style among words."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from tokbench.data.synthetic.styled import CLASSES, CONTENTS, STYLES, Styled, draw, label_of, make_styled
from tokbench.data.vocabulary import encode_captions
from tokbench.errors import AdapterError, DataError
from tokbench.nn.priors.flow import Flow
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.tokenizers.registry import adapter_files, open_variant


def opened(name: str) -> tuple[Any, ModuleType]:
    return open_variant(name, adapter_files()[name])


class TestDiscoToken:
    K = 3

    @pytest.fixture
    def model(self, untrained: Callable[[str], LearnedTokenizer]) -> Any:
        """A model over an untrained flow whose condition matters, and EfficientNet or a replacement as classifier."""
        tokenizer = untrained("kl")
        torch.manual_seed(0)
        flow = Flow(tokenizer, 32, self.K, width=16, depth=1, heads=2, steps=4).eval()
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.add_(0.2 * torch.randn(parameter.shape))
        flow.requires_grad_(False)
        tokenizer.model.requires_grad_(False)
        module = sys.modules[f"{opened('disco_token.kl_f8c4')[1].__name__}.model"]
        made = module.DiscriminativeTokens(flow, tokenizer.model, [7, 1, 4], steps=4, differentiable=2)
        made.helpers["classifier"] = Colours()
        return made

    def test_the_gradient_is_that_of_the_last_steps(self, model: Any) -> None:
        """The same as of steps from the point that the others reach, written out."""
        labels, seeds = torch.tensor([2, 0]), [5, 6]
        target = torch.randn(2, 3, 32, 32)
        (model.generated(labels, seeds) * target).sum().backward()
        found, model.vectors.grad = model.vectors.grad.clone(), None
        flow = model.prior
        condition = model.condition(labels)
        with torch.no_grad():
            x = flow.network.sample(condition[:, None], seeds, 4)  # for its shape
            x = torch.stack([torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds])
            for step in range(2):
                x = x - flow.network(x, torch.full((2,), 1 - step / 4), condition[:, None]) / 4
        for step in range(2, 4):
            x = x - flow.network(x, torch.full((2,), 1 - step / 4), condition[:, None]) / 4
        side = round(flow.count**0.5)
        pixels = model.autoencoder.pixels((x * flow.deviation + flow.mean).unflatten(1, (side, side)))
        ((pixels / 2 + 0.5) * target).sum().backward()
        assert torch.allclose(found, model.vectors.grad, rtol=1e-4, atol=1e-6)
        assert found[2].any() and found[0].any() and not found[1].any()

    def test_tuning_makes_the_classifier_name_the_class(self, model: Any) -> None:
        batch = TrainingBatch(torch.zeros(6, 3, 32, 32), torch.arange(6) % self.K)
        optimizer = torch.optim.Adam([model.vectors], lr=0.5)
        losses = []
        for _ in range(6):
            torch.manual_seed(0)
            (loss,) = model.loss(batch, 0.0).values()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0] - 0.1
        assert [name for name, p in model.named_parameters() if p.requires_grad] == ["vectors"]

    def test_untuned_vectors_give_the_samples_of_the_flow(self, model: Any) -> None:
        labels, seeds = torch.arange(self.K), [1, 2, 3]
        flow = model.prior
        expected = flow.sample(labels, seeds, 1.0)
        assert torch.allclose(flow.sample_from(model.condition(labels).detach(), seeds, 1.0), expected)

    def test_controls_have_no_tuned_direction(self, model: Any) -> None:
        with torch.no_grad():
            model.vectors.normal_()
        random, untuned = model.control(random=True), model.control(random=False)
        assert torch.allclose(random.vectors.norm(dim=1), model.vectors.norm(dim=1))
        cosine = torch.nn.functional.cosine_similarity(random.vectors, model.vectors, dim=1)
        assert cosine.abs().max() < 0.9
        assert not untuned.vectors.any() and model.vectors.any()

    def test_what_does_not_fit_is_refused(self, model: Any) -> None:
        cls, flow, autoencoder = type(model), model.prior, model.autoencoder
        with pytest.raises(AdapterError, match="outputs has 2 entries, but the prior has 3 classes"):
            cls(flow, autoencoder, [0, 1], 4, 1)
        with pytest.raises(AdapterError, match="differentiable is 5"):
            cls(flow, autoencoder, [0, 1, 2], 4, 5)
        with pytest.raises(DataError, match="needs the labels"):
            model.loss(TrainingBatch(torch.zeros(2, 3, 32, 32)), 0.0)

    def test_the_outputs_are_classes_of_imagenet(self) -> None:
        outputs = opened("disco_token.kl_f8c4")[0].config["model"]["outputs"]
        assert len(outputs) == 200 and outputs == sorted(set(outputs)) and 0 <= outputs[0] < outputs[-1] < 1000


class Colours(nn.Module):
    """A classifier of the mean colour, in place of EfficientNet-Lite0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[2] == 160 and images.abs().max() < 1.1
        return images.mean((2, 3))

    @staticmethod
    def _fc(colours: torch.Tensor) -> torch.Tensor:
        return 20 * colours @ torch.randn(3, 8, generator=torch.Generator().manual_seed(1))


class TestStyleTokenizer:
    SMALL: ClassVar = {"patch": 8, "width": 16, "depth": 1, "heads": 2, "encoder": [8, 8]}

    def made(self, **changes: Any) -> Any:
        variant, module = opened("style_tokenizer.n4")
        variant.config["model"] |= self.SMALL | changes
        torch.manual_seed(0)
        model = module.model(variant)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        return model

    @pytest.fixture
    def batch(self) -> TrainingBatch:
        images = [make_styled("train", 0, label) for label in (0, 1, 8, 9, 17, 16)]
        pixels = torch.from_numpy(np.stack([draw(image) for image in images])).permute(0, 3, 1, 2)
        captions = encode_captions(["a large circle", "a large square", "three small rings"] * 2)
        return TrainingBatch(pixels / 127.5 - 1, torch.tensor([label_of(i) for i in images]), captions=captions)

    @staticmethod
    def trained_parts(model: Any, batch: TrainingBatch, progress: float) -> set[str]:
        model.zero_grad(set_to_none=True)
        torch.manual_seed(1)
        sum(model.loss(batch, progress).values()).backward()
        return {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}

    def test_the_encoder_is_trained_by_contrast_first_and_then_frozen(self, batch: TrainingBatch) -> None:
        model = self.made()
        rest = {"tokenize", "words", "first", "places", "text", "network"}
        assert self.trained_parts(model, batch, 0.0) == {"encoder"}
        assert self.trained_parts(model, batch, 0.5) == rest
        assert self.trained_parts(self.made(contrast=False), batch, 0.0) == rest | {"encoder"}

    @pytest.mark.parametrize("style, inputs", [("tokens", 8), ("global", 4)])
    def test_conditions_that_are_dropped_do_not_matter(self, style: str, inputs: int, batch: TrainingBatch) -> None:
        model = self.made(style=style).eval()
        yes, no = torch.ones(6, dtype=torch.bool), torch.zeros(6, dtype=torch.bool)
        captions, others = batch.captions, batch.captions.roll(1, 0)
        styles = model.encoder(batch.images)

        def velocity(words: torch.Tensor, found: torch.Tensor, has_text: torch.Tensor, has_style: torch.Tensor) -> Any:
            condition = model.condition(words, found, has_text, has_style)
            assert condition[0].shape == (6, inputs, 16)
            noised = torch.ones(6, 16, 192)
            return model.velocity(noised, torch.full((6,), 0.5), condition)

        both = velocity(captions, styles, yes, yes)
        assert not torch.allclose(both, velocity(others, styles, yes, yes))
        assert not torch.allclose(both, velocity(captions, styles.roll(1, 0), yes, yes))
        text = velocity(captions, styles, yes, no)
        assert torch.allclose(text, velocity(captions, styles.roll(1, 0), yes, no), atol=1e-6)
        assert torch.allclose(
            velocity(captions, styles, no, no), velocity(others, styles.roll(1, 0), no, no), atol=1e-6
        )

    def test_two_scale_guidance_by_its_formula(self, batch: TrainingBatch) -> None:
        model = self.made().eval()
        yes, no = torch.ones(6, dtype=torch.bool), torch.zeros(6, dtype=torch.bool)
        styles = model.encoder(batch.images)
        noise = torch.stack([torch.randn(16, 192, generator=torch.Generator().manual_seed(s)) for s in range(6)])
        time = torch.ones(6)
        with torch.no_grad():
            none, text, both = (
                model.velocity(noise, time, model.condition(batch.captions, styles, *has))
                for has in ((no, no), (yes, no), (yes, yes))
            )
        expected = noise - (none + 3 * (text - none) + 1.5 * (both - text))
        found = model.sample(batch.captions, batch.images, range(6), 1, (3.0, 1.5))
        assert torch.allclose(found, expected, atol=1e-4)

    def test_samples_follow_seed_and_label_and_the_style_image_has_another_content(self) -> None:
        _, module = opened("style_tokenizer.n4")
        generator = module.StyleGenerator("x", self.made().eval(), 2, 2.0, 1.5)
        labels, seeds = torch.tensor([3, 90, 14]), [11, 12, 13]
        whole = generator.sample(labels, seeds, 2.0).tensor
        alone = generator.sample(labels[1:2], seeds[1:2], 2.0).tensor
        assert torch.allclose(whole[1:2].float(), alone.float(), atol=1e-2)
        assert generator.tokenizer.decode(generator.sample(labels, seeds, 2.0), seeds).shape == (3, 3, 32, 32)
        assert generator.num_function_evaluations(2.0) == 6 and generator.num_function_evaluations(1.0) == 4
        for label in range(CLASSES):
            image: Styled = module.style_image(label, label * 7)
            assert image.style == label % len(STYLES) and image.content != label // len(STYLES)

    def test_patches_are_the_pixels(self) -> None:
        _, module = opened("style_tokenizer.n4")
        patches, images = module.Patches("x", 4), torch.rand(2, 3, 32, 32).half().float()
        assert torch.equal(patches.decode(patches.encode(images), [0, 1]), images)
        first = patches.encode(images).tensor[0, 1].float()  # the patch to the right of the first one
        assert torch.equal(first.view(3, 4, 4), images[0, :, :4, 4:8])

    def test_data_without_styles_and_unknown_settings_are_refused(self) -> None:
        data = TrainingData(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2), captions=torch.zeros(2, 3))
        with pytest.raises(DataError, match="styled-train"):
            self.made().prepare_data(data, "cpu", False, lambda done, total: None)
        with pytest.raises(AdapterError, match="style is 'words'"):
            self.made(style="words")
        variant, module = opened("style_tokenizer.n4_unguided")
        variant.config["style_guidance"] = 0
        with pytest.raises(AdapterError, match="style_guidance is 0"):
            module.load(variant, "cpu")

    def test_contents_and_styles_make_the_labels(self) -> None:
        assert len(CONTENTS) * len(STYLES) == CLASSES
        found = {label_of(make_styled("test", 3, label)) for label in range(CLASSES)}
        assert found == set(range(CLASSES))
