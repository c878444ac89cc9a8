"""`torchscript:DIR`: encoder.jit and decoder.jit, or autoencoder.jit alone, the format of NVIDIA's Cosmos image
tokenizers.

According to NVIDIA/Cosmos-Tokenizer on GitHub (image_lib.py, networks/, modules/), images are in [-1, 1], and
encoder.jit returns a tuple whose first entry is the input of decoder.jit: latents (B, 16, h, w) of a continuous
tokenizer (CI), or int32 indices (B, h, w) of a discrete one (DI). A TorchScript file is a program: load only files
whose author you trust.
"""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tokbench.errors import AdapterError
from tokbench.io.hashing import sha256_of
from tokbench.tokenizers.base import ImageModel, PrecomputedImages, Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens
from tokbench.validate import Number, Positive, convert, unknown_keys

SETTINGS = "tokbench.toml"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_GET = "get a Cosmos tokenizer with: hf download nvidia/Cosmos-0.1-Tokenizer-CI8x8 --local-dir DIR"

# Every Cosmos DI uses the FSQ levels 8, 8, 8, 5, 5, 5 (cosmos_tokenizer/networks/configs.py; arXiv:2501.03575).
COSMOS_CODES = 8**3 * 5**3
_COSMOS_DISCRETE = re.compile(r"cosmos.*di_?f?\d+x\d+", re.IGNORECASE)

_PROBE = 64  # pixels per side of the test image, or a multiple of it

# Cosmos's own library pads to this multiple (utils.py); the factor of a single autoencoder.jit is unknown.
_WHOLE_MULTIPLE = 16


@dataclass(frozen=True)
class Settings:
    """The content of tokbench.toml: facts that a .jit file does not contain. `multiple` and `size` are those of
    TokenizerSpec."""

    codebook_size: Positive | None = None
    range: tuple[Number, Number] = (-1.0, 1.0)
    multiple: Positive | None = None
    size: Positive | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None

    def __post_init__(self) -> None:
        if not self.range[0] < self.range[1]:
            raise ValueError("range must give the lower number first")

    @staticmethod
    def read(path: Path) -> Settings:
        """Read the settings, or return the defaults where there is no such file. Raises AdapterError where it is
        malformed."""
        hint = f"; its keys are {', '.join(Settings.__dataclass_fields__)}; write range as in [-1, 1]"
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise AdapterError(f"{path}: {_line(error)}{hint}") from error
        if unknown := unknown_keys(content, Settings):
            raise AdapterError(f"{path}: unknown key {', '.join(unknown)}{hint}")
        return convert(content, Settings, str(path), AdapterError, hint)


class Whole(PrecomputedImages):
    """An autoencoder.jit alone. Its tokens cannot be read, so bits are not reported."""

    def __init__(
        self, name: str, networks: nn.ModuleDict, dtype: torch.dtype, settings: Settings, probe: Tensor
    ) -> None:
        self.module, self._net, self.dtype = networks, networks["autoencoder"], dtype
        multiple = settings.multiple or _WHOLE_MULTIPLE
        self.spec = TokenizerSpec(name, "images", range=settings.range, multiple=multiple, size=settings.size)
        _check_size(self._run(probe), probe, "autoencoder.jit")

    def _run(self, images: Tensor) -> Tensor:
        return _first(self._net(images.to(self.dtype))).float()

    def reconstruct(self, images: Tensor, names: Sequence[str]) -> Tensor:
        return self._run(images)


class ScriptedPair(Tokenizer):
    """An encoder.jit and a decoder.jit, with indices (B, h, w) or latents (B, C, h, w), depending on the output for a
    test image."""

    def __init__(
        self, name: str, networks: nn.ModuleDict, dtype: torch.dtype, settings: Settings, probe: Tensor
    ) -> None:
        self.module, self.dtype = networks, dtype
        self._encoder, self._decoder = networks["encoder"], networks["decoder"]
        coded, side = self._code(probe), probe.shape[3]
        discrete = not coded.is_floating_point()
        rows, columns = coded.shape[-2:] if coded.dim() == (3 if discrete else 4) else (0, 0)
        if rows != columns or rows == 0 or side % rows:
            raise AdapterError(
                f"encoder.jit returned {tuple(coded.shape)} for a {side}x{side} image: neither indices (B, h, w) "
                "nor latents (B, C, h, w) on a square grid"
            )
        _check_size(_first(self._decoder(coded)), probe, "decoder.jit")
        self._input = coded.dtype if discrete else dtype  # the type that decoder.jit expects
        factor = side // rows
        codes = settings.codebook_size if discrete else None
        if discrete and codes is None:
            raise AdapterError(
                "it is a discrete tokenizer, and a .jit file does not contain the size of its codebook; write into its "
                f"{SETTINGS}:\ncodebook_size = N  # the number of codes, {COSMOS_CODES} for Cosmos DI"
            )
        self.spec = TokenizerSpec(
            name,
            "discrete" if discrete else "continuous",
            range=settings.range,
            multiple=settings.multiple or factor,
            size=settings.size,
            downsample=factor,
            codebook={"codes": codes} if codes else {},
            bits_per_token=math.log2(codes) if codes else 16.0 * coded.shape[1],
        )

    def _code(self, images: Tensor) -> Tensor:
        out = self._encoder(images.to(self.dtype))
        first, last = _first(out), out[-1] if isinstance(out, tuple) else None
        # A VAE's encoder returns a sample and, last, (mean, log variance). The mean is used, as in all adapters.
        if isinstance(last, tuple) and isinstance(last[0], Tensor) and last[0].shape == first.shape:
            return last[0]
        return first

    def encode(self, images: Tensor) -> Tokens:
        coded = self._code(images)
        if self.spec.kind == "discrete":
            return Tokens.from_indices(coded, self.spec.codebook["codes"])
        return Tokens.from_latents(coded, coded.shape[2] * coded.shape[3], channels_last=False)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return _first(self._decoder(tokens.tensor.to(self._input))).float()


