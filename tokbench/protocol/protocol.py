"""Protocol: all settings that determine a metric value for a given image file. Each has a name and a hash."""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from tokbench.errors import UsageError, did_you_mean
from tokbench.protocol.degradation import Degradation
from tokbench.validate import convert, unknown_keys

Rounding = Literal["nearest", "truncate", "truncate-signed", "none"]
"""How values in [0, 1] are converted to 8-bit levels. `truncate` truncates 255 x; `truncate-signed` truncates after a
conversion to [-1, 1] and back in float32, which lowers 95 of the 256 levels of an 8-bit image by one; `none` does not
round."""

InputPath = Literal["tf1", "half-pixel", "clean"]
"""How images are resized to the 299 px input of the Inception network and normalised. `tf1`: bilinear as in TensorFlow
1, (x - 128) / 128. `half-pixel`: half-pixel bilinear without antialiasing, 2x - 1. `clean`: Pillow's bicubic filter on
each float channel, clipped, (x - 128) / 128."""


@dataclass(frozen=True)
class Psnr:
    """Settings of PSNR.

    average: `image`, the mean of the images' PSNR in dB; `batch`, the mean of the means of batches of `batch_size`
    images (a short last batch has the same weight as the others); `pooled`, the PSNR of the mean squared error over all
    images. epsilon: added to the root of the MSE, in levels of 255, so that an exact image has a finite value; with 0,
    exact images are counted separately. rounding: overrides the protocol's.
    """

    average: Literal["image", "batch", "pooled"] = "image"
    batch_size: int = 1
    epsilon: float = 0.0
    rounding: Rounding | None = None


@dataclass(frozen=True)
class Ssim:
    """Settings of SSIM.

    window: Gaussian with sigma 1.5 and 11 pixels wide, or uniform and 7 pixels wide. covariance: `population`, or
    `sample` for the unbiased estimate. range: data range in levels of 255. border: `valid` uses only positions where
    the window lies inside the image; `reflect` uses all positions and reflects the image at its edge. rounding:
    overrides the protocol's.
    """

    window: Literal["gaussian", "uniform"] = "gaussian"
    covariance: Literal["population", "sample"] = "population"
    range: float = 255.0
    border: Literal["valid", "reflect"] = "valid"
    rounding: Rounding | None = None


@dataclass(frozen=True)
class Lpips:
    """Settings of LPIPS.

    net: `alex` selects the metric `lpips`, `vgg` selects `lpips_vgg`. input: `signed` passes images in [-1, 1], as the
    networks were trained; `unsigned` passes images in [0, 1], the most common mistake. rounding: overrides the
    protocol's.
    """

    net: Literal["alex", "vgg"] = "alex"
    input: Literal["signed", "unsigned"] = "signed"
    rounding: Rounding | None = None


@dataclass(frozen=True)
class Features:
    """Settings of the Inception features, which all distances between distributions use."""

    input: InputPath = "tf1"
    rounding: Rounding | None = None


@dataclass(frozen=True)
class InceptionScore:
    """Settings of the Inception Score.

    splits: number of equal splits. split_size: if given, splits of this many images in order, instead of `splits`.
    shuffle: whether images are shuffled with torch-fidelity's seed.
    """

    splits: int = 10
    split_size: int | None = None
    shuffle: bool = True


@dataclass(frozen=True)
class Video:
    """Which frames of a video form a clip: `frames` frames from its beginning, every `stride`-th one."""

    frames: int = 16
    stride: int = 1


@dataclass(frozen=True)
class Sound:
    """Which part of a recording is evaluated: its first `seconds`. Shorter recordings are padded with silence, which
    metrics leave out."""

    seconds: float = 1.0


@dataclass(frozen=True)
class Shapes:
    """Settings of the metrics of 3-D shapes.

    tau: the largest distance of a correct point of the F-score, as a share of the side of the grid. threshold: the
    occupancy above which a voxel belongs to the shape.
    """

    tau: float = 0.05
    threshold: float = 0.5


