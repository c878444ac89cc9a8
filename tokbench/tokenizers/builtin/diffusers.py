"""`diffusers:DIR_OR_ID`: AutoencoderKL, VQModel, AutoencoderTiny and AutoencoderDC, as diffusers saves them.

The argument is a local folder (of the autoencoder or of a whole pipeline) or a hub id. Only safetensors are read; the
networks run in float32 without diffusers' own tiling or slicing.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.errors import AdapterError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

SUBFOLDERS = ("", "vae", "vqvae", "movq")
"""The subfolders of a checkpoint or a whole pipeline that may hold the autoencoder."""

_CONFIG, _WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
_COUNTER = "num_batches_tracked"
_INSTALL = "needs the diffusers library; install it with: pip install 'tokbench[hf]'"

# All four classes accept and return images in [-1, 1]; AutoencoderTiny converts to and from [0, 1] internally.
_RANGE = (-1.0, 1.0)

# `scaling_factor` and `shift_factor` normalise latents for a diffusion model. Encoder and decoder do not use them, so
# they are not applied here.
_LATENTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "AutoencoderKL": lambda net, images: net.encode(images).latent_dist.mode(),  # the posterior mean, not a sample
    "AutoencoderTiny": lambda net, images: net.encode(images).latents,
    "AutoencoderDC": lambda net, images: net.encode(images).latent,
}

STAGES = {
    "AutoencoderKL": "block_out_channels",
    "VQModel": "block_out_channels",
    "AutoencoderTiny": "encoder_block_out_channels",
    "AutoencoderDC": "encoder_block_out_channels",
}
"""The four classes, and the config entry that lists the encoder's stages. Each stage but one halves height and width.
"""


class Continuous(Tokenizer):
    """AutoencoderKL, AutoencoderTiny and AutoencoderDC, with latents (B, C, h, w)."""

    def __init__(self, name: str, net: Any, kind: str, factor: int) -> None:
        self.module, self._net, self._latents = net, net, _LATENTS[kind]
        bits = 16.0 * net.config.latent_channels
        self.spec = TokenizerSpec(
            name, "continuous", range=_RANGE, multiple=factor, downsample=factor, bits_per_token=bits
        )

    def encode(self, images: Tensor) -> Tokens:
        latents = self._latents(self._net, images)
        return Tokens.from_latents(latents, tokens=latents.shape[2] * latents.shape[3])

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return self._net.decode(tokens.tensor.float()).sample


class DiffusersVQ(Tokenizer):
    """VQModel, with indices (B, h, w) of the nearest codebook vectors. Images are decoded from the indices alone."""

    def __init__(self, name: str, net: Any, factor: int) -> None:
        self.module, self._net, self._codes = net, net, int(net.config.num_vq_embeddings)
        self.spec = TokenizerSpec(
            name,
            "discrete",
            range=_RANGE,
            multiple=factor,
            downsample=factor,
            codebook={"codes": self._codes},
            bits_per_token=math.log2(self._codes),
        )

    def encode(self, images: Tensor) -> Tokens:
        latents = self._net.encode(images).latents
        _, _, (_, _, indices) = self._net.quantize(latents)  # one flat axis over images, rows and columns
        return Tokens.from_indices(indices.reshape(len(latents), *latents.shape[2:]), self._codes)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        codes = self._net.quantize.embedding(tokens.tensor).permute(0, 3, 1, 2).contiguous()
        # MoVQ's normalisation layers also take the quantised codes as input (Zheng et al. 2022, arXiv:2209.09002).
        condition = codes if self._net.config.norm_type == "spatial" else None
        return self._net.decoder(self._net.post_quant_conv(codes), condition)


def load(argument: str, device: str, allow_download: bool) -> Tokenizer:
    """Return the tokenizer from a local folder or hub repository.

    Raises AdapterError where it is not on this machine, is not of the four classes, has only pickled weights or other
    tensors than the network of its config, or does not behave as its config says.
    """
    folder = locate(argument, allow_download)
    kind, config_sha256 = _kind(folder)
    net = _read(folder, kind).float().eval().requires_grad_(False).to(device)
    config: Any = net.config
    if config.in_channels != 3 or config.get("out_channels", 3) != 3:
        raise AdapterError(
            f"{folder / _CONFIG}: it is not an autoencoder of RGB images (in_channels {config.in_channels})"
        )
    adapter = adapter_of(f"diffusers:{argument}", net, kind)
    adapter.config = config_sha256
    assert adapter.spec.downsample is not None
    _check(adapter, folder, adapter.spec.downsample, device)
    return adapter


def adapter_of(name: str, net: Any, kind: str) -> Continuous | DiffusersVQ:
    """Return the tokenizer for a network of one of the four classes."""
    factor = 2 ** (len(net.config[STAGES[kind]]) - 1)
    return DiffusersVQ(name, net, factor) if kind == "VQModel" else Continuous(name, net, kind, factor)


def locate(argument: str, allow_download: bool) -> Path:
    """Return the folder that holds the config and the weights: a local folder, else a folder in the hub's cache.

    Raises AdapterError where there is no such folder or it lacks the files.
    """
    folder = Path(argument).expanduser()
    if folder.is_dir():
        return _inside(folder, "point to its folder, or download it again")
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", argument):
        raise AdapterError(f"no folder '{argument}'; give a folder, or a hub id such as stabilityai/sd-vae-ft-mse")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise AdapterError(f"diffusers:{argument} {_INSTALL}") from error
    wanted = [str(PurePosixPath(sub) / file) for sub in SUBFOLDERS for file in (_CONFIG, _WEIGHTS)]
    remedy = f"get it with 'hf download {argument}', or allow the download with --allow-download"
    try:
        # With `local_files_only` this returns at once; diffusers' own search retries for a minute without a network.
        found = snapshot_download(argument, allow_patterns=wanted, local_files_only=not allow_download)
    except LocalEntryNotFoundError as error:
        advice = f"its download failed: {_line(error)}" if allow_download else remedy
        raise AdapterError(f"'{argument}' is neither a local folder nor in the Hugging Face cache; {advice}") from error
    except Exception as error:  # HTTP, network and cache errors have no common class
        raise AdapterError(f"'{argument}' cannot be read from the Hugging Face hub ({_line(error)})") from error
    return _inside(Path(found), "its repository does not publish it in this form" if allow_download else remedy)


def _inside(root: Path, remedy: str) -> Path:
    folder = next((root / sub for sub in SUBFOLDERS if (root / sub / _CONFIG).is_file()), None)
    if folder is None:
        searched = ", ".join(str(PurePosixPath(sub) / _CONFIG) for sub in SUBFOLDERS)
        raise AdapterError(f"{root} is not a diffusers autoencoder or pipeline: it has none of {searched}; {remedy}")
    if (folder / _WEIGHTS).is_file():
        return folder
    pickled = sorted(path.name for suffix in ("bin", "pt", "pth", "ckpt") for path in folder.glob(f"*.{suffix}"))
    if not pickled:
        raise AdapterError(f"{folder} has no {_WEIGHTS}; {remedy}")
    raise AdapterError(
        f"{folder} holds only pickled weights ({', '.join(pickled)}), which can execute any code when they are read; "
        "provide a safetensors file, or, if you trust the author, convert it once in Python with "
        f"CLASS.from_pretrained('{folder}', use_safetensors=False).save_pretrained('NEW_FOLDER'), CLASS as in {_CONFIG}"
    )


def _kind(folder: Path) -> tuple[str, str]:
    """Return the class that the config names and the sha256 of the config. The config determines settings that no
    tensor shows, such as activations and numbers of groups."""
    try:
        text = (folder / _CONFIG).read_bytes()
        kind = json.loads(text)["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{folder / _CONFIG} is not a diffusers config ({type(error).__name__}: {error})") from error
    if kind not in STAGES:
        raise AdapterError(f"{folder / _CONFIG} is of class '{kind}'; tokbench supports {', '.join(STAGES)}")
    return kind, hashlib.sha256(text).hexdigest()


def _read(folder: Path, kind: str) -> nn.Module:
    try:
        import diffusers

        autoencoder: Any = getattr(diffusers, kind)
    except (ImportError, RuntimeError) as error:  # RuntimeError: its lazy import of the class failed
        raise AdapterError(f"diffusers:{folder} {_INSTALL} ({_line(error)})") from error
    try:
        _refuse_integer_weights(folder, kind)
        net, report = autoencoder.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except AdapterError:
        raise
    except Exception as error:  # OSError, ValueError, RuntimeError, safetensors' own ...
        raise AdapterError(f"{folder}: diffusers cannot load this {kind} ({_line(error)})") from error
    _check_state(report, folder, kind)
    return net


def _check_state(report: Mapping[str, Any], folder: Path, kind: str) -> None:
    """Check that every tensor of the file has its place in the network and the reverse. Raises AdapterError.

    The library only warns and then continues with random values, or with a network other than that of the weights.
    Names that the library maps itself are accepted.
    """
    names = {key: [str(name) for name in report.get(key, ())] for key in ("missing_keys", "unexpected_keys")}
    # Entries of `mismatched_keys` are (name, shape in the file, shape in the network).
    names["mismatched_keys"] = [str(entry[0]) for entry in report.get("mismatched_keys", ())]
    messages = {
        "missing_keys": f"lacks {{}} of the {kind}'s tensors ({{}})",
        "unexpected_keys": f"holds {{}} tensors that the {kind} of {_CONFIG} does not have ({{}})",
        "mismatched_keys": f"holds {{}} tensors whose shape differs from the {kind}'s ({{}})",
    }
    # Only some files hold batch norm's step counters, which inference does not use.
    faulty = {key: sorted(name for name in names[key] if not name.endswith(_COUNTER)) for key in messages}
    problems = [
        message.format(len(faulty[key]), ", ".join(faulty[key][:3])) for key, message in messages.items() if faulty[key]
    ]
    problems += [" ".join(str(text).split())[:200] for text in report.get("error_msgs", ())]
    if problems:
        raise AdapterError(
            f"{folder / _WEIGHTS} {'; it '.join(problems)}; provide the {_CONFIG} and the weights of one model"
        )


def _refuse_integer_weights(folder: Path, kind: str) -> None:
    """Raise AdapterError where a file holds integers: quantized weights, whose scales are not supported."""
    from safetensors import safe_open

    with safe_open(folder / _WEIGHTS, framework="pt") as file:
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  # it is not a mapping
    integer_names = [name for name, dtype in kinds.items() if dtype.startswith(("I", "U", "BOOL"))]
    integer_names = sorted(name for name in integer_names if not name.endswith(_COUNTER))
    if integer_names:
        raise AdapterError(
            f"{folder / _WEIGHTS} holds integers in {len(integer_names)} of the {kind}'s tensors, such as "
            f"{integer_names[0]}: quantized weights are not supported; provide them in float32, float16 or bfloat16"
        )


@torch.inference_mode()
def _check(adapter: Tokenizer, folder: Path, factor: int, device: str) -> None:
    """Encode and decode one small image to check that the config's sizes are the model's. Raises AdapterError."""
    side = 2 * factor
    try:
        tokens = adapter.encode(torch.zeros(1, 3, side, side, device=device))
        image = adapter.decode(tokens, [0])
    except RuntimeError as error:
        raise AdapterError(f"{folder}: it cannot reconstruct a {side}x{side} image ({_line(error)})") from error
    if int(tokens.length[0]) != 4 or image.shape != (1, 3, side, side):
        raise AdapterError(
            f"{folder}: its config declares one token per {factor}x{factor} pixels, but a {side}x{side} image was "
            f"encoded to {int(tokens.length[0])} tokens and decoded to {image.shape[3]}x{image.shape[2]}"
        )


def _line(error: Exception) -> str:
    """Return the first 300 characters of an error's text in one line."""
    return " ".join(str(error).split())[:300]
