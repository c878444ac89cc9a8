"""The choice between int8 and float16, which is measured."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tokbench.errors import AdapterError
from tokbench.weights.compact import is_int8
from tokbench.weights.storage import (
    MAX_PSNR_LOSS,
    StorageCheck,
    largest_loss_increase,
    loss_check,
    psnr_check,
    stored_weights,
)


class Net(nn.Module):
    """A layer, a codebook, a buffer, and parts that are not stored."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.recoveries = nn.Linear(32, 8), nn.Linear(32, 8)
        self.bottleneck = nn.ParameterDict({"codebook": torch.randn(16, 12)})
        self.register_buffer("statistics", torch.randn(16, 12))


def scripted(*values: float, seen: list[Tensor] | None = None, net: Net | None = None) -> StorageCheck:
    """A check that returns these values in turn."""
    left = list(values)

    def evaluate() -> float:
        if seen is not None and net is not None:
            assert not net.training and not torch.is_grad_enabled()
            seen.append(net.layer.weight.detach().clone())
        return left.pop(0)

    return StorageCheck(evaluate, lambda before: 0.02, "dB PSNR", 7)


def test_int8_if_it_loses_less_than_the_limit() -> None:
    state, facts = stored_weights(Net(), (), scripted(-20.0, -19.981))
    assert facts == {"dtype": "int8", "int8_loss": 0.019, "limit": 0.02, "unit": "dB PSNR", "images": 7}
    assert {name for name, value in state.items() if value.dtype == torch.int8} == {"layer.weight", "recoveries.weight"}
    assert state["bottleneck.codebook"].dtype == state["statistics"].dtype == torch.float16


@pytest.mark.parametrize("after, loss", [(-19.979, 0.021), (-15.0, 5.0), (math.nan, None), (math.inf, None)])
def test_float16_if_it_loses_more(after: float, loss: float | None) -> None:
    state, facts = stored_weights(Net(), (), scripted(-20.0, after))
    assert (facts["dtype"], facts["int8_loss"]) == ("float16", loss)
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert torch.equal(state["layer.weight"], Net().layer.weight.half())


def test_all_checks_must_pass_and_the_closest_to_its_limit_is_recorded() -> None:
    loss = StorageCheck(scripted(1.0, 1.1).evaluate, lambda before: 0.05, "training loss", 3)
    _, facts = stored_weights(Net(), (), scripted(-20.0, -19.981), loss)
    assert facts == {"dtype": "float16", "int8_loss": 0.1, "limit": 0.05, "unit": "training loss", "images": 3}
    loss = StorageCheck(scripted(1.0, 1.001).evaluate, lambda before: 0.05, "training loss", 3)
    _, facts = stored_weights(Net(), (), scripted(-20.0, -19.981), loss)
    assert (facts["dtype"], facts["unit"]) == ("int8", "dB PSNR")


def test_the_second_measurement_sees_the_int8_weights_and_the_model_keeps_its_own() -> None:
    net = Net().train()
    seen: list[Tensor] = []
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state, _ = stored_weights(net, (), scripted(1.0, 1.0, seen=seen, net=net))
    assert torch.equal(seen[0], before["layer.weight"])
    expected = state["layer.weight"].float() * state["layer.weight.scale"][:, None]
    assert torch.equal(seen[1], expected) and not torch.equal(seen[1], seen[0])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training and net.layer.training and net.layer.weight.requires_grad


def test_the_model_keeps_its_weights_if_the_measurement_fails() -> None:
    net = Net()

    def evaluate(calls: list[int] = []) -> float:  # noqa: B006
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return 0.0

    with pytest.raises(RuntimeError, match="out of memory"):
        stored_weights(net, (), StorageCheck(evaluate, lambda before: 1.0, "training loss", 1))
    assert torch.equal(net.layer.weight, Net().layer.weight) and net.training


