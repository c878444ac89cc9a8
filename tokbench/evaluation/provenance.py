"""What a result records about its adapter."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from tokbench.results.floors import FLOOR
from tokbench.tokenizers.base import Generator
from tokbench.tokenizers.builtin.images import ImageFolder
from tokbench.tokenizers.code_identity import identify
from tokbench.tokenizers.held_code import networks_of
from tokbench.tokenizers.registry import LoadedAdapter
from tokbench.tokenizers.taxonomy import described
from tokbench.weights.hashing import hash_module


def describe_adapter(adapter: LoadedAdapter) -> dict[str, Any]:
    """Return what a result records about its adapter: the spec, and hashes of its weights and of the code that
    it uses."""
    spec = adapter.model.spec
    facts: dict[str, Any] = {"source": adapter.source, "kind": spec.kind, "range": list(spec.range)}
    for key in ("multiple", "size", "downsample", "num_tokens", "codebook", "bits_per_token", "variable", "prefixes"):
        if value := getattr(spec, key):
            facts[key] = value
    if adapter.floor:
        facts[FLOOR] = True
    if isinstance(adapter.model, Generator):
        facts["tokenizer"] = adapter.model.tokenizer.spec.name
    if adapter.model.dtype != torch.float32:
        facts["dtype"] = str(adapter.model.dtype).removeprefix("torch.")
    facts |= adapter.model.recorded
    if adapter.weights:
        facts["weights"] = adapter.weights
    if adapter.code:
        facts["code_sha256"] = adapter.code
    used = identify(model=adapter.model) if adapter.used is None else adapter.used
    optional = {
        "modules": used.modules,
        "packages": used.packages,
        "files": adapter.files,
        "config_sha256": adapter.model.config,
        "unused_tensors": adapter.unused,
        "weights_in_part": adapter.in_part,
        "taxonomy": described(adapter.taxonomy, spec),
        "pair": adapter.model.pair if isinstance(adapter.model, ImageFolder) and adapter.model.pair != "name" else "",
    }
    facts |= {key: value for key, value in optional.items() if value}
    if adapter.model.module is not None:
        facts["parameters_sha256"] = adapter.parameters or hash_module(adapter.model.module)
    if others := sorted(hash_module(network) for network in networks_of(adapter.model)):
        facts["other_parameters_sha256"] = hashlib.sha256("".join(others).encode()).hexdigest()
    return facts
