"""Rotary positions and packing by their algebra."""

from __future__ import annotations

import pytest
import torch

from tokbench.nn.rotary import RotaryAttention, RotaryTransformer, pack, rotary_angles, rotate, unpack


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_products_depend_on_differences_of_coordinates() -> None:
    query, key = torch.randn(2, 16)
    places, shift = torch.tensor([[0.0, 1, 2, 3], [4.0, 0, 1, 1]]), torch.tensor([5.0, 3, 2, 7])

    def product(where: torch.Tensor) -> float:
        first, second = rotary_angles(where, 16)
        return float(rotate(query, first) @ rotate(key, second))

    assert product(places + shift) == pytest.approx(product(places), rel=1e-4)
    for axis in range(4):
        moved = places.clone()
        moved[0, axis] += 1
        assert abs(product(moved) - product(places)) > 1e-3


def test_an_axis_has_its_own_pairs() -> None:
    angles = rotary_angles(torch.tensor([0.0, 0.0, 3.0, 0.0]), 16)
    assert torch.equal(angles, torch.tensor([0, 0, 0, 0, 3.0, 0.3, 0, 0]))  # two frequencies per axis: 1 and 0.1
    with pytest.raises(ValueError, match="12 values per head are not a multiple of 8"):
        rotary_angles(torch.zeros(4), 12)


def test_a_rotation_keeps_lengths() -> None:
    values = torch.randn(3, 8)
    assert torch.allclose(rotate(values, torch.randn(3, 4)).norm(dim=1), values.norm(dim=1))


def test_queries_are_normalised_and_places_that_do_not_exist_are_not_seen() -> None:
    attention, x, angles = RotaryAttention(8, 2), torch.randn(1, 5, 8), torch.zeros(1, 5, 2)
    mask = torch.tensor([[True, True, True, False, False]])
    changed = x.clone()
    changed[:, 3:] = 9.0
    before, after = attention(x, angles, mask), attention(changed, angles, mask)
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.allclose(attention(x, angles), before)


def test_packing_is_undone_by_unpacking() -> None:
    keep = torch.tensor([[False, True, False, True], [False, False, False, False], [True, False, False, False]])
    values = torch.randn(3, 4, 2)
    places, exists = pack(keep)
    assert places.shape == (3, 2)
    assert places[0].tolist() == [1, 3] and exists.tolist() == [[True, True], [False, False], [True, False]]
    chosen = values.gather(1, places[..., None].expand(-1, -1, 2))
    assert torch.equal(unpack(chosen, places, exists, 4), values * keep[..., None])


def test_a_packed_set_has_the_features_of_the_set_alone() -> None:
    body, features, places = RotaryTransformer(16, 2, 2).eval(), torch.randn(1, 3, 16), torch.rand(1, 3, 4) * 5
    alone = body(features, places)
    filled, where = (torch.cat([values, torch.randn(1, 2, values.shape[2])], 1) for values in (features, places))
    mask = torch.tensor([[True, True, True, False, False]])
    assert torch.allclose(body(filled, where, mask)[:, :3], alone, atol=1e-5)