def _first(out: Any) -> Tensor:
    while isinstance(out, tuple) and out:
        out = out[0]
    if not isinstance(out, Tensor):
        raise AdapterError(
            f"a .jit file must return a tensor, or a tuple that starts with one, not {type(out).__name__}"
        )
    return out


def _check_size(image: Tensor, probe: Tensor, file: str) -> None:
    if image.shape != probe.shape:
        raise AdapterError(f"{file} returned {tuple(image.shape)} for an image {tuple(probe.shape)}")


def _cosmos_codes(folder: Path) -> int | None:
    """Return the codebook size of a Cosmos DI, which is recognised by the folder's name, else None. In the hub's cache
    the folder two levels above has that name."""
    path = folder.resolve()
    named = path.parent.parent if path.parent.name == "snapshots" else path
    return COSMOS_CODES if _COSMOS_DISCRETE.search(named.name) else None


def load(argument: str, device: str, allow_download: bool) -> ImageModel:
    """Return the tokenizer in a folder: encoder.jit and decoder.jit, or autoencoder.jit where these do not exist.

    It runs in float32 where its files allow that, else in the type of its parameters; `dtype` in tokbench.toml
    overrides this. Raises AdapterError that names the file and the remedy.
    """
    folder = Path(argument).expanduser()
    if not folder.is_dir():
        raise AdapterError(f"no folder '{argument}'; {_GET}")
    settings = Settings.read(folder / SETTINGS)
    settings = replace(settings, codebook_size=settings.codebook_size or _cosmos_codes(folder))
    parts = [part for part in ("encoder", "decoder") if (folder / f"{part}.jit").is_file()]
    if len(parts) == 1:
        raise AdapterError(f"{folder} has {parts[0]}.jit but not the other one of encoder.jit and decoder.jit; {_GET}")
    if not parts and not (folder / "autoencoder.jit").is_file():
        raise AdapterError(f"{folder} has no encoder.jit and decoder.jit, and no autoencoder.jit; {_GET}")
    # Where all three files exist, the pair is evaluated, since its tokens are known.
    files = {part: folder / f"{part}.jit" for part in parts or ["autoencoder"]}
    networks = nn.ModuleDict({part: _read(file, device) for part, file in files.items()})
    networks.eval().requires_grad_(False)
    # These files contain programs, and frozen ones have no parameters, so results must also record the files' hashes.
    digests = [sha256_of(file) for file in (*files.values(), folder / SETTINGS) if file.is_file()]
    networks.register_buffer("files", torch.tensor(list(hashlib.sha256("".join(digests).encode()).digest())))
    parameter_dtype = next((p.dtype for p in networks.parameters() if p.is_floating_point()), torch.float32)
    side = settings.size or math.lcm(_PROBE, settings.multiple or 1)
    grey = torch.full((1, 3, side, side), sum(settings.range) / 2, device=device)
    build = ScriptedPair if parts else Whole
    for dtype in [_DTYPES[settings.dtype]] if settings.dtype else dict.fromkeys([torch.float32, parameter_dtype]):
        networks.to(dtype)
        try:
            with torch.inference_mode():
                return build(f"torchscript:{argument}", networks, dtype, settings, grey)
        except AdapterError as error:
            raise AdapterError(f"{folder}: {error}") from error
        except (RuntimeError, torch.jit.Error) as error:  # a traced file may cast to the type used for tracing
            failed = _line(error)
    raise AdapterError(
        f"{folder} cannot reconstruct a {side}x{side} image ({failed}); if it accepts only one size or one type, "
        f'write into its {SETTINGS}, for example:\nsize = 256\ndtype = "bfloat16"'
    )


def _read(path: Path, device: str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # PyTorch advises against creating TorchScript files, but these exist already.
            warnings.filterwarnings("ignore", r"`torch\.jit\.load` is (deprecated|not supported)")
            return torch.jit.load(path, map_location=device)
    except (RuntimeError, ValueError, OSError) as error:
        raise AdapterError(f"{path} is not a readable TorchScript file ({_line(error)}); download it again") from error


def _line(error: Exception) -> str:
    """Return one line of a library's error: the last line of an interpreter's traceback, else the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return (lines[-1] if "TorchScript interpreter" in lines[0] else lines[0])[:200]
