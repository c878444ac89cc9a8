"""The device that a run uses."""

from __future__ import annotations

from tokbench.errors import UsageError


def choose_device(asked: str | None, local: int = 0) -> str:
    """The device asked for, or the best here (of several the `local`-th). Raises UsageError where it cannot be used."""
    import torch

    if asked is None:
        if not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{local}" if local else "cuda"
    try:
        torch.empty(0, device=asked)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{asked}' cannot be used here: {str(error).splitlines()[0]}") from error
    return asked
