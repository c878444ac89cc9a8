"""Segments of a sequence with codebooks of their own: quantization, lookup and perturbation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokbench.nn.perturb import CodePerturber
from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.quantizers.quantizer import nearest
from tokbench.nn.quantizers.segments import Segmented, SegmentVQ
from tokbench.nn.quantizers.simvq import SimVQ
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.tokenizers.tokens import Tokens

LENGTHS = [3, 5]


@pytest.fixture
def quantizer() -> SegmentVQ:
    torch.manual_seed(0)
    return SegmentVQ(LENGTHS, 16, 4, normalised=False, restart_after=2).eval()


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(1))


def test_each_segment_has_its_own_codes(quantizer: SegmentVQ, latents: Tensor) -> None:
    quantized = quantizer(latents)
    for part, piece, indices in zip(
        quantizer.parts, latents.split(LENGTHS, 1), quantized.indices.split(LENGTHS, 1), strict=True
    ):
        assert torch.equal(nearest(part.anchors(piece), part.table())[..., 0], indices)
    assert torch.equal(quantizer.lookup(quantized.indices), quantized.vectors)
    same = torch.zeros(1, 8, 1, dtype=torch.int64)
    vectors = quantizer.lookup(same)[0]
    assert torch.equal(vectors[0], vectors[2]) and torch.equal(vectors[3], vectors[7])
    assert not torch.equal(vectors[2], vectors[3])


def test_the_loss_is_the_mean_over_positions(quantizer: SegmentVQ, latents: Tensor) -> None:
    parts = [part(piece).loss for part, piece in quantizer.segments(latents)]
    assert float(quantizer(latents).loss) == pytest.approx(float((3 * parts[0] + 5 * parts[1]) / 8))


def test_another_number_of_positions_is_refused(quantizer: SegmentVQ) -> None:
    with pytest.raises(ValueError, match="segments of \\[3, 5\\] positions are not 7 positions"):
        quantizer(torch.randn(1, 7, 4))


@pytest.mark.parametrize("anchor", ["latent", "code"])
def test_perturbed_codes_are_near_in_their_own_segment(quantizer: SegmentVQ, latents: Tensor, anchor: str) -> None:
    def encode(images: Tensor) -> Tokens:
        return Tokens.from_indices(quantizer(latents).indices, 16)

    perturber = CodePerturber(encode, lambda images: latents, quantizer, anchor, "plain")  # type: ignore[arg-type]
    change = perturber.prepare(torch.zeros(2, 3, 8, 8), [0, 1], 3)
    own = quantizer(latents).indices
    assert torch.equal(change(0.0, 3).tensor, own)
    changed = change(1.0, 3).tensor
    assert not torch.equal(changed, own)
    start = 0
    for part, piece in quantizer.segments(latents):
        end = start + piece.shape[1]
        around = part.anchors(piece) if anchor == "latent" else part.lookup(own[:, start:end])[:, :, None]
        allowed = nearest(around, part.table(), 3)[:, :, 0]
        assert (changed[:, start:end] == allowed).any(-1).all()
        start = end


def test_the_first_positions_alone_have_vectors(quantizer: SegmentVQ, latents: Tensor) -> None:
    quantized = quantizer(latents)
    for count in (1, 3, 4, 8):
        assert torch.equal(quantizer.lookup(quantized.indices[:, :count]), quantized.vectors[:, :count])


def test_segments_need_quantizers_of_one_size(latents: Tensor) -> None:
    Segmented(LENGTHS, [SimVQ(8, 4), SimVQ(8, 4)])(latents)
    for wrong in ([SimVQ(8, 4), SimVQ(16, 4)], [SimVQ(16, 4), FSQ([4, 4])], [VectorQuantizer(8, 4)]):
        with pytest.raises(ValueError, match="the same D and K"):
            Segmented(LENGTHS, wrong)
