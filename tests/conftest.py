"""Fixtures that several test files share: photos from wheels, a folder of them, stand-in networks, the command line."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import runpy
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from checkout import ROOT
from click.testing import CliRunner, Result
from identity_cases import forget
from image_files import write_noise
from PIL import Image, ImageOps
from scheduling import pytest_xdist_make_scheduler  # noqa: F401  (a hook)

from tokbench.data.annotations import Annotations, Face, Word
from tokbench.data.stream import CHUNK, AnnotatedImage

os.environ.setdefault("TOKBENCH_ROOT", str(ROOT))
torch.set_num_threads(1)  # pytest runs in several processes


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The garbage collector skips what the imports and the collected tests hold: it never becomes garbage, and every
    full collection (each adapter whose weights fit only in part causes one) would search all of it."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # otherwise extension modules report at exit that their objects were not freed


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tests that are not marked to use this machine's data and weights find none, wherever they run."""
    with pytest.MonkeyPatch.context() as patched:
        if not item.get_closest_marker("finds"):
            patched.delenv("TOKBENCH_DATA", raising=False)
            patched.delenv("TOKBENCH_WEIGHTS", raising=False)
        return (yield)


@pytest.fixture(scope="session")
def root() -> Path:
    """The source checkout."""
    return ROOT


@pytest.fixture(scope="session")
def photos() -> torch.Tensor:
    """Six real 256x256 photo crops, float32 (6, 3, 256, 256) on the 8-bit grid."""
    from skimage import data

    astronaut, coffee, rocket = data.astronaut(), data.coffee(), data.rocket()
    crops = [astronaut[:256, :256], astronaut[256:, :256], coffee[:256, :256], coffee[:256, 256:512]]
    crops += [rocket[:256, :256], rocket[:256, 256:512]]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="session")
def damaged(photos: torch.Tensor) -> torch.Tensor:
    """The photos with noise, on the 8-bit grid."""
    noise = torch.randn(photos.shape, generator=torch.Generator().manual_seed(0)) * 0.05
    return ((photos + noise).clamp(0, 1) * 255).round() / 255


