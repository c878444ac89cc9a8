"""The library that runs a frozen network: PyTorch, or OpenVINO on a CPU where it is installed (`pip install
'tokbench[fast]'`)."""

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
"""A function from inputs (k B, ...) to float32 outputs (k B, ...) on the device, where it was compiled for (B, ...)."""

_NUM_REQUESTS = 4
"""The number of requests into which OpenVINO's batch is split, each with a share of the threads. This uses the caches
better."""


@cache
def _openvino_capabilities() -> tuple[str, ...]:
    """Return the number formats in which OpenVINO can compute on this CPU: `FP32`, `BF16` and others."""
    import openvino

    return tuple(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


class Backend:
    """The fastest installed library that is exact in float32, for one device and one precision.

    On a CPU this is OpenVINO where it is installed, else PyTorch; on other devices it is PyTorch.
    TOKBENCH_BACKEND=torch or =openvino overrides the choice. The precision applies inside the network. It is always set
    for OpenVINO, which would otherwise use bfloat16 on CPUs that support it.
    """

    def __init__(self, device: str = "cpu", precision: Precision = "float32", library: str | None = None) -> None:
        """Raises UsageError for a library that is not installed or does not support the device or the precision."""
        self.device, self.precision = device, precision
        library = library or os.environ.get("TOKBENCH_BACKEND") or None
        available = device == "cpu" and importlib.util.find_spec("openvino") is not None
        if library not in (None, "torch", "openvino"):
            raise UsageError(f"TOKBENCH_BACKEND is '{library}'; set it to torch or openvino")
        if library == "openvino" and not available:
            raise UsageError("openvino needs the device cpu and must be installed: pip install 'tokbench[fast]'")
        self.library = library or ("openvino" if available else "torch")
        if self.library == "openvino" and precision == "bfloat16" and "BF16" not in _openvino_capabilities():
            raise UsageError(
                "this CPU does not support bfloat16, and OpenVINO would compute in float32 instead; leave out "
                "--precision bfloat16, or set TOKBENCH_BACKEND=torch, which emulates it slowly"
            )

    @property
    def name(self) -> str:
        """The library and its version, for example `openvino 2026.4`."""
        version = importlib.metadata.version(self.library).split("+")[0]
        return f"{self.library} {'.'.join(version.split('.')[:2])}"

    @property
    def key(self) -> str:
        """Everything about the backend that may change the last bits of a feature."""
        kind = torch.device(self.device).type
        return f"{self.library} {importlib.metadata.version(self.library)}/{kind}/{self.precision}"

    def compile(self, module: nn.Module, example: Tensor) -> Compiled:
        """Compile `module`, which maps one tensor to a tuple of tensors, for inputs of the example's shape."""
        return self._openvino(module, example) if self.library == "openvino" else self._torch(module, len(example))

    def _torch(self, module: nn.Module, count: int) -> Compiled:
        # With the channels-last format a CPU takes 0.6 of the time.
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

        # The module is traced with one image, which is cheapest, and then reshaped. `openvino.convert_model` would do
        # the same, but it also tries to send usage statistics over the network.
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # OpenVINO's decoder accepts only traced modules
            traced = torch.jit.trace(module, example[:1], check_trace=False)
            front = FrontEndManager().load_by_framework("pytorch")
            # The decoder needs its own variable, since the front end does not keep a reference to it.
            decoder = TorchScriptPythonDecoder(traced, example_input=example[:1])
            model = front.convert(front.load(decoder))
        count, threads = len(example), torch.get_num_threads()
        parts = _NUM_REQUESTS if count % _NUM_REQUESTS == 0 else 1
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
            inputs = images.contiguous().numpy()
            # OpenVINO writes each part into the output array: copying features would take a tenth of LPIPS's time.
            outputs = [np.empty((len(inputs), *shape), dtype=np.float32) for shape in shapes]
            try:
                for number, start in enumerate(range(0, len(inputs), size)):
                    request, span = requests[number % parts], slice(start, start + size)
                    request.wait()
                    request.set_input_tensor(share(inputs[span]))
                    for position, output in enumerate(outputs):
                        request.set_output_tensor(position, share(output[span]))
                    request.start_async()
            finally:
                # Also after an interruption, since the requests that still run read and write these arrays: a process
                # that was stopped by a signal crashed when the arrays were freed.
                for request in requests:
                    request.wait()
            return [torch.from_numpy(output) for output in outputs]

        return run
