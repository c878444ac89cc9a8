"""Protocol: every choice between an image file and a number. A small file with a name and a hash."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from tokbench.errors import UsageError
from tokbench.validate import convert, unknown_keys

Rounding = Literal["nearest", "truncate", "truncate-signed", "none"]
"""How values in [0, 1] become 8-bit levels. `truncate` cuts 255 x off; `truncate-signed` does so after a trip through
[-1, 1] in float32, which also costs an 8-bit original one level at 95 of its 256 levels; `none` leaves them."""

InputPath = Literal["tf1", "half-pixel", "clean"]
"""How images reach the Inception network's 299 px: TensorFlow-1 bilinear and (x - 128) / 128; half-pixel bilinear
without antialias and 2x - 1; Pillow's bicubic for each float channel, clipped, and (x - 128) / 128."""


@dataclass(frozen=True)
class Psnr:
    """average: `image`, the mean of each image's dB; `batch`, the mean over batches of `batch_size` images of their
    means (a short last batch weighs as much as the others); `pooled`, the dB of the mean of all squared errors.

    epsilon is added to the root of the MSE, in levels of 255, so that an exact image has a finite value; with 0 exact
    images are counted apart.
    """

    average: Literal["image", "batch", "pooled"] = "image"
    batch_size: int = 1
    epsilon: float = 0.0
    rounding: Rounding | None = None


@dataclass(frozen=True)
class Ssim:
    """window: Gaussian of sigma 1.5, 11 pixels wide, or uniform, 7 wide. covariance: of the whole window (population)
    or unbiased (sample). range: of the data, in levels of 255. border: positions where the whole window lies inside,
    or all, the image being reflected at its edge."""

    window: Literal["gaussian", "uniform"] = "gaussian"
    covariance: Literal["population", "sample"] = "population"
    range: float = 255.0
    border: Literal["valid", "reflect"] = "valid"
    rounding: Rounding | None = None


@dataclass(frozen=True)
class Lpips:
    """net: which of `lpips` and `lpips_vgg` the protocol means. input: images in [-1, 1], as the networks were trained,
    or in [0, 1], the commonest mistake with them."""

    net: Literal["alex", "vgg"] = "alex"
    input: Literal["signed", "unsigned"] = "signed"
    rounding: Rounding | None = None


@dataclass(frozen=True)
class Features:
    """Of the Inception network, for every distance of distributions."""

    input: InputPath = "tf1"
    rounding: Rounding | None = None


@dataclass(frozen=True)
class InceptionScore:
    """splits: how many equal parts, shuffled with torch-fidelity's seed or not; or, in order, parts of `split_size`."""

    splits: int = 10
    split_size: int | None = None
    shuffle: bool = True


@dataclass(frozen=True)
class PublishedSetup:
    """What its authors use, for readers and warnings; it changes no number here, so it is not in the hash."""

    size: int | None = None
    num_images: int | None = None
    reference: str = ""
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Protocol:
    """One way to prepare and compare images; every field below `source` changes numbers and is in the hash.

    crop: `centre` scales the short side to the size, both sides rounded to nearest, and cuts the centre square, its
    corner rounded down; `torchvision` truncates the long side and rounds the corner to nearest (Resize, CenterCrop);
    `adm` first halves with a box filter while the short side is at least twice the size; `pad` scales the long side and
    centres the whole image on black (Pillow's Lanczos); `none` takes images as they are. filter, library, antialias: of
    the scaling; Pillow always antialiases, OpenCV never (but its area filter),
    `tensor` is torch's on float images, whose pixels stay unrounded.
    rounding: of decoded images to 8 bits (and of references that are not), once; a metric's table may say otherwise.
    storage: reconstructions stay in memory, or pass through PNG or `jpeg.q<quality>` (Pillow, 4:2:0).
    reference: what distributions are compared with: the same crops, the whole original files, or a statistics file.
    """

    name: str
    summary: str = ""
    source: tuple[str, ...] = ()
    published: PublishedSetup = PublishedSetup()
    crop: Literal["centre", "torchvision", "adm", "pad", "none"] = "centre"
    filter: Literal["lanczos", "bicubic", "bilinear", "area"] = "bicubic"
    library: Literal["pillow", "opencv", "tensor"] = "pillow"
    antialias: bool = True
    rounding: Rounding = "nearest"
    storage: str = "memory"
    reference: Literal["crop", "original", "statistics"] = "crop"
    psnr: Psnr = field(default_factory=Psnr)
    ssim: Ssim = field(default_factory=Ssim)
    lpips: Lpips = field(default_factory=Lpips)
    features: Features = field(default_factory=Features)
    inception_score: InceptionScore = field(default_factory=InceptionScore)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"memory|png|jpeg\.q([0-9]|[1-9][0-9]|100)", self.storage):
            raise UsageError(f"protocol '{self.name}': storage = '{self.storage}'; it is memory, png or jpeg.q<0-100>")
        area = self.filter == "area"
        antialiased = {"pillow": True, "opencv": area, "tensor": self.antialias or area}
        if self.antialias != antialiased[self.library]:
            raise UsageError(
                f"protocol '{self.name}': {self.library}'s {self.filter} filter has antialias = "
                f"{str(antialiased[self.library]).lower()}"
            )
        if self.crop == "pad" and (self.filter, self.library) != ("lanczos", "pillow"):
            raise UsageError(f"protocol '{self.name}': crop = pad scales with Pillow's lanczos filter")
        if self.library == "tensor" and self.filter == "lanczos":
            raise UsageError(f"protocol '{self.name}': tensors have no Lanczos filter; use bicubic, bilinear or area")
        if self.storage != "memory" and self.rounding == "none":
            raise UsageError(f"protocol '{self.name}': a {self.storage} file holds 8 bits, so rounding cannot be none")
        if self.psnr.average == "pooled" and self.psnr.epsilon:
            raise UsageError(f"protocol '{self.name}': a pooled PSNR has no epsilon")
        counts = (self.psnr.batch_size, self.inception_score.splits, self.inception_score.split_size or 1)
        if min(counts) < 1 or self.inception_score.split_size == 0 or not 0 < self.ssim.range < math.inf:
            raise UsageError(f"protocol '{self.name}': batch_size, splits, split_size and range must be positive")
        if not 0 <= self.psnr.epsilon < math.inf:
            raise UsageError(f"protocol '{self.name}': epsilon must be finite and not negative")

    @property
    def sha256(self) -> str:
        """Hash of every field that changes a number (not of name, summary, source and published)."""
        told = {key: value for key, value in asdict(self).items() if key not in _UNHASHED}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def preparation(self) -> tuple[str, str, str, bool]:
        """The fields that decide which pixels a tokenizer gets."""
        return self.crop, self.filter, self.library, self.antialias

    @property
    def reference_preparation(self) -> dict[str, str | bool]:
        """What decides the pixels that a network sees of a reference, beside their size: of the fields above only those
        that have an effect. 8-bit pixels stay what they are under every rounding but `truncate-signed`."""
        told: dict[str, str | bool] = {"reference": "original" if self.reference == "original" else "crop"}
        if told["reference"] == "crop":
            told["crop"] = self.crop
            if self.crop != "none":
                told |= {"filter": self.filter, "library": self.library, "antialias": self.antialias}
        rounding = self.rounding_of(self.features)
        return told | ({"rounding": rounding} if "tensor" in told.values() or rounding == "truncate-signed" else {})

    def rounding_of(self, part: Psnr | Ssim | Lpips | Features) -> Rounding:
        """How a metric sees images: as its own table says, else as the protocol does."""
        return part.rounding or self.rounding

    def with_changes(self, name: str, **changes: Any) -> Protocol:
        """The same with other choices: fields of this class, or `part__field` for a field of a metric's table."""
        whole: dict[str, Any] = {}
        for key, value in changes.items():
            part, _, inner = key.partition("__")
            whole[part] = replace(whole.get(part, getattr(self, part)), **{inner: value}) if inner else value
        return replace(self, name=name, summary="", source=(), published=PublishedSetup(), **whole)


