"""Checks that the tensors of a diffusers file and the network of its config are those of one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokbench.errors import AdapterError

COUNTER = "num_batches_tracked"
"""Batch norm's step counters, which only some files hold and inference does not use."""


def check_report(report: Mapping[str, Any], file: Path, kind: str) -> None:
    """Check that every tensor of the file has its place in the network and the reverse. Raises AdapterError.

    report: the library's `output_loading_info`. The library only warns and then continues with random values, or with a
    network other than that of the weights. Names that the library maps itself are accepted.
    """
    names = {key: [str(name) for name in report.get(key, ())] for key in ("missing_keys", "unexpected_keys")}
    # Entries of `mismatched_keys` are (name, shape in the file, shape in the network).
    names["mismatched_keys"] = [str(entry[0]) for entry in report.get("mismatched_keys", ())]
    messages = {
        "missing_keys": f"lacks {{}} of the {kind}'s tensors ({{}})",
        "unexpected_keys": f"holds {{}} tensors that the {kind} of config.json does not have ({{}})",
        "mismatched_keys": f"holds {{}} tensors whose shape differs from the {kind}'s ({{}})",
    }
    faulty = {key: sorted(name for name in names[key] if not name.endswith(COUNTER)) for key in messages}
    problems = [
        message.format(len(faulty[key]), ", ".join(faulty[key][:3])) for key, message in messages.items() if faulty[key]
    ]
    problems += [" ".join(str(text).split())[:200] for text in report.get("error_msgs", ())]
    if problems:
        raise AdapterError(f"{file} {'; it '.join(problems)}; provide the config.json and the weights of one model")


def refuse_integer_weights(files: Sequence[Path], kind: str, prefixes: Sequence[str] = ()) -> None:
    """Raise AdapterError where a file holds integers: quantized weights, whose scales are not supported.

    prefixes: only tensors with the first of these prefixes that occurs are those of the autoencoder.
    """
    from safetensors import safe_open

    for path in files:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            prefix = next((start for start in prefixes if any(name.startswith(start) for name in names)), "")
            types = {name: file.get_slice(name).get_dtype() for name in names if name.startswith(prefix)}
        integer_names = [name for name, dtype in types.items() if dtype.startswith(("I", "U", "BOOL"))]
        if integer_names := sorted(name for name in integer_names if not name.endswith(COUNTER)):
            raise AdapterError(
                f"{path} holds integers in {len(integer_names)} of the {kind}'s tensors, such as {integer_names[0]}: "
                "quantized weights are not supported; provide them in float32, float16 or bfloat16"
            )
