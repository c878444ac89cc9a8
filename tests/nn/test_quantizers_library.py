"""Quantizers against vector-quantize-pytorch: the same codebooks must give the same tokens and the same training."""

from __future__ import annotations

import pytest
import torch
import vector_quantize_pytorch as library
from torch import Tensor
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.quantizers.lfq import LFQ
from tokbench.nn.quantizers.quantizer import Gradient, rotation
from tokbench.nn.quantizers.residual import ResidualVQ
from tokbench.nn.quantizers.simvq import SimVQ
from tokbench.nn.quantizers.vq import VectorQuantizer


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(4, 50, 8, generator=torch.Generator().manual_seed(0))


def alike(ours: VectorQuantizer, theirs: library.VectorQuantize) -> None:
    """Gives the library's quantizer our codebook."""
    for name in ("embed", "embed_avg"):
        getattr(theirs._codebook, name).copy_(ours.table())


@pytest.mark.parametrize("normalised", [False, True])
def test_vq_chooses_the_same(latents: Tensor, normalised: bool) -> None:
    ours = VectorQuantizer(64, 8, normalised=normalised).eval()
    theirs = library.VectorQuantize(8, 64, use_cosine_sim=normalised).eval()
    with torch.no_grad():
        alike(ours, theirs)
        vectors, indices, _ = theirs(latents)
        mine = ours(latents)
    assert torch.equal(mine.indices[..., 0], indices)
    torch.testing.assert_close(mine.vectors, vectors, rtol=0, atol=1e-6)


@pytest.mark.parametrize("normalised", [False, True])
def test_running_means_move_alike(latents: Tensor, normalised: bool) -> None:
    ours = VectorQuantizer(16, 8, normalised=normalised, update="ema", decay=0.8, commitment=1.0)
    theirs = library.VectorQuantize(8, 16, use_cosine_sim=normalised, decay=0.8, rotation_trick=False)
    with torch.no_grad():
        if normalised:
            ours.codebook.copy_(ours.table()[0])
            ours.sums.copy_(ours.codebook)
        alike(ours, theirs)
    before = ours.table().clone()
    for step in range(5):
        batch = latents + 0.3 * step
        _, indices, loss = theirs(batch)
        mine = ours(batch)
        assert torch.equal(mine.indices[..., 0], indices)
        torch.testing.assert_close(mine.loss, loss.squeeze())
        torch.testing.assert_close(ours.table()[0], theirs.codebook, rtol=1e-4, atol=1e-5)
    assert (ours.table() - before).abs().amax() > 0.1


@pytest.mark.parametrize("gradient", ["straight-through", "rotation"])
def test_simvq_is_the_same(latents: Tensor, gradient: Gradient) -> None:
    ours = SimVQ(64, 8, gradient=gradient)
    theirs = library.SimVQ(8, 64, rotation_trick=gradient == "rotation")
    theirs.frozen_codebook.copy_(ours.base)
    theirs.code_transform.load_state_dict(ours.map.state_dict())
    upstream, found = torch.randn(latents.shape), []
    for vectors, indices, loss, inputs in (
        (*theirs(one := latents.clone().requires_grad_()), one),
        ((mine := ours(two := latents.clone().requires_grad_())).vectors, mine.indices[..., 0], mine.loss, two),
    ):
        grad = torch.autograd.grad((vectors * upstream).sum(), inputs, retain_graph=True)[0]
        found.append((indices, vectors, loss, grad))
    parameters = [theirs.code_transform.weight, ours.map.weight]
    pulls = [torch.autograd.grad(one[2], parameter)[0] for one, parameter in zip(found, parameters, strict=True)]
    assert torch.equal(found[0][0], found[1][0])
    for one, other in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pulls[1], pulls[0])


def test_rotation_has_the_same_gradient(latents: Tensor) -> None:
    vectors, upstream = 2 * torch.randn(latents.shape), torch.randn(latents.shape)
    latents.requires_grad_()
    grads = [
        torch.autograd.grad((turned * upstream).sum(), latents)[0]
        for turned in (rotate_to(latents, vectors), rotation(latents, vectors))
    ]
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [8, 8, 8, 5, 5, 5], [3, 4], [7]])
def test_fsq_is_the_same(levels: list[int]) -> None:
    ours, theirs = FSQ(levels), library.FSQ(levels)
    latents = 2 * torch.randn(4, 300, len(levels), requires_grad=True)
    mine, (vectors, indices) = ours(latents), theirs(latents)
    assert torch.equal(mine.indices[..., 0], indices.long())
    torch.testing.assert_close(mine.vectors, vectors, rtol=0, atol=1e-6)
    grads = [torch.autograd.grad(one.sum(), latents)[0] for one in (mine.vectors, vectors)]
    torch.testing.assert_close(*grads)
    some = torch.randint(ours.codebook_size, (1, 200))
    torch.testing.assert_close(ours.lookup(some[..., None]), theirs.indices_to_codes(some), rtol=0, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
def test_lfq_is_the_same(latents: Tensor, groups: int) -> None:
    bits = 8 // groups
    ours = LFQ(bits, groups)
    theirs = library.LFQ(
        codebook_size=2**bits, dim=8, num_codebooks=groups, entropy_loss_weight=0.1, commitment_loss_weight=0.25
    )
    latents = latents * 0.05  # so near 0 that the entropies are neither 0 nor full
    (vectors, indices, loss), parts = theirs(latents, return_loss_breakdown=True)
    mine = ours(latents)
    torch.testing.assert_close(mine.vectors, vectors, rtol=0, atol=1e-6)
    torch.testing.assert_close(mine.loss, loss, rtol=1e-2, atol=1e-3)  # theirs clamps chances at 1e-5
    assert 0.1 < parts.per_sample_entropy < parts.batch_entropy
    # Their first latent is the highest bit, ours the lowest.
    turned = sum(((mine.indices >> bit) & 1) << (bits - 1 - bit) for bit in range(bits))
    assert torch.equal(torch.as_tensor(turned).flatten(), indices.long().flatten())


def test_residual_chooses_the_same(latents: Tensor) -> None:
    ours = ResidualVQ(4, 32, 8).eval()
    theirs = library.ResidualVQ(dim=8, num_quantizers=4, codebook_size=32).eval()
    with torch.no_grad():
        for level, layer in zip(ours.levels, theirs.layers, strict=True):
            level.codebook.mul_(0.7)
            alike(level, layer)
        vectors, indices, _ = theirs(latents)
        mine = ours(latents)
    assert torch.equal(mine.indices, indices)
    torch.testing.assert_close(mine.vectors, vectors, rtol=0, atol=1e-5)
    dropped = indices.clone()
    dropped[..., 2:] = -1
    torch.testing.assert_close(ours.lookup(dropped), theirs.get_output_from_indices(dropped), rtol=0, atol=1e-6)
