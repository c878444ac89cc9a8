"""Measures run time, peak memory and parameter counts, and makes GPU kernels deterministic."""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T")

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def parameters(module: nn.Module | None) -> int:
    """Return the number of parameters of a module; 0 for None."""
    return sum(p.numel() for p in module.parameters()) if module else 0


def device_name(device: str) -> str:
    """Return a description of the device for a result's provenance."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def timed(call: Callable[[], T], device: str) -> tuple[T, float]:
    """Return the result of `call` and its run time in seconds, including work queued on the device."""
    _synchronise(device)
    start = time.perf_counter()
    result = call()
    _synchronise(device)
    return result, time.perf_counter() - start


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def measure_peak_memory(call: Callable[[], T], device: str) -> tuple[T, float | None]:
    """Return the result of `call` and its peak memory in MiB above the memory in use before the call.

    The value is allocated memory on a GPU and resident memory on a CPU. It is None where the peak cannot be measured:
    only Linux lets a process reset its peak.
    """
    if device.startswith("cuda"):
        _synchronise(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        _synchronise(device)
        return result, (torch.cuda.max_memory_allocated(device) - before) / 2**20
    before_kib = _reset_peak()
    result = call()
    return result, None if before_kib is None else max(0, _status_kib("VmHWM") - before_kib) / 1024


def trim_heap() -> None:
    """Return freed memory to the operating system, if the C library supports it (glibc).

    Activations and the few features that outlive them share one heap. Without trimming, a pass over thousands of images
    keeps gigabytes of freed memory resident.
    """
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _reset_peak() -> int | None:
    """Reset the peak resident size and return the current resident size in KiB; None where that is not possible."""
    if not sys.platform.startswith("linux"):
        return None
    trim_heap()  # freed memory that the allocator still holds would hide part of what the call needs
    try:
        _CLEAR_REFS.write_text("5")  # this resets the peak resident set size (man 5 proc)
        return _status_kib("VmRSS")
    except (OSError, KeyError):
        return None


def _status_kib(key: str) -> int:
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(fields[key].split()[0])


def exact_kernels() -> AbstractContextManager[None]:
    """Return a context in which cuDNN uses deterministic kernels in full float32 precision.

    By default cuDNN may round float32 to TF32 and choose different kernels in each run.
    """
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