@pytest.fixture(scope="session")
def photo_folder(photos: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six photos as PNG files, two of them in a subfolder."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for i, photo in enumerate((photos * 255).round().byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(photo).save(folder / ("more" if i > 3 else ".") / f"photo{i}.png")
    return folder


@pytest.fixture(scope="session")
def mirrored(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The six photos and their mirror images: enough for halves of halves."""
    made = tmp_path_factory.mktemp("dozen") / "photos"
    shutil.copytree(photo_folder, made)
    for path in sorted(made.rglob("*.png")):
        ImageOps.mirror(Image.open(path)).save(path.with_name(f"{path.stem}-mirrored.png"))
    return made


@pytest.fixture
def tiles(tmp_path: Path, photos: torch.Tensor) -> Path:
    """A folder of 48 pieces of the photos, 32 px each."""
    folder = tmp_path / "tiles"
    folder.mkdir()
    cut = photos.unfold(2, 32, 64).unfold(3, 32, 64).permute(0, 2, 3, 4, 5, 1).reshape(-1, 32, 32, 3)
    for number, tile in enumerate((cut[:48] * 255).round().to(torch.uint8)):
        Image.fromarray(tile.numpy()).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="session")
def small_vit():
    """Makes timm's ViT for 32 px, 64 patches, 8 blocks and 10 classes, with weights large enough that tokens matter;
    other arguments of it at will."""
    vision_transformer = pytest.importorskip(
        "timm.models.vision_transformer", reason="timm is not installed: pip install 'tokbench[prune]'"
    )

    def made(**changes: object) -> torch.nn.Module:
        torch.manual_seed(0)
        given = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 8, "num_heads": 2, "num_classes": 10}
        vit = vision_transformer.VisionTransformer(**(given | changes)).eval().requires_grad_(False)
        for parameter in vit.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
        return vit

    return made


@pytest.fixture(scope="session")
def noise() -> torch.Tensor:
    """Four images of 32 px for it."""
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def levels():
    """Makes a tokenizer of images of 16 px without a network: each 4x4 px to the index of their mean level out of 11,
    or so many indices in `groups`, or if `continuous` the mean itself."""
    from tokbench.tokenizers.base import Tokenizer
    from tokbench.tokenizers.spec import TokenizerSpec
    from tokbench.tokenizers.tokens import Tokens

    size, codes = 16, 11

    class Levels(Tokenizer):
        def __init__(self, groups: int = 1, continuous: bool = False) -> None:
            self.groups, self.continuous, self.encodings = groups, continuous, 0
            codebook = {} if continuous else {"codes": codes}
            kind = "continuous" if continuous else "discrete"
            self.spec = TokenizerSpec("levels.x", kind, size=size, num_tokens=16, codebook=codebook, groups=groups)

        def encode(self, images: torch.Tensor) -> Tokens:
            self.encodings += len(images)
            means = torch.nn.functional.avg_pool2d(images.mean(1, keepdim=True), 4).permute(0, 2, 3, 1)
            if self.continuous:
                return Tokens.from_latents(torch.cat([means, 1 - means], -1), tokens=16)
            indices = (means * (codes - 1)).round().long().clamp(0, codes - 1)
            spread = torch.cat([(indices + shift) % codes for shift in range(self.groups)], -1)
            return Tokens.from_indices(spread, codes, groups=self.groups)

        def decode(self, tokens: Tokens, seeds: list[int]) -> torch.Tensor:
            grey = tokens.tensor[..., :1].float() / (1 if self.continuous else codes - 1)
            grown = torch.nn.functional.interpolate(grey.permute(0, 3, 1, 2), (size, size))
            return grown.expand(-1, 3, -1, -1)

    return Levels


@pytest.fixture
def cli():
    """Run the command line in this process; gives click's Result."""
    from tokbench.cli import main

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="tokbench")

    return run


class Command:
    """A process that runs a tokbench command, used as one of `subprocess`."""

    def __init__(self, arguments: Sequence[object], environment: Mapping[str, str], folder: Path) -> None:
        # A process that has imported everything already forks: an interpreter that starts anew takes seconds to.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(
            ["tokbench.cli.evaluate", "tokbench.evaluation.evaluate", "tokbench.extractors.backend"]
        )
        self.printed = [folder / "stdout", folder / "stderr"]
        given = {"arguments": list(map(str, arguments)), "environment": dict(environment)}
        given["printed"] = list(map(str, self.printed))
        code = str(ROOT / "tests" / "command.py")
        self._process = context.Process(target=runpy.run_path, args=(code, {"given": given}))
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    returncode = property(poll)

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def communicate(self, timeout: float) -> tuple[str, str]:
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise AssertionError(f"still running after {timeout} s: {self.printed[1].read_text()}")
        out, err = (path.read_text() if path.exists() else "" for path in self.printed)
        return out, err


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory):
    """Starts `tokbench` with arguments and an environment, in a process of its own."""

    def start(arguments: Sequence[object], environment: Mapping[str, str]) -> Command:
        return Command(arguments, environment, tmp_path_factory.mktemp("command"))

    return start


@pytest.fixture(scope="session")
def mark():
    """Image files (B, 3, H, W) in [0, 1] with words and faces in them, three each in every one, of three sizes."""

    def marked(images: torch.Tensor) -> list[AnnotatedImage]:
        pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
        side = min(pixels.shape[1:3])
        made = []
        for image in pixels:
            words, faces = [], []
            for i, ratio in enumerate((0.025, 0.035, 0.05)):
                left, right = side * (i + 1) // 6, side * (i + 2) // 6
                words.append(Word("word", (left, side / 4, right, side / 2), ratio))
                points = tuple((left + j, right - j) for j in range(5))
                faces.append(Face((left, left, right, right), points, 7 * ratio))
            made.append(AnnotatedImage(image, Annotations(tuple(words), tuple(faces))))
        return made

    return marked


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """New empty folders. `mktemp` would list the folders of all earlier tests for each."""
    root = tmp_path_factory.mktemp("caches")

    def folders() -> Iterator[Path]:
        for number in itertools.count():
            (root / str(number)).mkdir()
            yield root / str(number)

    return folders()