@dataclass(frozen=True)
class PublishedSetup:
    """The setup in the original publication, for readers and warnings. It changes no value, so it is not hashed."""

    size: int | None = None
    num_images: int | None = None
    reference: str = ""
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Protocol:
    """One way to prepare and compare images. All fields after `published` change metric values and are hashed.

    crop: `centre` scales the short side to the size, rounding both sides to nearest, and cuts the centre square, whose
    corner is rounded down; `torchvision` truncates the long side and rounds the corner to nearest (Resize, CenterCrop);
    `adm` first halves the image with a box filter while the short side is at least twice the size; `pad` scales the
    long side and centres the whole image on black (Pillow's Lanczos); `none` does not change images.
    filter, library, antialias: how images are scaled. Pillow always antialiases, OpenCV only with its area filter, and
    `tensor` scales float images with torch without rounding them.
    rounding: how decoded images (and references that are not 8-bit) are rounded to 8 bits, once; the table of a metric
    can override it.
    storage: reconstructions stay in memory, or are encoded as PNG or `jpeg.q<quality>` (Pillow, 4:2:0) and decoded.
    reference: the distribution that samples are compared with: the same crops, the whole original files, or a
    statistics file.
    degrade: how the tokenizer's input is damaged, `rain:0.5` or another `Degradation`, while the reference is the clean
    image; empty for no damage.
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
    degrade: str = ""
    psnr: Psnr = field(default_factory=Psnr)
    ssim: Ssim = field(default_factory=Ssim)
    lpips: Lpips = field(default_factory=Lpips)
    features: Features = field(default_factory=Features)
    inception_score: InceptionScore = field(default_factory=InceptionScore)
    video: Video = field(default_factory=Video)
    sound: Sound = field(default_factory=Sound)
    shapes: Shapes = field(default_factory=Shapes)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"memory|png|jpeg\.q([0-9]|[1-9][0-9]|100)", self.storage):
            raise UsageError(
                f"protocol '{self.name}': storage = '{self.storage}'; it must be memory, png or jpeg.q<0-100>"
            )
        if self.degrade:
            object.__setattr__(self, "degrade", str(Degradation.parse(self.degrade)))  # one form for the hash
        area = self.filter == "area"
        antialiased = {"pillow": True, "opencv": area, "tensor": self.antialias or area}
        if self.antialias != antialiased[self.library]:
            raise UsageError(
                f"protocol '{self.name}': the {self.filter} filter of {self.library} requires antialias = "
                f"{str(antialiased[self.library]).lower()}"
            )
        if self.crop == "pad" and (self.filter, self.library) != ("lanczos", "pillow"):
            raise UsageError(f"protocol '{self.name}': crop = pad requires library = pillow and filter = lanczos")
        if self.library == "tensor" and self.filter == "lanczos":
            raise UsageError(
                f"protocol '{self.name}': library = tensor has no Lanczos filter; use bicubic, bilinear or area"
            )
        if self.storage != "memory" and self.rounding == "none":
            raise UsageError(
                f"protocol '{self.name}': {self.storage} files have 8 bits per channel, so rounding cannot be none"
            )
        if self.psnr.average == "pooled" and self.psnr.epsilon:
            raise UsageError(f"protocol '{self.name}': a pooled PSNR has no epsilon")
        counts = (self.psnr.batch_size, self.inception_score.splits, self.inception_score.split_size or 1)
        if min(counts) < 1 or self.inception_score.split_size == 0 or not 0 < self.ssim.range < math.inf:
            raise UsageError(f"protocol '{self.name}': batch_size, splits, split_size and range must be positive")
        if not 0 <= self.psnr.epsilon < math.inf:
            raise UsageError(f"protocol '{self.name}': epsilon must be finite and not negative")
        if min(self.video.frames, self.video.stride) < 1 or not 0 < self.sound.seconds < math.inf:
            raise UsageError(f"protocol '{self.name}': frames, stride and seconds must be positive")
        if not (0 < self.shapes.tau < math.inf and 0 <= self.shapes.threshold < 1):
            raise UsageError(f"protocol '{self.name}': tau must be positive, and threshold in [0, 1)")

    @property
    def sha256(self) -> str:
        """SHA-256 of all fields that change metric values (all but name, summary, source and published).

        The tables of modalities other than images count only where they differ from the default, so that the hashes of
        protocols of images do not depend on them.
        """
        hashed = {key: value for key, value in asdict(self).items() if key not in _UNHASHED}
        for key, kind in _MODALITIES.items():
            if getattr(self, key) == kind():
                del hashed[key]
        if not self.degrade:  # hashes from before the field existed stay valid
            del hashed["degrade"]
        return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()

    @property
    def preparation(self) -> tuple[str, str, str, bool]:
        """The fields that determine the input pixels of a tokenizer: crop, filter, library and antialias."""
        return self.crop, self.filter, self.library, self.antialias

    @property
    def reference_preparation(self) -> dict[str, str | bool]:
        """The fields, besides the size, that determine the reference pixels that the Inception network receives.

        Only fields that have an effect are included. 8-bit pixels change under no rounding but `truncate-signed`.
        """
        fields: dict[str, str | bool] = {"reference": "original" if self.reference == "original" else "crop"}
        if fields["reference"] == "crop":
            fields["crop"] = self.crop
            if self.crop != "none":
                fields |= {"filter": self.filter, "library": self.library, "antialias": self.antialias}
        rounding = self.rounding_of(self.features)
        return fields | ({"rounding": rounding} if "tensor" in fields.values() or rounding == "truncate-signed" else {})

    def rounding_of(self, part: Psnr | Ssim | Lpips | Features) -> Rounding:
        """Return the rounding that a metric uses: the one in its table, else the protocol's."""
        return part.rounding or self.rounding

    @property
    def degradation(self) -> Degradation | None:
        """How the tokenizer's input is damaged, or None."""
        return Degradation.parse(self.degrade) if self.degrade else None

    def degraded(self, text: str | None) -> Protocol:
        """Return the protocol with the degradation `KIND:LEVEL`; the same protocol for None.

        Raises UsageError if there is no such degradation, or if the protocol has another one.
        """
        if text is None:
            return self
        if self.degrade and self.degrade != str(Degradation.parse(text)):
            raise UsageError(
                f"protocol '{self.name}' degrades images by {self.degrade} already; remove --degrade {text}"
            )
        return replace(self, degrade=text)

    def with_changes(self, name: str, **changes: Any) -> Protocol:
        """Return a copy with another name and other settings.

        changes: fields of this class, or `table__field` for a field in the table of a metric.
        """
        values: dict[str, Any] = {}
        for key, value in changes.items():
            table, _, inner = key.partition("__")
            values[table] = replace(values.get(table, getattr(self, table)), **{inner: value}) if inner else value
        return replace(self, name=name, summary="", source=(), published=PublishedSetup(), **values)


