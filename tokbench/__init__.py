"""tokbench: benchmark and evaluation suite for visual tokenizers.

The names in `__all__` are the public Python API. Each is imported when it is first used, so that `import tokbench`
imports neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokbench.api.comparison import Comparison as Comparison
    from tokbench.api.comparison import compare as compare
    from tokbench.api.data import open_dataset as open_dataset
    from tokbench.api.evaluate import evaluate as evaluate
    from tokbench.api.models import load_adapter as load_adapter
    from tokbench.metrics.base import Metric as Metric
    from tokbench.protocol.protocol import Protocol as Protocol
    from tokbench.results.result import MetricValue as MetricValue
    from tokbench.results.result import Result as Result
    from tokbench.tokenizers.base import Generator as Generator
    from tokbench.tokenizers.base import ImageModel as ImageModel
    from tokbench.tokenizers.base import Tokenizer as Tokenizer
    from tokbench.tokenizers.spec import TokenizerSpec as TokenizerSpec
    from tokbench.tokenizers.tokens import Tokens as Tokens

from tokbench._version import __version__ as __version__

_MODULES = {
    "Comparison": "tokbench.api.comparison",
    "Generator": "tokbench.tokenizers.base",
    "ImageModel": "tokbench.tokenizers.base",
    "Metric": "tokbench.metrics.base",
    "MetricValue": "tokbench.results.result",
    "Protocol": "tokbench.protocol.protocol",
    "Result": "tokbench.results.result",
    "Tokenizer": "tokbench.tokenizers.base",
    "TokenizerSpec": "tokbench.tokenizers.spec",
    "Tokens": "tokbench.tokenizers.tokens",
    "compare": "tokbench.api.comparison",
    "evaluate": "tokbench.api.evaluate",
    "load_adapter": "tokbench.api.models",
    "open_dataset": "tokbench.api.data",
}
"""Every public name and the module that defines it."""

__all__ = [
    "Comparison", "Generator", "ImageModel", "Metric", "MetricValue", "Protocol", "Result", "Tokenizer",
    "TokenizerSpec", "Tokens", "compare", "evaluate", "load_adapter", "open_dataset",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tokbench' has no attribute '{name}'")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