TOKBENCH = Protocol("tokbench")
"""The default; `presets/tokbench.toml` writes the same fields out."""

_UNHASHED = ("name", "summary", "source", "published")
_TABLES = {"published": PublishedSetup, "psnr": Psnr, "ssim": Ssim, "lpips": Lpips, "features": Features,
           "inception_score": InceptionScore}  # fmt: skip
_FOLDER = files("tokbench.protocol").joinpath("presets")


def protocols() -> list[str]:
    """The names of the protocols that tokbench ships, the default first."""
    names = sorted(path.name.removesuffix(".toml") for path in _FOLDER.iterdir())
    return sorted(names, key=lambda name: name != "tokbench")


def load_protocol(name: str) -> Protocol:
    """The shipped protocol of that name, or the one in a .toml file. Raises UsageError, naming the fault."""
    if name.endswith(".toml") and Path(name).expanduser().is_file():
        path = Path(name).expanduser()
        if path.stem in protocols():
            raise UsageError(f"{path}: tokbench ships a protocol '{path.stem}'; give yours another name")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", path.stem):
            raise UsageError(f"{path}: a protocol's name holds letters, digits, dashes and underscores")
        text, name = path.read_text(encoding="utf-8"), path.stem
    elif name in protocols():
        text = _FOLDER.joinpath(f"{name}.toml").read_text(encoding="utf-8")
    else:
        near = difflib.get_close_matches(name, protocols(), 1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise UsageError(f"no protocol '{name}'; {hint}there are: {', '.join(protocols())}, or give a .toml file")
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"protocol '{name}' is not readable TOML ({error})") from error
    return _read(name, told)


def _read(name: str, told: dict[str, Any]) -> Protocol:
    """A TOML file as a Protocol. Raises UsageError for unknown keys and wrong values."""
    for kind, table in ((Protocol, told), *((part, told.get(key, {})) for key, part in _TABLES.items())):
        if unknown := unknown_keys(table, kind):
            known = ", ".join(entry.name for entry in fields(kind))
            raise UsageError(f"protocol '{name}': unknown {', '.join(unknown)}; there are {known}")
    return convert(told | {"name": name}, Protocol, f"protocol '{name}'", UsageError)


def describe_protocol(protocol: Protocol) -> dict[str, Any]:
    """What a result must say of its protocol: name, hash, what its authors use, and whether whole
    files are what distributions are compared with."""
    published = {key: value for key in ("size", "num_images") if (value := getattr(protocol.published, key))}
    told: dict[str, Any] = {"name": protocol.name, "sha256": protocol.sha256}
    if protocol.reference == "original":  # tables must say so
        told["reference"] = protocol.reference
    return told | ({"published": published} if published else {})