TOKBENCH = Protocol("tokbench")
"""The default protocol. `presets/tokbench.toml` lists the same fields."""

_UNHASHED = ("name", "summary", "source", "published")
_TABLES = {"published": PublishedSetup, "psnr": Psnr, "ssim": Ssim, "lpips": Lpips, "features": Features,
           "inception_score": InceptionScore, "video": Video, "sound": Sound, "shapes": Shapes}  # fmt: skip
_MODALITIES: dict[str, type] = {"video": Video, "sound": Sound, "shapes": Shapes}
_FOLDER = files("tokbench.protocol").joinpath("presets")


def protocols() -> list[str]:
    """Return the names of the protocols that tokbench includes, the default first."""
    names = sorted(path.name.removesuffix(".toml") for path in _FOLDER.iterdir())
    return sorted(names, key=lambda name: name != "tokbench")


def load_protocol(name: str) -> Protocol:
    """Return the included protocol `name`, or the one in the .toml file `name`.

    Raises UsageError if there is no such protocol or if its file is invalid.
    """
    if name.endswith(".toml") and Path(name).expanduser().is_file():
        path = Path(name).expanduser()
        if path.stem in protocols():
            raise UsageError(f"{path}: tokbench includes a protocol '{path.stem}'; use another file name")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", path.stem):
            raise UsageError(
                f"{path}: the name of a protocol may contain only letters, digits, dashes and underscores, and must "
                "begin with a letter or digit"
            )
        text, name = path.read_text(encoding="utf-8"), path.stem
    elif name in protocols():
        text = _FOLDER.joinpath(f"{name}.toml").read_text(encoding="utf-8")
    else:
        hint = did_you_mean(name, protocols())
        raise UsageError(f"no protocol '{name}'; {hint}available: {', '.join(protocols())}, or a path to a .toml file")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"protocol '{name}' is not valid TOML ({error})") from error
    return _read(name, table)


def _read(name: str, content: dict[str, Any]) -> Protocol:
    """Return the protocol in a parsed TOML file. Raises UsageError for unknown or invalid fields."""
    for kind, table in ((Protocol, content), *((part, content.get(key, {})) for key, part in _TABLES.items())):
        if unknown := unknown_keys(table, kind):
            known = ", ".join(entry.name for entry in fields(kind))
            raise UsageError(f"protocol '{name}': unknown field {', '.join(unknown)}; known are {known}")
    return convert(content | {"name": name}, Protocol, f"protocol '{name}'", UsageError)


def recorded_protocol(entry: Mapping[str, Any]) -> Protocol:
    """Return the protocol that a result records, with its degradation. entry: as `describe_protocol` returns it.

    Raises UsageError if there is no such protocol now.
    """
    return load_protocol(entry["name"]).degraded(entry.get("degrade"))


def describe_protocol(protocol: Protocol) -> dict[str, Any]:
    """Return the entry of a protocol in a result: name, hash, the published size and number of images, `reference`
    where distributions are compared with whole original files, and `degrade` where the input is damaged."""
    published = {key: value for key in ("size", "num_images") if (value := getattr(protocol.published, key))}
    entry: dict[str, Any] = {"name": protocol.name, "sha256": protocol.sha256}
    if protocol.reference == "original":  # tables must show it
        entry["reference"] = protocol.reference
    if protocol.degrade:
        entry["degrade"] = protocol.degrade
    return entry | ({"published": published} if published else {})
