"""What rectok, uniflow, layton and vtp train besides reconstruction, on networks of tiny size."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from checkout import ROOT
from torch import Tensor

from tokbench.errors import DataError
from tokbench.nn.autoencoders import ConvAutoencoder
from tokbench.nn.priors.flow import Flow
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.semantic_vit import LayeredViT
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Shape
from tokbench.tokenizers.registry import adapter_files, open_variant
from tokbench.training.zoo import recipe_of

SHAPE = Shape(32, 8, 16, 2, 2)


def code(name: str) -> ModuleType:
    """The code of the folder of an adapter."""
    return open_variant(name, adapter_files(ROOT)[name])[1]


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Smooth random images (48, 3, 32, 32) in [-1, 1]."""
    coarse = torch.randn(48, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=32, mode="bicubic").mul(0.4).clamp(-1, 1)


def gradient(term: Tensor, *parameters: Tensor) -> float:
    """The largest absolute gradient of a term at parameters, 0 where it does not depend on them."""
    found = torch.autograd.grad(term, parameters, allow_unused=True, retain_graph=True)
    return max(0.0 if one is None else float(one.abs().max()) for one in found)


def test_rectok_does_not_encode_masked_patches(images: Tensor) -> None:
    torch.manual_seed(0)
    model = code("rectok.p8c64").RecTok(SHAPE, SHAPE, KL(4), 0.1, True, True, True)
    torch.nn.init.xavier_uniform_(model.encoder.head.weight)
    patches = torch.tensor([[0, 5, 6]])
    changed = images[:1].clone()
    changed[:, :, 24:, 24:] = 1.0  # patch 15
    assert torch.equal(model.latents_of(images[:1], patches), model.latents_of(changed, patches))
    every = torch.arange(16)[None]
    assert not torch.equal(model.latents_of(images[:1], every), model.latents_of(changed, every))
    assert torch.allclose(model.latents_of(images[:1], every), model.latents(images[:1]), atol=1e-5)


def test_rectok_adds_more_noise_to_more_values() -> None:
    torch.manual_seed(0)
    few, many = (code("rectok.p8c64").RecTok(SHAPE, SHAPE, KL(dim), 0.1, True, True, True) for dim in (4, 1024))
    low, high = few.noise_levels(4096), many.noise_levels(4096)
    assert float(low.min()) >= 0 and float(high.max()) <= 1
    assert float(low.mean()) < 0.35 and float(high.mean()) > 0.6  # shifts of 1/8 and 2


def test_rectok_trains_its_decoder_alone_at_the_end(images: Tensor) -> None:
    torch.manual_seed(0)
    model = code("rectok.p8c64").RecTok(SHAPE, SHAPE, KL(4), 0.1, True, True, True).train()
    model.perceptual = 0.0
    model.ready("cpu")
    model.start(TrainingBatch(images))
    torch.nn.init.xavier_uniform_(model.decoder.pixels.linear.weight)
    batch = TrainingBatch(images[:4], features=torch.randn(4, 16, 64))
    early, late = model.loss(batch, 0.1), model.loss(batch, 0.9)
    assert set(early) == {"pixels", "bottleneck", "semantic"} and set(late) == {"pixels"}
    encoder, decoder = model.encoder.head.weight, model.decoder.pixels.linear.weight
    assert gradient(early["semantic"], encoder) > 0 and gradient(early["pixels"], decoder) > 0
    assert gradient(late["pixels"], encoder) == 0 and gradient(late["pixels"], decoder) > 0


def test_uniflow_starts_as_pca_in_one_step_and_as_noisier_samples_in_several(images: Tensor) -> None:
    torch.manual_seed(0)
    model = code("uniflow.p8c16").UniFlow(SHAPE, 6, 1, "none", flow_blocks=1)
    model.start(TrainingBatch(images))
    model.eval()

    def error(steps: int) -> float:
        model.steps = steps
        with torch.inference_mode():
            vectors = model.squeeze(model.latents(images))[0]
            return float((model.pixels(vectors, range(len(images))) - images).square().mean())

    patches = torch.nn.functional.pixel_unshuffle(images, 8).permute(0, 2, 3, 1).flatten(0, 2).double()
    variances = torch.linalg.eigvalsh(patches.T.cov())
    assert error(1) == pytest.approx(float(variances[:-6].sum()) / 192, rel=0.02)
    assert error(10) > 1.5 * error(1)  # a sample has the error twice


def test_uniflow_distils_layers_that_drifted_more(images: Tensor) -> None:
    torch.manual_seed(0)
    teacher = LayeredViT(SHAPE)
    losses = {}
    for distillation in ("adaptive", "uniform", "none"):
        model = code("uniflow.p8c16").UniFlow(SHAPE, 6, 1, distillation, flow_blocks=1)
        model.start_from(teacher)
        same = model.distilled(teacher.layers(images[:4]), images[:4])
        assert not same if distillation == "none" else same["distillation"].item() == pytest.approx(0, abs=1e-5)
        first, last = teacher.layers(images[:4])
        losses[distillation] = model.distilled([first, -last], images[:4])
    uniform, adaptive = (losses[name]["distillation"].item() for name in ("uniform", "adaptive"))
    assert uniform == pytest.approx(1.0, abs=1e-4)  # distances 0 and 2
    assert adaptive == pytest.approx(2 * 2 * torch.e**4 / (1 + 2 * torch.e**4), abs=1e-4)


