"""Linear paths that are fitted before a training: they are PCA, and k-means of PCA, of the images they saw."""

from __future__ import annotations

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from tokbench.nn.autoencoders import ConvAutoencoder, GridAutoencoder, QueryAutoencoder
from tokbench.nn.quantizers.bits import BernoulliBits
from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.quantizers.kl import KL
from tokbench.nn.quantizers.lfq import LFQ
from tokbench.nn.quantizers.product import ProductVQ
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.shortcut import ImageShortcut, PatchShortcut, balanced
from tokbench.nn.tokenizer import BottleneckAutoencoder
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Shape


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Smooth random images (160, 3, 32, 32) in about [-1, 1]."""
    coarse = torch.randn(160, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, size=32, mode="bicubic").mul(0.4).clamp(-1, 1)


def error(model: BottleneckAutoencoder, images: Tensor) -> float:
    model.eval()
    with torch.inference_mode():
        return float((model.pixels(model.squeeze(model.latents(images))[0]) - images).square().mean())


def started(model: BottleneckAutoencoder, images: Tensor) -> BottleneckAutoencoder:
    torch.manual_seed(0)
    model.train().start(TrainingBatch(images))
    assert model.bottleneck.training
    return model


def test_a_kl_autoencoder_starts_as_pca_of_patches(images: Tensor) -> None:
    model = started(ConvAutoencoder(KL(6), (16,), 8, linear=True), images)
    patches = torch.nn.functional.pixel_unshuffle(images, 8).permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    pca = PCA(6).fit(patches)
    expected = ((pca.inverse_transform(pca.transform(patches)) - patches) ** 2).mean()
    assert error(model, images) == pytest.approx(expected, rel=1e-3)
    latents = model.latents(images).flatten(0, 2)
    assert torch.allclose(latents[:, :6].var(0), torch.ones(6), atol=1e-2)  # means; the log-variances follow
    assert (latents[:, 6:] == -6.0).all()


@pytest.mark.parametrize(
    "bottleneck",
    [VectorQuantizer(64, 8, normalised=False), ProductVQ(2, 32, 8, normalised=False), FSQ([5, 5, 5]), LFQ(4, 2)],
)
def test_patches_start_better_than_their_mean(bottleneck: Quantizer, images: Tensor) -> None:
    model = started(GridAutoencoder(Shape(32, 8, 32, 1), Shape(32, 8, 32, 1), bottleneck, linear=True), images)
    patches = torch.nn.functional.pixel_unshuffle(images, 8).permute(0, 2, 3, 1).flatten(0, 2)
    assert error(model, images) < 0.7 * float((patches - patches.mean(0)).square().mean())


def test_a_vector_quantizer_starts_as_k_means_of_pca(images: Tensor) -> None:
    """With as many values as directions of a patch, the error is that of k-means on the patches themselves."""
    quantizer = VectorQuantizer(64, 192, normalised=False)
    model = started(ConvAutoencoder(quantizer, (16,), 8, linear=True), images)
    patches = torch.nn.functional.pixel_unshuffle(images, 8).permute(0, 2, 3, 1).flatten(0, 2)
    used = quantizer(model.latents(images).flatten(1, 2)).indices.flatten()
    means = torch.stack([patches[used == code].mean(0) if (used == code).any() else patches[0] for code in range(64)])
    assert len(used.unique()) == 64
    assert error(model, images) == pytest.approx(float((patches - means[used]).square().mean()), rel=0.02)


@pytest.mark.parametrize("bottleneck", [VectorQuantizer(64, 6, normalised=False), BernoulliBits(6, 32), KL(6)])
def test_rows_of_tokens_start_from_pca_of_small_images(bottleneck: Quantizer | KL, images: Tensor) -> None:
    model = started(QueryAutoencoder(Shape(32, 8, 32, 1), 4, bottleneck, linear=True), images)
    assert model.latents(images).shape[:2] == (160, 4)
    assert error(model, images) < 0.85 * float((images - images.mean(0)).square().mean())


def test_fewer_tokens_give_a_coarser_image(images: Tensor) -> None:
    shortcut = ImageShortcut(KL(6), 4, 32)
    shortcut.fit(images, KL(6))
    vectors = shortcut.latents(images)[..., :6]
    errors = [float((shortcut.pixels(vectors[:, :kept]) - images).square().mean().detach()) for kept in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 1.5 * errors[-1]


def test_networks_learn_from_the_first_step_though_their_last_layers_are_zero(images: Tensor) -> None:
    model = started(ConvAutoencoder(VectorQuantizer(64, 8, normalised=False), (16,), 8, linear=True), images).train()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(2):
        optimiser.zero_grad()
        loss = (model.pixels(model.squeeze(model.latents(images))[0]) - images).square().mean()
        loss.backward()
        optimiser.step()
    assert all(float(head.weight.detach().abs().sum()) > 0 for head in (model.encoder.head[-1], model.decoder.head[-1]))
    assert float(model.encoder.body[1].weight.grad.abs().sum()) > 0


def test_blocks_of_components_are_balanced() -> None:
    variances = torch.tensor([64.0, 32, 16, 8, 4, 2, 1, 1])
    order = balanced(variances, 2)
    assert sorted(order.tolist()) == list(range(8))
    products = variances[order].log().unflatten(0, (2, 4)).sum(1)
    assert float((products[0] - products[1]).abs()) < 1.0
    assert balanced(variances, 8).tolist() == list(range(8))


def test_positions_of_patches_are_those_of_the_networks(images: Tensor) -> None:
    """Patches are cut in row-major order and put back where they were."""
    for grid in (True, False):
        shortcut = PatchShortcut(KL(4), 8, grid)
        assert torch.equal(shortcut.paste(shortcut.cut(images)), images)


def test_a_fit_to_few_images_does_not_amplify_what_they_lack(images: Tensor) -> None:
    shape = Shape(size=32, patch=8, width=16, depth=1, heads=2)
    model = started(QueryAutoencoder(shape, 4, KL(8), linear=True), images[:4]).eval()
    with torch.inference_mode():
        assert model.pixels(model.squeeze(model.latents(images[4:]))[0]).abs().max() < 3
