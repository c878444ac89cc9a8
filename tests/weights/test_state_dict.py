"""Weight files into networks: only tensors are read, every name and shape must fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tokbench.errors import MissingWeights
from tokbench.weights.registry import LocalWeights, WeightFile
from tokbench.weights.state_dict import fold_batch_norm, load_strict, read_state


def make() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def found(path: Path) -> LocalWeights:
    return LocalWeights(path, WeightFile(path.name, "0" * 64, "the author"), "0" * 64)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_both_formats_load_and_freeze(tmp_path: Path, suffix: str) -> None:
    path, state = tmp_path / f"x.{suffix}", {key: value.half() for key, value in make().state_dict().items()}
    (torch.save if suffix == "pth" else save_file)(state, path)
    network = make()
    load_strict("net", network, read_state("net", found(path)), found(path))
    assert torch.equal(network[0].weight, state["0.weight"].float())
    assert network[0].weight.dtype == torch.float32
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_names_and_shapes_must_fit(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.touch()
    state = {key: value.float() for key, value in make().state_dict().items() if "num_batches" not in key}
    for changed, complaint in [
        ({key: value for key, value in state.items() if key != "0.bias"}, r"lacks 0\.bias"),
        (state | {"9.weight": torch.zeros(1)}, r"has unknown 9\.weight"),
        (state | {"0.bias": torch.zeros(1)}, r"has another shape in 0\.bias"),
    ]:
        with pytest.raises(MissingWeights, match=rf"net: .*x\.safetensors {complaint}.*the author"):
            load_strict("net", make(), changed, found(path))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"0.weight": Evil()}, tmp_path / "x.pth")
    with pytest.raises(MissingWeights, match="not a readable state dict"):
        read_state("net", found(tmp_path / "x.pth"))
    assert not (tmp_path / "ran").exists()


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "x.pth")
    with pytest.raises(MissingWeights, match="not a plain state dict"):
        read_state("net", found(tmp_path / "x.pth"))
    (tmp_path / "y.safetensors").write_bytes(b"damaged")
    with pytest.raises(MissingWeights, match="not a readable state dict"):
        read_state("net", found(tmp_path / "y.safetensors"))


def test_a_folded_batch_norm_computes_the_same() -> None:
    network = make().eval()
    for tensor in (network[1].weight, network[1].bias, network[1].running_mean, network[1].running_var):
        tensor.data = torch.rand(4) + 0.5
    images = torch.rand(2, 3, 9, 9)
    expected = network(images)
    fold_batch_norm(network[0], network[1])
    assert torch.allclose(network[0](images), expected, atol=1e-5)
