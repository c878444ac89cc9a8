"""What runs a frozen network: PyTorch, or OpenVINO on a CPU where it is installed (`pip install 'tokbench[fast]'`)."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tokbench.errors import UsageError

Precision = Literal["float32", "bfloat16"]

Compiled = Callable[[Tensor], list[Tensor]]
"""From inputs (k B, ...), where it was compiled for (B, ...), to float32 outputs (k B, ...) on the device."""

_PARTS = 4
"""Requests into which OpenVINO's batch is cut, each with its share of the threads: that suits the caches better."""


@cache
def _abilities() -> tuple[str, ...]:
    """What OpenVINO can compute in on this CPU: `FP32`, `BF16` and others."""
    import openvino

    return tuple(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


class Backend:
    """The fastest library that is installed and exact in float32, for one device and one precision.

    On a CPU OpenVINO, else PyTorch; on other devices PyTorch. TOKBENCH_BACKEND=torch or =openvino chooses. The
    precision is that of the network's inside: OpenVINO would take bfloat16 by itself on CPUs that have it, so it is
    always told.
    """

    def __init__(self, device: str = "cpu", precision: Precision = "float32", library: str | None = None) -> None:
        """Raises UsageError for a library that is not there or cannot use the device or the precision."""
        self.device, self.precision = device, precision
        library = library or os.environ.get("TOKBENCH_BACKEND") or None
        able = device == "cpu" and importlib.util.find_spec("openvino") is not None
        if library not in (None, "torch", "openvino"):
            raise UsageError(f"TOKBENCH_BACKEND is '{library}'; it can be torch or openvino")
        if library == "openvino" and not able:
            raise UsageError("openvino needs the device cpu, and to be installed: pip install 'tokbench[fast]'")
        self.library = library or ("openvino" if able else "torch")
        if self.library == "openvino" and precision == "bfloat16" and "BF16" not in _abilities():
            raise UsageError(
                "this CPU has no units for bfloat16, and OpenVINO would compute in float32 instead; leave out "
                "--precision bfloat16, or set TOKBENCH_BACKEND=torch, which emulates it slowly"
            )

    @property
    def name(self) -> str:
        """Library and version, as in `openvino 2026.4`."""
        version = importlib.metadata.version(self.library).split("+")[0]
        return f"{self.library} {'.'.join(version.split('.')[:2])}"

    @property
    def key(self) -> str:
        """Whatever may move the last bits of a feature."""
        kind = torch.device(self.device).type
        return f"{self.library} {importlib.metadata.version(self.library)}/{kind}/{self.precision}"

    def compile(self, module: nn.Module, example: Tensor) -> Compiled:
        """`module`, which maps one tensor to a tuple of tensors, for inputs of the example's shape."""
        return self._openvino(module, example) if self.library == "openvino" else self._torch(module, len(example))

    def _torch(self, module: nn.Module, count: int) -> Compiled:
        # Channels last, because with it a CPU needs 0.6 of the time.
        module.to(self.device).to(memory_format=torch.channels_last)
        kind = torch.device(self.device).type

        def run(images: Tensor) -> list[Tensor]:
            half = torch.autocast(kind, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()
            with torch.inference_mode(), half:
                chunks = [
                    module(chunk.to(self.device).contiguous(memory_format=torch.channels_last))
                    for chunk in images.split(count)
                ]
            if len(chunks) == 1:
                return [output.float() for output in chunks[0]]
            return [torch.cat(outputs).float() for outputs in zip(*chunks, strict=True)]

        return run

    def _openvino(self, module: nn.Module, example: Tensor) -> Compiled:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        # Traced with one image, for it is the cheapest, and then given the real shape. `openvino.convert_model` would
        # do the same, and try to reach the network for its statistics of use.
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # OpenVINO's decoder takes traces only
            traced = torch.jit.trace(module, example[:1], check_trace=False)
            front = FrontEndManager().load_by_framework("pytorch")
            # A variable of its own, since the front end does not keep it alive.
            decoder = TorchScriptPythonDecoder(traced, example_input=example[:1])
            model = front.convert(front.load(decoder))
        count, threads = len(example), torch.get_num_threads()
        parts = _PARTS if count % _PARTS == 0 else 1
        model.reshape([count // parts, *example.shape[1:]])
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[self.precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": min(threads, parts),
        }
        compiled = openvino.Core().compile_model(model, "CPU", settings)
        requests = [compiled.create_infer_request() for _ in range(parts)]
        size, shapes = count // parts, [tuple(output.shape)[1:] for output in compiled.outputs]

        def share(values: np.ndarray) -> openvino.Tensor:
            return openvino.Tensor(values, shared_memory=True)

        def run(images: Tensor) -> list[Tensor]:
            entered = images.contiguous().numpy()
            # OpenVINO writes each part to its place: copying features out of its memory would cost a tenth of LPIPS.
            outputs = [np.empty((len(entered), *shape), dtype=np.float32) for shape in shapes]
            for number, start in enumerate(range(0, len(entered), size)):
                request, some = requests[number % parts], slice(start, start + size)
                request.wait()
                request.set_input_tensor(share(entered[some]))
                for position, output in enumerate(outputs):
                    request.set_output_tensor(position, share(output[some]))
                request.start_async()
            for request in requests:
                request.wait()
            return [torch.from_numpy(output) for output in outputs]

        return run
