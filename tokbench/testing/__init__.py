"""Contract tests for adapters and metrics of other repositories: `check_adapter` and `check_metric`.

Both return one Check per requirement. `require` raises AssertionError if a check failed, for use in tests:

    from tokbench.testing import check_adapter, check_metric, require

    def test_my_adapter():
        require(check_adapter("path/to/adapter"))

Names are imported when they are first used, so that importing this package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokbench.testing.adapters import check_adapter as check_adapter
    from tokbench.testing.checks import Check as Check
    from tokbench.testing.checks import require as require
    from tokbench.testing.metrics import check_metric as check_metric

_MODULES = {
    "Check": "tokbench.testing.checks",
    "check_adapter": "tokbench.testing.adapters",
    "check_metric": "tokbench.testing.metrics",
    "require": "tokbench.testing.checks",
}

__all__ = ["Check", "check_adapter", "check_metric", "require"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tokbench.testing' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)
