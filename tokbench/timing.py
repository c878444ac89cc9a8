"""Throughput, peak memory and parameters of a tokenizer: the one place where they are measured."""

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
    """Number of parameters; 0 where there is no network."""
    return sum(p.numel() for p in module.parameters()) if module else 0


def device_name(device: str) -> str:
    """The device in words, for a result's provenance."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def timed(call: Callable[[], T], device: str) -> tuple[T, float]:
    """What `call` returns and the seconds that it took, work on the device included."""
    _synchronise(device)
    start = time.perf_counter()
    result = call()
    _synchronise(device)
    return result, time.perf_counter() - start


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def measure_peak_memory(call: Callable[[], T], device: str) -> tuple[T, float | None]:
    """What `call` returns and the MiB that it needed at its peak beyond what was held before it.

    Allocated memory on a GPU, resident memory on a CPU; None where the system cannot tell (only Linux lets a process
    reset its peak).
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
    """Return freed memory to the system, where the C library can (glibc).

    A network's activations and the few features that outlive them come from one heap, so without this a pass over
    thousands of images holds gigabytes that it no longer uses.
    """
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _reset_peak() -> int | None:
    """Resident KiB now, its recorded peak set back to it; None where that is not possible."""
    if not sys.platform.startswith("linux"):
        return None
    trim_heap()  # what earlier work freed but the allocator kept would hide what this call needs
    try:
        _CLEAR_REFS.write_text("5")  # man 5 proc: resets the peak resident set size
        return _status_kib("VmRSS")
    except (OSError, KeyError):
        return None


def _status_kib(key: str) -> int:
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    return int(fields[key].split()[0])


def exact_kernels() -> AbstractContextManager[None]:
    """On a GPU, cuDNN would otherwise round float32 to TF32 and choose kernels that differ from run to run."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
