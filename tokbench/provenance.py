"""What a result says of how it was made: adapter, weights, protocol."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.code_identity import CodeIdentity, identify
from tokbench.held_code import networks_of
from tokbench.plugins import Loaded
from tokbench.protocol import Protocol
from tokbench.tokenizer import Generator


def describe_protocol(protocol: Protocol) -> dict[str, Any]:
    """What a result must say of its protocol: name, hash, what its authors use, and whether whole
    files are what distributions are compared with."""
    published = {key: value for key in ("size", "num_images") if (value := getattr(protocol.published, key))}
    told: dict[str, Any] = {"name": protocol.name, "sha256": protocol.sha256}
    if protocol.reference == "original":  # tables must say so
        told["reference"] = protocol.reference
    return told | ({"published": published} if published else {})


def describe_adapter(adapter: Loaded) -> dict[str, Any]:
    """What a result must say of its adapter: the spec, and hashes of its weights and of the code that it uses."""
    spec = adapter.model.spec
    told: dict[str, Any] = {"source": adapter.source, "kind": spec.kind, "range": list(spec.range)}
    for key in ("multiple", "size", "downsample", "num_tokens", "codebook", "bits_per_token", "variable", "prefixes"):
        if value := getattr(spec, key):
            told[key] = value
    if isinstance(adapter.model, Generator):
        told["tokenizer"] = adapter.model.tokenizer.spec.name
    if adapter.model.dtype != torch.float32:
        told["dtype"] = str(adapter.model.dtype).removeprefix("torch.")
    if adapter.weights:
        told["weights"] = adapter.weights
    if adapter.code:
        told["code_sha256"] = adapter.code
    used = identify(model=adapter.model) if adapter.used is None else adapter.used
    facts = {
        "modules": used.modules,
        "packages": used.packages,
        "files": adapter.files,
        "config_sha256": adapter.model.config,
        "unused_tensors": adapter.unused,
        "weights_in_part": adapter.in_part,
    }
    told |= {key: value for key, value in facts.items() if value}
    if adapter.model.module is not None:
        told["parameters_sha256"] = hash_module(adapter.model.module)
    if beside := sorted(hash_module(network) for network in networks_of(adapter.model)):
        told["other_parameters_sha256"] = hashlib.sha256("".join(beside).encode()).hexdigest()
    return told


def identity_of(adapter: Loaded) -> str:
    """A hash over all that says what an adapter computes, but for the parameters of its networks."""
    used = adapter.used or CodeIdentity()
    told = [adapter.code, adapter.weights, used.modules, used.packages, adapter.files, adapter.model.config]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@cache
def code_of(folder: Path, *others: Path) -> str:
    """sha256 over the Python files in a folder, or of a single one, and others: what other code has measured must not
    be mixed in."""
    digest = hashlib.sha256()
    for path in (*([folder] if folder.is_file() else sorted(folder.rglob("*.py"))), *others):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def hash_module(module: nn.Module) -> str:
    """sha256 over names, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