@pytest.fixture(scope="module")
def layton(images: Tensor) -> torch.nn.Module:
    """A small layton for images of 32 px before its training, in evaluation mode."""
    torch.manual_seed(0)
    around = ConvAutoencoder(KL(4), (16,), 8, linear=True)
    tokenizer = ConvAutoencoder(VectorQuantizer(16, 8, normalised=False), (16,), 4, linear=True)
    prior = Flow(LearnedTokenizer("kl", around), 32, 2, width=16, depth=2, heads=2)
    around.start(TrainingBatch(images))
    tokenizer.start(TrainingBatch(torch.nn.functional.avg_pool2d(images, 2)))
    model = code("layton.n64").Layton(tokenizer, prior, around, 1, True, True, 1).eval()
    model.start(TrainingBatch(images, tokens=base_latents(model, images)))
    return model


def base_latents(model: torch.nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.around.latents(images).flatten(1, 2).clone()


def test_layton_starts_from_a_regression_on_its_tokens(layton: torch.nn.Module, images: Tensor) -> None:
    model = layton
    batch = TrainingBatch(images, tokens=base_latents(model, images))
    with torch.inference_mode():
        vectors, target = model.squeeze(model.latents(images))[0], model.targets(batch)
        guess = model.linear(model.neighbours(vectors))
        assert float((guess - target).square().mean()) < 0.7 * float(target.var())
        noise, ones = torch.randn_like(target), torch.ones(len(images))
        frozen = noise - model.prior.network(
            noise, ones, model.prior.label[:1].expand(len(noise), 1, -1), torch.zeros(len(noise), 1, dtype=torch.bool)
        )
        assert torch.allclose(noise - model.velocity(noise, ones, vectors), frozen + guess, atol=1e-4)


def test_layton_trains_only_its_control_branch(layton: torch.nn.Module, images: Tensor) -> None:
    model = layton
    assert not any(name.startswith(("tokenizer", "prior", "autoencoder")) for name in model.state_dict())
    for part in model.bases.values():
        part.requires_grad_(False)
    batch = TrainingBatch(images[:4], tokens=base_latents(model, images[:4]))
    model.perceptual = 0.0
    early, late = model.loss(batch, 0.1), model.loss(batch, 0.9)
    assert set(early) == {"flow"} and set(late) == {"consistency", "pixels"}
    torch.nn.init.xavier_uniform_(model.prior.network.head.weight)  # an untrained flow ignores its features
    for term in (*model.loss(batch, 0.1).values(), *model.loss(batch, 0.9).values()):
        assert gradient(term, *model.control.out.parameters()) > 0


@pytest.fixture(scope="module")
def vtp(images: Tensor) -> torch.nn.Module:
    torch.manual_seed(0)
    model = code("vtp.p8c16").VTP(SHAPE, SHAPE, 4, 0.1, 0.1).train()
    model.perceptual = 0.0
    model.ready("cpu")
    model.start(TrainingBatch(images))
    return model


def test_vtp_trains_the_bottleneck_by_reconstruction_only(vtp: torch.nn.Module, images: Tensor) -> None:
    torch.nn.init.xavier_uniform_(vtp.decoder.pixels.linear.weight)
    words = torch.tensor([[2, 3, 0], [4, 0, 0], [2, 3, 0], [5, 6, 7]])
    terms = vtp.loss(TrainingBatch(images[:4], captions=words), 0.1)
    assert gradient(terms["pixels"], vtp.down.weight) > 0
    for name in ("contrast", "distillation"):
        assert gradient(terms[name], vtp.down.weight) == 0
        assert gradient(terms[name], vtp.encoder.patches.embed.weight) > 0
    assert not any(parameter.requires_grad for parameter in vtp.teacher.averaged.parameters())


def test_vtp_counts_equal_captions_as_pairs(vtp: torch.nn.Module) -> None:
    features, words = torch.eye(4, 16), torch.tensor([[2, 3], [2, 3], [2, 3], [2, 3]])
    loss = vtp.contrastive(features, words)
    assert float(loss.detach()) >= 0 and torch.isfinite(loss)
    same = vtp.contrastive(torch.ones(4, 16), words)
    assert float(same.detach()) == pytest.approx(torch.log(torch.tensor(4.0)).item(), abs=1e-4)


def test_vtp_needs_captions(vtp: torch.nn.Module, images: Tensor) -> None:
    with pytest.raises(DataError, match="captions, and this dataset has none"):
        vtp.loss(TrainingBatch(images[:4]), 0.1)


def test_vtp_encodes_smaller_crops_with_interpolated_positions(vtp: torch.nn.Module) -> None:
    assert vtp.encoder.positions(16).shape == (4, 16)
    assert torch.allclose(vtp.encoder.positions(16).mean(0), vtp.encoder.positions(32).mean(0), atol=1e-5)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ["vtp.p8c16", "vtp.p8c16_ae"])
def test_the_short_training_of_vtp_has_a_quarter_of_the_images(name: str, profile: str) -> None:
    whole, short = (
        recipe_of(open_variant(one, adapter_files(ROOT)[one])[0], profile, {}) for one in (name, f"{name}_short")
    )
    assert whole.images is not None and short.images == whole.images // 4


def test_the_teacher_of_vtp_follows(vtp: torch.nn.Module) -> None:
    teacher, student = vtp.teacher.averaged[0].cls, vtp.encoder.cls
    with torch.no_grad():
        student.add_(1.0)
        before = teacher.clone()
        vtp.teacher.follow(vtp.encoder, 0.0)
        assert torch.allclose(teacher - before, 0.01 * (student - before), atol=1e-6)
        before = teacher.clone()
        vtp.teacher.follow(vtp.encoder, 1.0)
        assert torch.equal(teacher, before)
