"""Backends: each gives the same features in float32, and bfloat16 only where it was asked for."""

from __future__ import annotations

import importlib.util
import itertools
from typing import Any

import pytest
import torch
from torch import nn

from tokbench.errors import UsageError
from tokbench.extractors.backend import Backend
from tokbench.extractors.pool import ExtractorPool

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


class Small(nn.Module):
    """Convolutions wide enough for a CPU's bfloat16 units, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.first(x).relu()
        return x.mean((2, 3)), self.second(x).relu().mean((2, 3))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def expected(images: torch.Tensor) -> list[torch.Tensor]:
    with torch.inference_mode():
        return [output.clone() for output in Small().double()(images.double())]


def gap(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    return max(float((a.double() - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("library", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_float32_is_float32(library: str, images, expected) -> None:
    """OpenVINO picks bfloat16 by itself on CPUs that have it, and must not."""
    found = Backend(library=library).compile(Small().eval(), images)(images)
    assert all(output.dtype == torch.float32 for output in found)
    assert gap(found, expected) < 2e-6


@pytest.mark.parametrize("library", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_bfloat16_is_bfloat16(library: str, images, expected) -> None:
    try:
        backend = Backend(precision="bfloat16", library=library)
    except UsageError as error:
        assert library == "openvino"
        pytest.skip(str(error))
    found = backend.compile(Small().eval(), images)(images)
    assert all(output.dtype == torch.float32 for output in found)
    assert 1e-5 < gap(found, expected) < 2e-2


@needs_openvino
def test_a_processor_without_units_for_bfloat16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO would compute in float32 without a warning."""
    monkeypatch.setattr("tokbench.extractors.backend._openvino_capabilities", lambda: ("FP32", "INT8"))
    with pytest.raises(UsageError, match=r"this CPU does not support bfloat16.*TOKBENCH_BACKEND=torch"):
        Backend(precision="bfloat16", library="openvino")
    Backend(precision="float32", library="openvino")
    monkeypatch.setattr("tokbench.extractors.backend._openvino_capabilities", lambda: ("FP32", "BF16"))
    Backend(precision="bfloat16", library="openvino")


@pytest.mark.slow
@needs_openvino
@pytest.mark.parametrize("name", ["efficientnet-lite0"])
def test_a_network_is_the_same_in_both(name: str, photos: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    features = []
    for library in ("torch", "openvino"):
        monkeypatch.setenv("TOKBENCH_BACKEND", library)
        network = ExtractorPool().get(name)
        network.request_layer("pooled")
        features.append(network(photos)["pooled"])
        assert network.describe()["backend"].startswith(library)
    assert gap([features[1]], [features[0].double()]) < 1e-5


def test_precision_and_backend_are_recorded_and_separate_features(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ExtractorPool().get("efficientnet-lite0")
    monkeypatch.setattr("tokbench.extractors.backend._openvino_capabilities", lambda: ("FP32", "BF16"))
    half = ExtractorPool(precision="bfloat16").get("efficientnet-lite0")
    assert half.describe()["precision"] == "bfloat16"
    assert "precision" not in whole.describe()
    assert whole.key != half.key


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="torch or openvino"):
        Backend(library="tensorrt")
    with pytest.raises(UsageError, match="device cpu"):
        Backend("cuda", library="openvino")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert Backend().library == "torch"
    with pytest.raises(UsageError, match="installed"):
        Backend(library="openvino")


@needs_openvino
def test_an_interruption_waits_for_the_requests_that_run(images, monkeypatch: pytest.MonkeyPatch) -> None:
    """They read and write arrays that are freed after it; such a process crashed."""
    import openvino

    running: set[int] = set()
    create = openvino.CompiledModel.create_infer_request

    class Request:
        def __init__(self, request: Any, number: int) -> None:
            self.request, self.number = request, number

        def __getattr__(self, name: str) -> Any:
            return getattr(self.request, name)

        def set_input_tensor(self, tensor: Any) -> None:
            if self.number == 2:
                raise KeyboardInterrupt
            self.request.set_input_tensor(tensor)

        def start_async(self) -> None:
            running.add(self.number)
            started.append(self.number)
            self.request.start_async()

        def wait(self) -> None:
            self.request.wait()
            running.discard(self.number)

    started: list[int] = []
    numbers = itertools.count()
    monkeypatch.setattr(
        openvino.CompiledModel, "create_infer_request", lambda self: Request(create(self), next(numbers))
    )
    run = Backend(library="openvino").compile(Small().eval(), images)
    with pytest.raises(KeyboardInterrupt):
        run(images)
    assert started == [0, 1] and not running
