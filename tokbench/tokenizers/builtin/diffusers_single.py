"""Reads a single .safetensors file with the library's `from_single_file`: the original names of latent diffusion, whole
Stable Diffusion checkpoints, and files of diffusers without their config."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from tokbench.errors import AdapterError
from tokbench.tokenizers.builtin.diffusers_checks import COUNTER, check_report
from tokbench.tokenizers.builtin.diffusers_files import CONFIG, STEM, Checkpoint, line_of, read_json
from tokbench.weights.partial_loads import describe_left_out, observed

PREFIXES = ("first_stage_model.", "vae.")
"""The prefixes of the autoencoder's tensors in a checkpoint that also holds other networks."""

_MARKERS = {
    "AutoencoderKLWan": ("decoder.middle.0.residual.0.gamma",),
    "AutoencoderDC": ("encoder.project_in.conv.bias", "encoder.project_in.conv.conv.bias"),
    "AutoencoderKLLTXVideo": ("vae.per_channel_statistics.mean-of-means", "per_channel_statistics.mean-of-means"),
}  # fmt: skip
"""Tensors by which a class is recognised. AutoencoderKL is recognised by its blocks."""

_BLOCKS = (r"encoder\.down\.(\d+)\.block\.(\d+)", r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)")
"""The blocks of AutoencoderKL's encoder, by stage and layer, with the names of latent diffusion and of diffusers."""

_LDM_GROUPS = 32
"""The number of groups of every normalisation layer in latent diffusion. No tensor shows it."""


def tensors_of(file: Path) -> dict[str, tuple[str, list[int]]]:
    """Return name -> (type, shape) of the autoencoder's tensors in a file, without the prefix that a whole checkpoint
    gives them. Raises AdapterError if the file is damaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            prefix = next((start for start in PREFIXES if any(name.startswith(start) for name in names)), "")
            slices = {name: opened.get_slice(name) for name in names if name.startswith(prefix)}
            return {name.removeprefix(prefix): (one.get_dtype(), one.get_shape()) for name, one in slices.items()}
    except Exception as error:  # safetensors raises its own classes and OSError
        raise AdapterError(f"{file} is not a readable safetensors file ({line_of(error)})") from error


def class_of(checkpoint: Checkpoint, options: Mapping[str, str]) -> tuple[str, Path | str | None]:
    """Return the class of a single file, and the place of its config: a folder, a hub id, or None where the config
    follows from the tensors or is the library's own.

    Raises AdapterError if the class is unknown.
    """
    given = options.get("config")
    place: Path | str | None = Path(given).expanduser() if given and Path(given).expanduser().is_dir() else given
    if place is None and (checkpoint.folder / CONFIG).is_file():
        place = checkpoint.folder
    config = read_json(place / CONFIG) if isinstance(place, Path) else {}
    if kind := options.get("class") or config.get("_class_name"):
        return str(kind), place
    shapes = tensors_of(checkpoint.file)
    for kind, markers in _MARKERS.items():
        if any(marker.removeprefix("vae.") in shapes for marker in markers):
            return kind, place
    if _stages(shapes):
        return "AutoencoderKL", place
    raise AdapterError(
        f"{checkpoint.file}: its tensors do not determine its class ({', '.join(sorted(shapes)[:2])} ...); name it "
        f"and its config, as in diffusers:{checkpoint.file},class=AutoencoderDC,config=FOLDER_OR_HUB_ID"
    )


def inferred_config(shapes: Mapping[str, tuple[str, list[int]]]) -> dict[str, Any] | None:
    """Return the config of an AutoencoderKL that has tensors of these names and shapes, or None where they are not
    those of an AutoencoderKL."""
    stages = _stages(shapes)
    if not stages or "decoder.conv_in.weight" not in shapes:
        return None
    attention = ("encoder.mid.attn_1.norm.weight", "encoder.mid_block.attentions.0.group_norm.weight")
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": shapes["encoder.conv_in.weight"][1][1],
        "out_channels": shapes["decoder.conv_out.weight"][1][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1][1],
        "block_out_channels": [channels for channels, _ in stages],
        "layers_per_block": stages[0][1],
        "down_block_types": ["DownEncoderBlock2D"] * len(stages),
        "up_block_types": ["UpDecoderBlock2D"] * len(stages),
        "norm_num_groups": _LDM_GROUPS,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "mid_block_add_attention": any(name in shapes for name in attention),
    }


def _stages(shapes: Mapping[str, tuple[str, list[int]]]) -> list[tuple[int, int]]:
    """Return (channels, layers) of each stage of an AutoencoderKL's encoder; empty for other networks."""
    found: dict[int, dict[int, int]] = {}
    for name, (_, shape) in shapes.items():
        match = next((hit for pattern in _BLOCKS if (hit := re.fullmatch(rf"{pattern}\.conv1\.weight", name))), None)
        if match and len(shape) == 4:
            found.setdefault(int(match[1]), {})[int(match[2])] = shape[0]
    if not found or sorted(found) != list(range(len(found))):
        return []
    return [(found[stage][0], len(found[stage])) for stage in sorted(found) if 0 in found[stage]]


