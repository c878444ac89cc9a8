"""int8 weights: their accuracy, their description of themselves, and damaged files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tokbench.errors import AdapterError
from tokbench.weights.compact import SUFFIX, compress, expand, is_int8
from tokbench.weights.shards import LARGEST, shard_paths, write_weights


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("shape", [(6, 40), (6, 3, 3, 3), (6, 5, 1)])
def test_each_channel_is_exact_up_to_half_a_step(shape: tuple[int, ...]) -> None:
    weights = random(*shape) * torch.logspace(-6, 3, 6).reshape(-1, *[1] * (len(shape) - 1))
    stored = compress({"w": weights})
    assert stored["w"].dtype == torch.int8 and stored["w"].shape == shape
    assert stored["w" + SUFFIX].dtype == torch.float32 and stored["w" + SUFFIX].shape == (6,)
    restored = expand(stored)
    assert restored.keys() == {"w"} and restored["w"].dtype == torch.float32
    error = (restored["w"] - weights).flatten(1).abs().amax(1)
    assert (error <= stored["w" + SUFFIX] * 0.50001).all()
    assert (error > stored["w" + SUFFIX] * 0.2).any()  # not stored exactly by another way
    largest = weights.flatten(1).abs().amax(1)
    assert torch.allclose(restored["w"].flatten(1).abs().amax(1), largest)
    assert (stored["w"].flatten(1).abs().amax(1) == 127).all()


def test_a_second_compression_changes_nothing() -> None:
    once = compress({"w": random(9, 50)})
    twice = compress(expand(once))
    assert torch.equal(once["w"], twice["w"])
    assert torch.allclose(once["w.scale"], twice["w.scale"])


def test_channels_of_zeros_stay_zero() -> None:
    weights = random(3, 20)
    weights[1] = 0
    restored = expand(compress({"w": weights}))["w"]
    assert (restored[1] == 0).all() and (restored[0] != 0).any()


def test_other_tensors_keep_their_kind() -> None:
    state = {
        "conv.weight": random(8, 4, 3, 3),
        "conv.bias": random(8),
        "bottleneck.codebook": random(16, 8),
        "positions": random(1, 64, 32),  # one channel
        "narrow": random(50, 4),  # int8 and the scales would take as many bytes
        "gate": torch.tensor(0.5),
        "count": torch.tensor([3, 2**40]),
        "flags": torch.tensor([True, False]),
    }
    stored = compress(state, float16={"bottleneck.codebook"})
    kinds = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in stored.items()}
    assert kinds == {
        "conv.weight": "int8",
        "conv.weight.scale": "float32",
        "conv.bias": "float16",
        "bottleneck.codebook": "float16",
        "positions": "float16",
        "narrow": "float16",
        "gate": "float16",
        "count": "int64",
        "flags": "bool",
    }
    restored = expand(stored)
    assert list(restored) == list(state)
    for name in state.keys() - {"conv.weight"}:
        half = state[name].half() if state[name].is_floating_point() else state[name]
        assert torch.equal(restored[name], half), name
    assert not is_int8(compress(state, float16=state.keys())) and is_int8(stored)


def test_float16_files_of_earlier_versions_are_read_unchanged() -> None:
    old = {"a.weight": random(4, 9).half(), "a.scale": random(4).half(), "n": torch.tensor(3)}
    new = expand(old)
    assert new.keys() == old.keys()
    assert all(torch.equal(new[name], value) for name, value in old.items())


def test_a_file_describes_itself_even_if_it_is_split(tmp_path: Path) -> None:
    """The scales of a tensor may be in another file than the tensor."""
    size = LARGEST - 65_536
    state = {"a": random(1024, size // 1024), "b": random(64, 640)}
    write_weights(compress(state), tmp_path / "x.safetensors")
    first, second = map(load_file, shard_paths(tmp_path / "x.safetensors"))
    assert first.keys() == {"a"} and second.keys() == {"a.scale", "b", "b.scale"}
    restored = expand(first | second)
    assert all(torch.allclose(restored[name], value, atol=0.03) for name, value in state.items())


def test_weights_of_any_precision_are_compressed_from_float32() -> None:
    weights = random(4, 30)
    for kind in (torch.float64, torch.bfloat16):
        restored = expand(compress({"w": weights.to(kind)}))["w"]
        assert torch.allclose(restored, weights, atol=0.04)


@pytest.mark.parametrize(
    "scale, message",
    [
        (None, "is int8 but has no scales"),
        (torch.ones(3), r"has shape \(4, 9\), which needs one floating-point scale for each row, but \(3,\)"),
        (torch.ones(4, 1), r"has shape \(4, 9\), which needs one .* for each row, but \(4, 1\)"),
        (torch.ones(()), r"has shape \(4, 9\), which needs one .* for each row, but \(\)"),
        (torch.ones(4, dtype=torch.int64), r"has shape .* needs one floating-point scale .* torch.int64"),
        (torch.tensor([1, 1, torch.nan, 1]), "has scales that are not finite and positive"),
        (torch.tensor([1, 1, torch.inf, 1]), "has scales that are not finite and positive"),
        (torch.tensor([1.0, 1, 0, 1]), "has scales that are not finite and positive"),
        (torch.tensor([1.0, 1, -1, 1]), "has scales that are not finite and positive"),
    ],
)
def test_damaged_scales_are_refused(scale: Tensor | None, message: str) -> None:
    stored = {"a.weight": torch.ones(4, 9, dtype=torch.int8)}
    if scale is not None:
        stored["a.weight.scale"] = scale
    with pytest.raises(AdapterError, match=f"x.y: a.weight {message}.*train the model again"):
        expand(stored, "x.y")


def test_an_int8_vector_is_refused() -> None:
    with pytest.raises(AdapterError, match="needs one floating-point scale for each row"):
        expand({"v": torch.ones(4, dtype=torch.int8), "v.scale": torch.ones(4)})


def test_states_that_could_not_be_read_back_are_refused() -> None:
    with pytest.raises(AdapterError, match="mask: int8 is the type of compressed weights"):
        compress({"mask": torch.ones(4, 4, dtype=torch.int8)})
    with pytest.raises(AdapterError, match=r"a\.scale: this is the name of the scales of a"):
        compress({"a": random(4, 9), "a.scale": random(4)})
    for bad in (torch.nan, torch.inf):
        with pytest.raises(AdapterError, match="w has values that are not finite"):
            compress({"w": torch.full((4, 9), bad)})
    with pytest.raises(AdapterError, match=r"v has values up to 7e\+04, but float16 ends at 65504"):
        compress({"v": torch.tensor([1.0, -70_000.0])})
    assert compress({"v": torch.tensor([-torch.inf])})["v"].isinf().all()  # a mask


def test_half_the_bytes_of_float16() -> None:
    state = nn.Sequential(nn.Linear(256, 256), nn.Conv2d(64, 64, 3)).state_dict()
    sizes = [
        sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
        for stored in (compress(state), compress(state, state.keys()))
    ]
    assert 0.5 < sizes[0] / sizes[1] < 0.52
