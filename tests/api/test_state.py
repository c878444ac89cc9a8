"""After `tokbench.evaluate`, models and process are as they were before."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tokbench
from tokbench.api.state import preserved
from tokbench.errors import AdapterError

FAST = {"metrics": ["psnr"], "progress": False}
IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Has all that an evaluation could change: modes, buffers, gradients, noise, and values that it caches."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.frozen = nn.Conv2d(4, 4, 1).eval().requires_grad_(False)
        self.decoder = nn.ConvTranspose2d(4, 3, 4, 4)
        self.register_buffer("used", torch.zeros(4))
        self.fails, self.cached, self.modes = fails, None, list[bool]()

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        self.modes.append(any(module.training for module in self.modules()) or torch.is_grad_enabled())
        random.random()
        np.random.rand()
        latents = self.frozen(self.encoder(images))
        self.used = self.used + latents.mean()
        if self.cached is None:
            self.cached = torch.arange(4.0)[:, None, None] / 100
        return latents + self.cached + torch.randn_like(latents) * 0.1

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        if self.fails:
            raise RuntimeError("broken")
        return self.decoder(latents) + torch.rand(1) * 0.1


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "modes": [module.training for module in model.modules()],
        "parameters": [(id(one), one.data_ptr(), one.requires_grad, one.clone()) for one in model.parameters()],
        "buffers": [(id(one), one.clone()) for one in model.buffers()],
        "gradients": [None if one.grad is None else (id(one.grad), one.grad.clone()) for one in model.parameters()],
        "python": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],  # the position in the sequence counts too
        "torch": torch.get_rng_state(),
        "settings": (
            torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_float32_matmul_precision(),
            torch.is_autocast_enabled("cpu"), str(torch.get_default_device()),
        ),
    }  # fmt: skip


def trained() -> Network:
    model = Network()
    loss = model.decode(model.encode(IMAGES)).square().mean()
    loss.backward()
    return model


def assert_same(before: Any, after: Any) -> None:
    torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("fails", [False, True])
def test_state_is_restored(fails: bool) -> None:
    model = trained()
    model.modes.clear()
    model.fails = fails
    torch.set_float32_matmul_precision("high")
    try:
        before = snapshot(model)
        if fails:
            with pytest.raises(AdapterError, match="broken"):
                tokbench.evaluate(model, IMAGES, **FAST)
        else:
            tokbench.evaluate(model, IMAGES, **FAST)
        assert model.modes and not any(model.modes)  # it ran in eval mode, without gradients
        after = snapshot(model)
        for key in ("python", "numpy", "settings", "modes"):
            assert after[key] == before[key], key
        for key in ("parameters", "buffers", "gradients", "torch"):
            assert_same(before[key], after[key])
    finally:
        torch.set_float32_matmul_precision("highest")
    model.fails = False
    model.decode(model.encode(IMAGES)).square().mean().backward()  # nothing that it cached hinders training


def test_a_model_that_caches_during_evaluation_can_be_trained() -> None:
    model = Network()
    tokbench.evaluate(model, IMAGES, **FAST)
    assert model.cached is not None
    scaled = model.cached * nn.Parameter(torch.ones(1))
    scaled.sum().backward()  # would raise for a tensor that was made in inference mode


class Own(tokbench.Tokenizer):
    """The network as a tokenizer with a spec."""

    spec = tokbench.TokenizerSpec("own", "continuous", range=(-1.0, 1.0), downsample=4)

    def __init__(self, module: Network) -> None:
        self.module = module

    def encode(self, images: torch.Tensor) -> tokbench.Tokens:
        return tokbench.Tokens.from_latents(self.module.encode(images), 16)

    def decode(self, tokens: tokbench.Tokens, seeds: list[int]) -> torch.Tensor:
        return self.module.decode(tokens.tensor.float())


def test_a_tokenizer_around_a_network_in_training() -> None:
    model = trained()
    model.cached = None
    before = snapshot(model)
    result = tokbench.evaluate(Own(model), IMAGES, **FAST)
    assert result.provenance["adapter"]["source"].endswith("test_state.Own")
    assert result.provenance["adapter"]["modules"]  # with a hash of this file, which may change
    after = snapshot(model)
    for key in ("parameters", "buffers", "gradients", "torch"):
        assert_same(before[key], after[key])
    assert after["modes"] == before["modes"]
    model.decode(model.encode(IMAGES)).square().mean().backward()
    (model.cached * nn.Parameter(torch.ones(1))).sum().backward()


def test_the_caller_settings_change_no_number() -> None:
    expected = tokbench.evaluate(trained_once := trained(), IMAGES, **FAST)["psnr"]
    assert tokbench.evaluate(trained_once, IMAGES, **FAST)["psnr"] == expected  # its noise follows from the seed
    assert tokbench.evaluate(trained_once, IMAGES, seed=1, **FAST)["psnr"].value != expected.value
    torch.manual_seed(9)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert tokbench.evaluate(trained_once, IMAGES, **FAST)["psnr"] == expected


def test_default_dtype_and_device_are_the_callers_within_its_model() -> None:
    found = []

    def model(images: torch.Tensor) -> torch.Tensor:
        found.append((torch.zeros(1).dtype, torch.zeros(1).device.type))
        return images

    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        tokbench.evaluate(model, IMAGES, **FAST)
        assert (torch.get_default_dtype(), torch.get_default_device().type) == (torch.float64, "meta")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert set(found) == {(torch.float64, "meta")}


def test_moved_parameters_come_back() -> None:
    model = trained()
    before, names = snapshot(model), dict(model.named_parameters())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with preserved([model], "meta"):
        model.to("meta")
        assert {one.device.type for one in (*model.parameters(), *model.buffers())} == {"meta"}
    after = snapshot(model)
    for key in ("parameters", "buffers", "gradients"):
        assert_same(before[key], after[key])
    assert all(one is names[name] for name, one in model.named_parameters())
    optimizer.step()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: nn.DataParallel(model),
        lambda model: model.whole,
        lambda model: SimpleNamespace(encode=lambda x: model.encode(x), decode=lambda x: model.decode(x), net=model),
        lambda model: SimpleNamespace(encode=model.encode, decode=model.decode),
    ],
    ids=["DataParallel", "bound method", "attribute", "bound methods"],
)
def test_networks_inside_other_objects_are_found(wrap) -> None:
    class Whole(Network):
        def whole(self, images: torch.Tensor) -> torch.Tensor:
            return self.decode(self.encode(images))

    model = Whole()
    before = snapshot(model)
    result = tokbench.evaluate(wrap(model), IMAGES, **FAST)
    assert not any(model.modes)
    assert "parameters_sha256" in result.provenance["adapter"]
    after = snapshot(model)
    assert after["modes"] == before["modes"]
    assert_same(before["buffers"], after["buffers"])


def test_half_precision_parameters() -> None:
    result = tokbench.evaluate(Network().to(torch.bfloat16), IMAGES, **FAST)
    assert result.provenance["adapter"]["dtype"] == "bfloat16"
