"""Selection of the device of a run."""

from __future__ import annotations

from tokbench.errors import UsageError


def choose_device(requested: str | None, local: int = 0) -> str:
    """Return the requested device, or by default the `local`-th CUDA device if available, else the CPU.

    Raises UsageError if the device cannot be used.
    """
    import torch

    if requested is None:
        if not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{local}" if local else "cuda"
    try:
        torch.empty(0, device=requested)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{requested}' cannot be used here: {str(error).splitlines()[0]}") from error
    return requested