@pytest.fixture(autouse=True)
def private_cache(caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """tokbench's own cache and PyTorch's are empty and apart in every test."""
    folder = next(caches)
    monkeypatch.setenv("TOKBENCH_CACHE", str(folder))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    return folder


@pytest.fixture(scope="session", autouse=True)
def compiled_networks() -> Iterator[None]:
    """EfficientNet-Lite0 is compiled once per process, library, precision and file instead of once per evaluation,
    because tracing takes about a second. The network itself is still loaded for each evaluation."""
    from tokbench.extractors.efficientnet import EfficientNetLite0

    load, shared = EfficientNetLite0.__init__, {}

    def init(self: EfficientNetLite0, *arguments: object) -> None:
        load(self, *arguments)
        self._compiled = shared.setdefault((self.sha256, self.backend.key), {})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(EfficientNetLite0, "__init__", init)
        yield


@pytest.fixture
def networks():
    """Networks whose weights need not be here: fixed random projections under the real names and layers."""
    from tokbench.extractors.network import FeatureExtractor
    from tokbench.extractors.pool import ExtractorPool
    from tokbench.metric_names import METRICS

    class Projection(FeatureExtractor):
        smallest = 1  # any image will do
        sizes: ClassVar = {"sfid": 2023, "pooled": 1280, "logits_unbiased": 1008, "logits": 1000, "features": 16}

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name, self.sha256 = name, "0" * 64

        def forward(self, images: torch.Tensor, chunk: int) -> dict[str, torch.Tensor]:
            small = torch.nn.functional.adaptive_avg_pool2d(images, 8).flatten(1)
            features = {}
            for layer in self.layers or {"0"}:
                weights = torch.randn(
                    192, self.sizes.get(layer) or int(layer) or 16, generator=torch.Generator().manual_seed(len(layer))
                )
                features[layer] = (small @ weights).tanh()
            return features

        def distance(self, a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> torch.Tensor:
            return (a["0"] - b["0"]).square().mean(1)

    class Words:
        """Reads `word`, or something else where a crop's mean level is odd."""

        key = name = "words"

        def read(self, crops: list[np.ndarray]) -> list[str]:
            return ["w0rd" if round(float(crop.mean())) % 2 else "word" for crop in crops]

        def describe(self) -> dict[str, str]:
            return {"reader": self.name, "sha256": "0" * 64}

    class Faces(Words):
        """Embeds a face as the colours at its points, and finds it unless its box is dark."""

        key = name = "faces"
        measure = "euclidean"

        def embed(self, image: np.ndarray, points: np.ndarray) -> np.ndarray:
            at = points.round().astype(int)
            return image[at[..., 1], at[..., 0]].reshape(len(points), -1).astype(np.float32) + 1

        def detected(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
            return np.array([image[int(y1) : int(y2), int(x1) : int(x2)].mean() > 8 for x1, y1, x2, y2 in boxes])

    made = ExtractorPool()
    for entry in METRICS.values():
        if entry.reader:
            made._readers[entry.reader] = Words() if entry.name.startswith("text") else Faces()
        if entry.network:
            made._networks.setdefault(entry.network, Projection(entry.network))
    return made


@pytest.fixture(scope="session")
def untrained():
    """Makes tokenizers of 32 px images with fixed random weights, by their kind of bottleneck."""
    from tokbench.nn.autoencoders import ConvAutoencoder, GridAutoencoder, QueryAutoencoder
    from tokbench.nn.quantizers.bits import BernoulliBits
    from tokbench.nn.quantizers.fsq import FSQ
    from tokbench.nn.quantizers.gaussian_bins import GaussianBins
    from tokbench.nn.quantizers.kl import KL
    from tokbench.nn.quantizers.lfq import LFQ
    from tokbench.nn.quantizers.product import ProductVQ
    from tokbench.nn.quantizers.residual import ResidualVQ
    from tokbench.nn.quantizers.simvq import SimVQ
    from tokbench.nn.quantizers.vq import VectorQuantizer
    from tokbench.nn.tokenizer import LearnedTokenizer
    from tokbench.nn.vit import Shape

    shape = Shape(32, 8, 32, 1, 2)
    kinds = {
        "vq": lambda: GridAutoencoder(shape, shape, VectorQuantizer(1024, 8)),
        "simvq": lambda: ConvAutoencoder(SimVQ(64, 8)),
        "fsq": lambda: QueryAutoencoder(shape, 8, FSQ([8, 5, 5])),
        "lfq": lambda: ConvAutoencoder(LFQ(4, 3)),
        "bits": lambda: QueryAutoencoder(shape, 8, BernoulliBits(12, 32)),
        "product": lambda: GridAutoencoder(shape, shape, ProductVQ(2, 256, 8)),
        "residual": lambda: ConvAutoencoder(ResidualVQ(3, 512, 8)),
        "bins": lambda: ConvAutoencoder(GaussianBins(6, 4)),
        "kl": lambda: ConvAutoencoder(KL(4)),
    }

    def made(kind: str) -> LearnedTokenizer:
        torch.manual_seed(0)
        return LearnedTokenizer(kind, kinds[kind]().eval())

    return made


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the Python path, of which nothing stays imported."""
    folder = tmp_path / "outside"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("OUTER", str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files change within the second that bytecode goes by
    forget()
    yield folder
    forget()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of noise, of more than one unit."""
    return write_noise(tmp_path_factory.mktemp("images"), CHUNK + 8, 16, digits=2)