def test_parts_that_are_left_out_are_neither_stored_nor_changed() -> None:
    net, seen = Net(), []

    def evaluate() -> float:
        seen.append(net.recoveries.weight.detach().clone())
        return 0.0

    state, _ = stored_weights(net, ("recoveries.",), StorageCheck(evaluate, lambda before: 1.0, "training loss", 1))
    assert not [name for name in state if name.startswith("recoveries.")]
    assert len(seen) == 2 and torch.equal(*seen)


def test_without_a_check_or_without_large_tensors_weights_are_float16() -> None:
    assert stored_weights(Net())[1] == {"dtype": "float16"}
    assert not is_int8(stored_weights(Net())[0])

    def never() -> float:
        raise AssertionError

    assert stored_weights(nn.LayerNorm(8), (), StorageCheck(never, lambda before: 1.0, "", 1))[1] == {
        "dtype": "float16"
    }


def test_trained_weights_that_cannot_be_measured_are_refused() -> None:
    with pytest.raises(AdapterError, match="found nan dB PSNR for the trained weights"):
        stored_weights(Net(), (), scripted(math.nan, 1.0))


def test_both_measurements_draw_the_same_random_numbers_and_leave_the_generator_alone() -> None:
    drawn: list[Tensor] = []

    def evaluate() -> float:
        drawn.append(torch.rand(4))
        return 0.0

    net = Net()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    stored_weights(net, (), StorageCheck(evaluate, lambda before: 1.0, "training loss", 1))
    assert torch.equal(*drawn)
    assert torch.equal(torch.rand(3), expected)


def test_psnr_is_the_mean_over_images_on_the_scale_of_0_to_1() -> None:
    images = torch.zeros(3, 3, 4, 4)
    offsets = torch.tensor([0.2, 0.02, 3.0])[:, None, None, None]  # 20 dB, 40 dB; 3 is clipped to 1, which is 6.02 dB
    check = psnr_check(lambda batch: batch + offsets, [(images, images)] * 2)
    assert check.evaluate() == pytest.approx(-(20 + 40 + 6.0206) / 3, abs=1e-4)
    assert check.examples == 6 and check.unit == "dB PSNR"
    assert check.limit(-20.0) == MAX_PSNR_LOSS == 0.02
    assert math.isfinite(psnr_check(lambda batch: batch, [(images, images)]).evaluate())


def test_loss_is_the_sum_of_its_terms_averaged_over_batches() -> None:
    terms: Callable[[float], dict[str, Tensor]] = lambda batch: {  # noqa: E731
        "a": torch.tensor(batch),
        "b": torch.tensor(1.0),
    }
    check = loss_check(terms, [1.0, 3.0], 20)
    assert check.evaluate() == 3.0 and check.examples == 20


def test_limits_of_losses_correspond_to_the_limit_of_psnr() -> None:
    error = 0.01  # relative for a squared error: 0.02 dB more
    assert 10 * math.log10(1 + largest_loss_increase(error) / error) == pytest.approx(0.02, rel=0.01)
    # Absolute for a cross-entropy: the nats by which a Gaussian's log-likelihood decreases with 0.02 dB.
    gaussian = 0.5 * math.log(10 ** (0.02 / 10))
    assert largest_loss_increase(5.0) == largest_loss_increase(0.5) == pytest.approx(gaussian)
    assert largest_loss_increase(-0.1) > 0 and largest_loss_increase(0.0) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_models_on_a_gpu_are_stored_as_on_the_cpu() -> None:
    states = []
    for device in ("cpu", "cuda"):
        net, inputs = Net().to(device), torch.ones(4, 32, device=device)

        def evaluate(net: Net = net, inputs: Tensor = inputs) -> float:
            return float(net.layer(inputs).square().mean() + torch.rand((), device=inputs.device))

        state, facts = stored_weights(net, (), StorageCheck(evaluate, lambda before: 1.0, "training loss", 4))
        assert facts["dtype"] == "int8" and abs(facts["int8_loss"]) < 0.1
        assert net.layer.weight.device.type == device
        states.append(state)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