@contextmanager
def config_folder(checkpoint: Checkpoint, kind: str, place: Path | str | None) -> Iterator[str | None]:
    """Yield a folder or hub id with the config of a single file; None where only the library knows it."""
    if place is not None:
        yield str(place)
        return
    config = inferred_config(tensors_of(checkpoint.file)) if kind == "AutoencoderKL" else None
    if config is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        yield folder


def read_single(
    autoencoder: Any, checkpoint: Checkpoint, place: Path | str | None, allow_download: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a single file, and its config. autoencoder: the class. place: see `class_of`.

    Raises AdapterError if the library cannot load it, or where file and network have different tensors.
    """
    kind, file = autoencoder.__name__, checkpoint.file
    with config_folder(checkpoint, kind, place) as source:
        if not hasattr(autoencoder, "from_single_file"):
            return _read_in_folder(autoencoder, file, source)
        words: dict[str, Any] = {"config": source} if source is not None else {}
        try:
            with observed() as loading:
                net = autoencoder.from_single_file(
                    str(file), local_files_only=not allow_download, low_cpu_mem_usage=False, **words
                )
        except Exception as error:  # OSError, ValueError, RuntimeError, the library's own ...
            why = f"diffusers cannot load it as {kind} ({line_of(error)})"
            raise AdapterError(f"{file}: {why}; {_remedy(file, kind)}") from error
    if left_out := loading.left_out():
        raise AdapterError(f"{file}: {describe_left_out(left_out)}; {_remedy(file, kind)}")
    held = {name for name in tensors_of(file) if not name.endswith(COUNTER)}
    if kind == "AutoencoderKL" and len(held) != len(net.state_dict()):  # its conversion drops names that it lacks
        raise AdapterError(
            f"{file} holds {len(held)} tensors, but the {kind} of its config has {len(net.state_dict())}; "
            f"{_remedy(file, kind)}"
        )
    return net, dict(net.config)


def _remedy(file: Path, kind: str) -> str:
    return (
        f"name a folder or hub id that holds its {CONFIG}, as in "
        f"diffusers:{file},class={kind},config=FOLDER_OR_HUB_ID, or provide a folder with both"
    )


def _read_in_folder(autoencoder: Any, file: Path, source: str | None) -> tuple[nn.Module, dict[str, Any]]:
    """Load a file of diffusers that has another name than the library expects."""
    if source is None or not (Path(source) / CONFIG).is_file():
        raise AdapterError(
            f"{file}: diffusers cannot load a single file of class {autoencoder.__name__}; put its {CONFIG} beside it"
        )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CONFIG).write_bytes((Path(source) / CONFIG).read_bytes())
        (Path(folder) / f"{STEM}.safetensors").symlink_to(file.resolve())
        try:
            net, report = autoencoder.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
            )
        except Exception as error:
            raise AdapterError(f"{file}: diffusers cannot load it ({line_of(error)})") from error
    check_report(report, file, autoencoder.__name__)
    return net, dict(net.config)
