"""What an argument that names no adapter probably means: a published checkpoint without its prefix, or a near name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from tokbench.errors import did_you_mean
from tokbench.tokenizers.checkpoint_names import PATH_LIKE

_AUTOENCODERS = ("vae", "vqvae", "movq")
_SCRIPTS = ("encoder.jit", "decoder.jit", "autoencoder.jit")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def suggested(asked: str, known: Iterable[str]) -> str:
    """Return a sentence part such as "did you mean 'taef2'? ", or "" where nothing resembles the argument."""
    name, equals, rest = asked.partition("=")
    if equals and rest and ":" not in name:
        families = ", ".join(f"{family}:" for family in PATH_LIKE)
        return f"NAME= applies to {families} only, and '{rest}' keeps its own name; "
    if near := did_you_mean(asked, known):
        return near
    if _HUB_ID.fullmatch(asked) and not asked.startswith("adapters/"):
        return f"for a checkpoint on the Hugging Face hub, write diffusers:{asked}; "
    return ""


def prefixed(path: Path) -> str | None:
    """Return the argument with which the checkpoint at a path is evaluated, or None where there is none that tokbench
    reads. path: an existing file or folder."""
    if path.is_file():
        if path.suffix in (".safetensors", ".ckpt", ".bin", ".pth", ".pt"):
            return f"diffusers:{path}"
        return f"torchscript:{path.parent}" if path.suffix == ".jit" else None
    if any((path / script).is_file() for script in _SCRIPTS):
        return f"torchscript:{path}"
    if (path / "model_index.json").is_file() or any((path / sub / "config.json").is_file() for sub in _AUTOENCODERS):
        return f"diffusers:{path}"
    if (path / "config.json").is_file() and _is_of_diffusers(path / "config.json"):
        return f"diffusers:{path}"
    alone = sorted(path.glob("*.safetensors"))
    return f"diffusers:{alone[0]}" if len(alone) == 1 else None


def _is_of_diffusers(config: Path) -> bool:
    try:
        content = json.loads(config.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "_class_name" in content
