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
    from tokbench.extractors.specs import ExtractorSpec as ExtractorSpec
    from tokbench.extractors.specs import register_extractor as register_extractor
    from tokbench.metric_names import MetricSpec as MetricSpec
    from tokbench.metric_names import NumberSpec as NumberSpec
    from tokbench.metric_names import Tolerance as Tolerance
    from tokbench.metric_names import register_metric as register_metric
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
    "ExtractorSpec": "tokbench.extractors.specs",
    "Generator": "tokbench.tokenizers.base",
    "ImageModel": "tokbench.tokenizers.base",
    "Metric": "tokbench.metrics.base",
    "MetricSpec": "tokbench.metric_names",
    "MetricValue": "tokbench.results.result",
    "NumberSpec": "tokbench.metric_names",
    "Protocol": "tokbench.protocol.protocol",
    "Result": "tokbench.results.result",
    "Tolerance": "tokbench.metric_names",
    "Tokenizer": "tokbench.tokenizers.base",
    "TokenizerSpec": "tokbench.tokenizers.spec",
    "Tokens": "tokbench.tokenizers.tokens",
    "compare": "tokbench.api.comparison",
    "evaluate": "tokbench.api.evaluate",
    "load_adapter": "tokbench.api.models",
    "open_dataset": "tokbench.api.data",
    "register_extractor": "tokbench.extractors.specs",
    "register_metric": "tokbench.metric_names",
}
"""Every public name and the module that defines it."""

__all__ = [
    "Comparison", "ExtractorSpec", "Generator", "ImageModel", "Metric", "MetricSpec", "MetricValue", "NumberSpec",
    "Protocol", "Result", "Tokenizer", "TokenizerSpec", "Tokens", "Tolerance", "compare", "evaluate", "load_adapter",
    "open_dataset", "register_extractor", "register_metric",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'tokbench' has no attribute '{name}'")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
