"""Loads weight files into networks: only tensors are unpickled, and every name, shape and type is checked."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tokbench.errors import MissingWeights
from tokbench.weights.registry import LocalWeights, WeightFile


def read_state(network: str, weights: LocalWeights, inside: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, or of a .pth file with a plain state dict, on the CPU.

    Floating-point tensors are converted to float32; integer tensors keep their type. Only tensors are unpickled.
    network: name for error messages. weights: the file. inside: keys, such as `model`, that may contain the state dict.
    Raises MissingWeights if the file has another content.
    """
    remedy = f"replace it by the published file ({weights.source.get})"
    state: Any
    try:
        if weights.path.suffix == ".safetensors":
            state = load_file(weights.path)
        else:
            state = torch.load(weights.path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling, zip and safetensors errors have no common class, and long messages
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        if isinstance(error, pickle.UnpicklingError) and (objects := _unsafe_objects(weights.path)):
            reason = f"it contains Python objects other than tensors ({objects}), and loading those can run any code"
            remedy = f"save only its state dict, with safetensors or torch.save, or {remedy}"
        raise MissingWeights(f"{network}: {weights.path} is not a readable state dict ({reason}); {remedy}") from error
    if isinstance(state, dict):
        state = next((state[key] for key in inside if isinstance(state.get(key), dict)), state)
    plain = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    if not plain:
        raise MissingWeights(f"{network}: {weights.path} is not a plain state dict of named tensors; {remedy}")
    # The step counters of batch norm are ignored: only some files contain them, and evaluation does not use them.
    return {
        key: value.detach().float() if value.is_floating_point() else value.detach()
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }


def read_checkpoint(
    adapter: str, found: LocalWeights, forms: Sequence[WeightFile], within: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Return all tensors of a published checkpoint unchanged, on the CPU.

    adapter: its name, for messages. forms: the files with the same weights; the message names one that is safe to read.
    within: possible entries of a training checkpoint; the first one that exists holds the tensors, else the file itself
    does. Only tensors, plain containers and argparse's Namespace are unpickled. Raises MissingWeights if the file is
    damaged or holds anything else.
    """
    path, get = found.path, f"replace it by the published file ({found.source.get})"
    try:
        if path.suffix == ".safetensors":
            held: Any = load_file(path)
        else:
            # Training scripts save their options with the weights; a Namespace only stores them.
            with torch.serialization.safe_globals([argparse.Namespace]):
                held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        safe = [source.file for source in forms if source.file.endswith(".safetensors")]
        convert = f"; if you trust it, convert it to {safe[0]} as the adapter's README.md describes" if safe else ""
        raise MissingWeights(
            f"{adapter}: {path} is damaged or contains objects other than tensors, which could execute code when they "
            f"are read ({_line(error)}){convert}"
        ) from error
    except Exception as error:  # zip readers and safetensors raise many classes
        raise MissingWeights(f"{adapter}: {path} cannot be read ({_line(error)}); {get}") from error
    if isinstance(held, Mapping):
        held = next((held[name] for name in within if isinstance(held.get(name), Mapping)), held)
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        places = f", nor in its {' or '.join(within)}" if within else ""
        raise MissingWeights(f"{adapter}: {path} holds no state dict of named tensors{places}; {get}")
    return dict(held)


def _line(error: Exception) -> str:
    """Return an error's text in one line, without the unpickler's advice to trust the file."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return f"{type(error).__name__}: {' '.join(text.split())[:120]}"


def _unsafe_objects(path: Path) -> str:
    """Return the first classes and functions other than tensor constructors that unpickling the file would call."""
    try:
        return _first_names(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # the file has an older format, or is not a checkpoint
        return ""


def load_strict(
    network: str, module: nn.Module, state: dict[str, Tensor], weights: LocalWeights, assign: bool = True
) -> None:
    """Load `state` into a module built on the meta device, and freeze the module for evaluation.

    network, weights: name and file for error messages. assign: False copies the values into the existing tensors of the
    module, for third-party modules that may keep references to them.
    Raises MissingWeights unless names and shapes agree exactly, so that no parameter keeps its initial value. Integer
    tensors in place of floating-point ones are refused as well: they are quantized weights, whose scales the module
    does not apply.
    """
    expected = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    problems = {
        "lacks": expected.keys() - state.keys(),
        "has unknown": state.keys() - expected.keys(),
        "has another shape in": {k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape},
        "has integers instead of floating-point values in": {
            key
            for key in expected.keys() & state.keys()
            if expected[key].is_floating_point() and not state[key].is_floating_point()
        },
    }
    messages = [f"{verb} {_first_names(keys)}" for verb, keys in problems.items() if keys]
    if messages:
        raise MissingWeights(
            f"{network}: {weights.path} {', '.join(messages)}; replace it by the published file ({weights.source.get})"
        )
    if assign:
        state = {key: value.float() for key, value in state.items()}
    module.load_state_dict(state, strict=False, assign=assign)  # the check above has a shorter message than strict=True
    module.requires_grad_(False).eval()


def _first_names(keys: Iterable[str]) -> str:
    names = sorted(keys)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Fold a frozen batch norm into the preceding convolution `conv`, in float64. `norm` is then not needed."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    conv.weight = nn.Parameter((conv.weight.double() * scale[:, None, None, None]).float(), requires_grad=False)
    conv.bias = nn.Parameter(shift.float(), requires_grad=False)
