"""Attention between channels: the selection of each row, the mix of sparsities, and dense attention."""

from __future__ import annotations

import pytest
import torch

from tokbench.nn.channel_attention import TopKChannelAttention, top_k_softmax


def parts(heads: int = 2, channels: int = 6, count: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, heads, channels, 20, generator=generator) for _ in range(3)]


def test_each_row_keeps_its_largest_scores() -> None:
    scores = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = top_k_softmax(scores, 3)
    for row, chosen in zip(scores.reshape(-1, 8), found.reshape(-1, 8), strict=True):
        kept = sorted(range(8), key=lambda place: -float(row[place]))[:3]
        expected = torch.zeros(8)
        expected[kept] = row[kept].softmax(0)
        torch.testing.assert_close(chosen, expected)
    assert torch.equal(top_k_softmax(scores, 8), scores.softmax(-1))


def test_one_share_of_all_is_dense_attention() -> None:
    query, key, value = parts()
    layer = TopKChannelAttention(12, 2, [1.0])
    normed = [torch.nn.functional.normalize(x, dim=-1) for x in (query, key)]
    expected = 0.8 * (normed[0] @ normed[1].transpose(-2, -1)).softmax(-1) @ value
    torch.testing.assert_close(layer.attend(query, key, value), expected)


def test_the_sum_of_maps_gives_the_sum_of_products() -> None:
    query, key, value = parts()
    layer = TopKChannelAttention(12, 2, [1 / 2, 2 / 3])
    torch.nn.init.normal_(layer.mix)
    single = []
    for share, weight in zip([1 / 2, 2 / 3], layer.mix, strict=True):
        one = TopKChannelAttention(12, 2, [share])
        one.mix.data[:] = weight
        single.append(one.attend(query, key, value))
    assert not torch.allclose(*single)
    torch.testing.assert_close(layer.attend(query, key, value), sum(single))


def test_images_do_not_influence_each_other_and_wrong_shares_are_refused() -> None:
    layer = TopKChannelAttention(12, 2).eval()
    x = torch.randn(3, 12, 8, 10)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), torch.cat([layer(one[None]) for one in x]))
    with pytest.raises(ValueError, match="shares must be in"):
        TopKChannelAttention(12, 2, [0.0])
    with pytest.raises(ValueError, match="heads must divide the width"):
        TopKChannelAttention(12, 5)
