"""`diffusers:PLACE`: the autoencoders of the diffusers library that take images, or videos of one frame.

The place is a local folder (of the autoencoder or of a whole pipeline), a .safetensors file or a hub id. Only
safetensors are read; the networks run in float32 without diffusers' own tiling or slicing. Options follow the place:
`,variant=fp16`, `,posterior=sample`, `,class=CLASS` and `,config=FOLDER_OR_HUB_ID`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tokbench.errors import AdapterError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.builtin.diffusers_checks import check_report, refuse_integer_weights
from tokbench.tokenizers.builtin.diffusers_classes import CLASSES, SUPPORTED
from tokbench.tokenizers.builtin.diffusers_files import (
    CONFIG,
    INSTALL,
    Checkpoint,
    line_of,
    locate,
    split_options,
)
from tokbench.tokenizers.builtin.diffusers_models import adapter_of as adapter_of
from tokbench.tokenizers.builtin.diffusers_models import has_posterior
from tokbench.tokenizers.builtin.diffusers_single import PREFIXES, class_of, read_single

_SMALLEST = 64
"""The smallest side, in pixels, of the image with which video autoencoders are tried out."""

POSTERIORS = ("mean", "sample")
"""The values of the option `posterior`."""


def load(argument: str, device: str, allow_download: bool) -> Tokenizer:
    """Return the tokenizer from a local folder, a .safetensors file or a hub repository.

    Raises AdapterError if it is not on this machine, is of a class that takes no images, has only pickled weights or
    other tensors than the network of its config, or does not behave as its config says.
    """
    place, options = split_options(argument)
    if (posterior := options.get("posterior", "mean")) not in POSTERIORS:
        raise AdapterError(
            f"diffusers:{argument}: posterior={posterior} is unknown; give posterior=sample or leave it out"
        )
    checkpoint = locate(place, options, allow_download)
    _refuse_unused(checkpoint, options)
    net, kind, config_sha256 = _network(checkpoint, options, allow_download)
    net = net.float().eval().requires_grad_(False).to(device)
    _check_channels(net, kind, checkpoint)
    if posterior == "sample" and not has_posterior(kind, net):
        raise AdapterError(f"{checkpoint.file}: a {kind} has no posterior to sample; leave out posterior=sample")
    adapter = adapter_of(f"diffusers:{argument}", net, kind, sample=posterior == "sample")
    adapter.config = config_sha256
    facts = {"variant": checkpoint.variant, "posterior": options.get("posterior", "")}
    adapter.recorded = {key: value for key, value in facts.items() if value not in ("", "mean")}
    _check(adapter, checkpoint, device, _SMALLEST if CLASSES[kind].frames else 0)
    return adapter


def _refuse_unused(checkpoint: Checkpoint, options: Mapping[str, str]) -> None:
    """Raise AdapterError where an option would not have any effect on this checkpoint."""
    if not checkpoint.single and (unused := [f"{key}=" for key in ("class", "config") if key in options]):
        raise AdapterError(
            f"{checkpoint.file}: {' and '.join(unused)} would have no effect, since the class and the config are those "
            f"of {checkpoint.folder / CONFIG}; leave it out, or change this file"
        )
    if "variant" in options and checkpoint.variant != options["variant"]:
        raise AdapterError(f"{checkpoint.file} is not of the variant '{options['variant']}'; leave out variant=")


def _network(checkpoint: Checkpoint, options: Mapping[str, str], allow_download: bool) -> tuple[Any, str, str]:
    """Return the network, its class and the sha256 of its config. The config determines settings that no tensor shows,
    such as activations and numbers of groups."""
    if not checkpoint.single:
        kind, config_sha256 = _kind(checkpoint)
        return _read(checkpoint, _library_class(kind, checkpoint)), kind, config_sha256
    kind, config_place = class_of(checkpoint, options)
    _refuse_class(kind, str(checkpoint.file))
    autoencoder = _library_class(kind, checkpoint)
    refuse_integer_weights([checkpoint.file], kind, PREFIXES)
    net, config = read_single(autoencoder, checkpoint, config_place, allow_download)
    public = {key: value for key, value in sorted(config.items()) if not key.startswith("_")}
    return net, kind, hashlib.sha256(json.dumps(public, default=str).encode()).hexdigest()


def _kind(checkpoint: Checkpoint) -> tuple[str, str]:
    path = checkpoint.folder / CONFIG
    try:
        text = path.read_bytes()
        kind = json.loads(text)["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{path} is not a diffusers config ({type(error).__name__}: {error})") from error
    _refuse_class(kind, str(path))
    return kind, hashlib.sha256(text).hexdigest()


def _refuse_class(kind: Any, place: str) -> None:
    """Raise AdapterError where images cannot be evaluated with a class."""
    known = CLASSES.get(kind) if isinstance(kind, str) else None
    if known is not None and known.refused is None:
        return
    if known is not None:
        raise AdapterError(f"{place} is of class '{kind}', with which images cannot be evaluated: {known.refused}")
    raise AdapterError(f"{place} is of class '{kind}'; tokbench supports {', '.join(SUPPORTED)}")


def _library_class(kind: str, checkpoint: Checkpoint) -> Any:
    try:
        import diffusers

        return getattr(diffusers, kind)
    except (ImportError, RuntimeError) as error:  # RuntimeError: its lazy import of the class failed
        raise AdapterError(f"diffusers:{checkpoint.folder} {INSTALL} ({line_of(error)})") from error
    except AttributeError as error:
        raise AdapterError(
            f"{checkpoint.folder}: the installed diffusers {diffusers.__version__} has no {kind}; install a newer one "
            "with: pip install --upgrade diffusers"
        ) from error


def _read(checkpoint: Checkpoint, autoencoder: Any) -> nn.Module:
    kind, words = autoencoder.__name__, {"variant": checkpoint.variant} if checkpoint.variant else {}
    try:
        refuse_integer_weights(checkpoint.weight_files(), kind)
        net, report = autoencoder.from_pretrained(
            str(checkpoint.folder),
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
            **words,
        )
    except AdapterError:
        raise
    except Exception as error:  # OSError, ValueError, RuntimeError, safetensors' own ...
        raise AdapterError(f"{checkpoint.folder}: diffusers cannot load this {kind} ({line_of(error)})") from error
    check_report(report, checkpoint.file, kind)
    return net


def _check_channels(net: Any, kind: str, checkpoint: Checkpoint) -> None:
    """Raise AdapterError where the config is that of images or videos other than RGB."""
    config, patch = net.config, net.config.get("patch_size")
    wanted = {3}
    if CLASSES[kind].frames and isinstance(patch, int):
        wanted.add(3 * patch * patch)  # each pixel of the network's input is a patch of the image
    if kind == "AutoencoderKLMochi":
        wanted.add(15)  # RGB and the Fourier features that the network computes from it
    for key in ("in_channels", "input_channels", "encoder_in_channels", "num_channels", "out_channels"):
        if config.get(key, 3) not in wanted:
            raise AdapterError(f"{checkpoint.file}: it is not an autoencoder of RGB images ({key} {config.get(key)})")


@torch.inference_mode()
def _check(adapter: Tokenizer, checkpoint: Checkpoint, device: str, smallest: int) -> None:
    """Encode and decode one small image to check that the config's sizes are the model's. Raises AdapterError."""
    factor = adapter.spec.downsample
    assert factor is not None
    side = adapter.spec.size or max(2 * factor, smallest)
    count = (side // factor) ** 2
    grey = torch.full((1, 3, side, side), sum(adapter.spec.range) / 2, device=device)
    try:
        tokens = adapter.encode(grey)
        image = adapter.decode(tokens, [0])
    except AdapterError:
        raise
    except Exception as error:  # the networks raise many classes
        raise AdapterError(
            f"{checkpoint.folder}: it cannot reconstruct a {side}x{side} image ({line_of(error)})"
        ) from error
    if int(tokens.length[0]) != count or image.shape != (1, 3, side, side):
        raise AdapterError(
            f"{checkpoint.folder}: its config declares one token per {factor}x{factor} pixels, but a {side}x{side} "
            f"image was encoded to {int(tokens.length[0])} tokens and decoded to {image.shape[3]}x{image.shape[2]}"
        )
