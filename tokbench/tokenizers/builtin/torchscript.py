"""`torchscript:DIR`: encoder.jit and decoder.jit, or autoencoder.jit alone: how NVIDIA ships Cosmos image tokenizers.

Facts from NVIDIA/Cosmos-Tokenizer on GitHub (image_lib.py, networks/, modules/): images in [-1, 1]; encoder.jit gives
a tuple, whose first entry is what decoder.jit takes: latents (B, 16, h, w) of a continuous tokenizer (CI), int32
indices (B, h, w) of a discrete one (DI). A TorchScript file is a program: load only those whose author you trust.
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
_GET = "a Cosmos tokenizer comes with: hf download nvidia/Cosmos-0.1-Tokenizer-CI8x8 --local-dir DIR"

# FSQ levels 8, 8, 8, 5, 5, 5 of every Cosmos DI (cosmos_tokenizer/networks/configs.py; arXiv:2501.03575).
COSMOS_CODES = 8**3 * 5**3
_COSMOS_DISCRETE = re.compile(r"cosmos.*di_?f?\d+x\d+", re.IGNORECASE)

_PROBE = 64  # pixels a side, or a multiple of it

# What Cosmos's own library pads to (utils.py); an autoencoder in one piece does not show its factor.
_WHOLE_MULTIPLE = 16


@dataclass(frozen=True)
class Settings:
    """tokbench.toml: what a .jit file does not tell. `multiple` and `size` are those of TokenizerSpec."""

    codebook_size: Positive | None = None
    range: tuple[Number, Number] = (-1.0, 1.0)
    multiple: Positive | None = None
    size: Positive | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None

    def __post_init__(self) -> None:
        if not self.range[0] < self.range[1]:
            raise ValueError("range gives the lower number first")

    @staticmethod
    def read(path: Path) -> Settings:
        """Defaults where there is no such file. Raises AdapterError where it cannot be read or says something else."""
        hint = f"; its keys are {', '.join(Settings.__dataclass_fields__)}, range as in [-1, 1]"
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError) as error:
            raise AdapterError(f"{path}: {_line(error)}{hint}") from error
        if unknown := unknown_keys(given, Settings):
            raise AdapterError(f"{path}: unknown {', '.join(unknown)}{hint}")
        return convert(given, Settings, str(path), AdapterError, hint)


class Whole(PrecomputedImages):
    """autoencoder.jit alone. Its tokens are out of reach, so only its images are judged: bits are not reported."""

    def __init__(self, name: str, networks: nn.ModuleDict, dtype: torch.dtype, told: Settings, probe: Tensor) -> None:
        self.module, self._net, self.dtype = networks, networks["autoencoder"], dtype
        multiple = told.multiple or _WHOLE_MULTIPLE
        self.spec = TokenizerSpec(name, "images", range=told.range, multiple=multiple, size=told.size)
        _check_size(self._run(probe), probe, "autoencoder.jit")

    def _run(self, images: Tensor) -> Tensor:
        return _first(self._net(images.to(self.dtype))).float()

    def reconstruct(self, images: Tensor, names: Sequence[str]) -> Tensor:
        return self._run(images)


class ScriptedPair(Tokenizer):
    """encoder.jit and decoder.jit: indices (B, h, w) or latents (B, C, h, w), whichever the probe image becomes."""

    def __init__(self, name: str, networks: nn.ModuleDict, dtype: torch.dtype, told: Settings, probe: Tensor) -> None:
        self.module, self.dtype = networks, dtype
        self._encoder, self._decoder = networks["encoder"], networks["decoder"]
        coded, side = self._code(probe), probe.shape[3]
        discrete = not coded.is_floating_point()
        rows, columns = coded.shape[-2:] if coded.dim() == (3 if discrete else 4) else (0, 0)
        if rows != columns or rows == 0 or side % rows:
            raise AdapterError(
                f"encoder.jit gave {tuple(coded.shape)} for a {side}x{side} image: neither indices (B, h, w) "
                "nor latents (B, C, h, w) of a square grid"
            )
        _check_size(_first(self._decoder(coded)), probe, "decoder.jit")
        self._input = coded.dtype if discrete else dtype  # what decoder.jit is used to
        factor = side // rows
        codes = told.codebook_size if discrete else None
        if discrete and codes is None:
            raise AdapterError(
                "a discrete tokenizer, and a .jit file does not tell the size of its codebook; write into its "
                f"{SETTINGS}:\ncodebook_size = N  # the number of codes, {COSMOS_CODES} for Cosmos DI"
            )
        self.spec = TokenizerSpec(
            name,
            "discrete" if discrete else "continuous",
            range=told.range,
            multiple=told.multiple or factor,
            size=told.size,
            downsample=factor,
            codebook={"codes": codes} if codes else {},
            bits_per_token=math.log2(codes) if codes else 16.0 * coded.shape[1],
        )

    def _code(self, images: Tensor) -> Tensor:
        out = self._encoder(images.to(self.dtype))
        first, last = _first(out), out[-1] if isinstance(out, tuple) else None
        # A VAE's encoder gives a sample and, last, (mean, log variance): its tokens are the mean, as everywhere here.
        if isinstance(last, tuple) and isinstance(last[0], Tensor) and last[0].shape == first.shape:
            return last[0]
        return first

    def encode(self, images: Tensor) -> Tokens:
        coded = self._code(images)
        if self.spec.kind == "discrete":
            return Tokens.from_indices(coded, self.spec.codebook["codes"])
        return Tokens.from_latents(coded, tokens=coded.shape[2] * coded.shape[3])

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return _first(self._decoder(tokens.tensor.to(self._input))).float()


def _first(out: Any) -> Tensor:
    while isinstance(out, tuple) and out:
        out = out[0]
    if not isinstance(out, Tensor):
        raise AdapterError(f"a .jit file must give a tensor, or a tuple that starts with one, not {type(out).__name__}")
    return out


def _check_size(image: Tensor, probe: Tensor, file: str) -> None:
    if image.shape != probe.shape:
        raise AdapterError(f"{file} gave {tuple(image.shape)} for an image of {tuple(probe.shape)}")


def _cosmos_codes(folder: Path) -> int | None:
    """The codebook of a Cosmos DI, known by the folder's name (the hub's cache names folders by hash, one deeper)."""
    place = folder.resolve()
    named = place.parent.parent if place.parent.name == "snapshots" else place
    return COSMOS_CODES if _COSMOS_DISCRETE.search(named.name) else None


def load(argument: str, device: str, allow_download: bool) -> ImageModel:
    """The tokenizer in a folder: encoder.jit and decoder.jit, or, where there is only that, autoencoder.jit.

    It runs in float32 where its files allow that, else in its parameters' own type; `dtype` in tokbench.toml decides.
    Raises AdapterError that names the file and the remedy.
    """
    folder = Path(argument).expanduser()
    if not folder.is_dir():
        raise AdapterError(f"no folder '{argument}'; {_GET}")
    told = Settings.read(folder / SETTINGS)
    told = replace(told, codebook_size=told.codebook_size or _cosmos_codes(folder))
    parts = [part for part in ("encoder", "decoder") if (folder / f"{part}.jit").is_file()]
    if len(parts) == 1:
        raise AdapterError(f"{folder} has {parts[0]}.jit but not the other half of it; {_GET}")
    if not parts and not (folder / "autoencoder.jit").is_file():
        raise AdapterError(f"{folder} has no encoder.jit and decoder.jit, and no autoencoder.jit; {_GET}")
    # Tokens first: where all three files are there, the pair is judged, from its tokens alone.
    files = {part: folder / f"{part}.jit" for part in parts or ["autoencoder"]}
    networks = nn.ModuleDict({part: _read(file, device) for part, file in files.items()})
    networks.eval().requires_grad_(False)
    # These files hold programs, and frozen ones no parameters at all: results must tell them apart by the files too.
    digests = [sha256_of(file) for file in (*files.values(), folder / SETTINGS) if file.is_file()]
    networks.register_buffer("files", torch.tensor(list(hashlib.sha256("".join(digests).encode()).digest())))
    own = next((p.dtype for p in networks.parameters() if p.is_floating_point()), torch.float32)
    side = told.size or math.lcm(_PROBE, told.multiple or 1)
    grey = torch.full((1, 3, side, side), sum(told.range) / 2, device=device)
    make = ScriptedPair if parts else Whole
    for dtype in [_DTYPES[told.dtype]] if told.dtype else dict.fromkeys([torch.float32, own]):
        networks.to(dtype)
        try:
            with torch.inference_mode():
                return make(f"torchscript:{argument}", networks, dtype, told, grey)
        except AdapterError as error:
            raise AdapterError(f"{folder}: {error}") from error
        except (RuntimeError, torch.jit.Error) as error:  # a traced file may hold casts to the type it was traced in
            failed = _line(error)
    raise AdapterError(
        f"{folder} cannot reconstruct a {side}x{side} image ({failed}); if it takes one size or one type only, write "
        f'into its {SETTINGS}, for example:\nsize = 256\ndtype = "bfloat16"'
    )


def _read(path: Path, device: str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # PyTorch advises against making TorchScript files; these are made.
            warnings.filterwarnings("ignore", r"`torch\.jit\.load` is (deprecated|not supported)")
            return torch.jit.load(path, map_location=device)
    except (RuntimeError, ValueError, OSError) as error:
        raise AdapterError(f"{path} is no readable TorchScript file ({_line(error)}); download it again") from error


def _line(error: Exception) -> str:
    """One line of a library's text: the last one of an interpreter's traceback, else the first one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return (lines[-1] if "TorchScript interpreter" in lines[0] else lines[0])[:200]
