"""Parity: the same images, with the same weights, through a reference package and through tokbench.

`record` asserts that the two numbers agree and keeps them; with `--parity-table FILE` they become docs/parity.md.
Weights that are not on the machine (the Inception network's last blocks, VGG-16) are replaced by stand-ins that both
sides load: whatever weights they share, their numbers must agree.
"""

from __future__ import annotations

import io
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path

import lpips
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from tokbench.errors import MissingWeights
from tokbench.extractors.inception import BLOCKS, Inception
from tokbench.extractors.lpips import LPIPSNetwork
from tokbench.extractors.network import FeatureExtractor
from tokbench.extractors.pool import ExtractorPool
from tokbench.io.hashing import sha256_of
from tokbench.metric_names import INCEPTION
from tokbench.metrics.batch import Batch
from tokbench.metrics.registry import MetricContext, create_metric
from tokbench.protocol.protocol import Protocol
from tokbench.protocol.rounding import from_uint8
from tokbench.weights.registry import KNOWN_WEIGHTS, LocalWeights, resolve
from tokbench.weights.state_dict import read_state

COUNT, SIZE, BATCH = 12, 192, 8

INTRODUCTION = """\
# Parity

Each line of the table compares tokbench, under the protocol of the first column, with a reference package (or with the
formula of a repository, implemented again) on the same images with the same weights. The line contains both numbers,
their difference, and the largest difference that the tests accept. `tests/parity` asserts every line and writes this
file:

    pytest tests/parity -n 0 --parity-table docs/parity.md

Images: {count} crops of scikit-image's photos, {size} px; the reconstructions are blurred, compressed (JPEG) and noisy,
and are passed on without rounding. Differences are absolute or, if marked "rel.", divided by the number of the
reference. For images the columns contain the mean level, and the difference is the largest one of any value in all
cases.

Weights: {weights}.
Stand-ins are random and keep the variance of activations; both sides load the same file.

Fréchet distances of 2,048 and 2,023 dimensions are computed in full by torch-fidelity's own command. Elsewhere the
packages get the statistics in coordinates of the space that the features span, which changes no distance.

Made with {versions}.

## Numbers
"""

ROUNDING = """
## Remaining differences and their causes

- **Fewer images than dimensions**, as in all comparisons here. The covariances are then singular, and the square root
  of their product is noise in the null space, so the reference packages have an error of about 1e-6 of the trace of the
  covariances. tokbench avoids this error if it has the features of both sides, by using the singular values of their
  centred product. In the deep layers this causes nearly all of the difference, which remains if both sides get the same
  features. The relative difference is larger if the distance is small compared with the trace. For this reason the
  reconstructions here are strongly damaged, and the stand-in for a first layer does not depend on brightness.
- **LlamaGen and Cosmos** round halves up, tokbench to even, and their float32 sums have errors of a few 1e-5 levels:
  values within 1e-4 of a half may differ by one level.
- **SEED-Voken** truncates levels after a conversion to [-1, 1] and back in float32. tokbench repeats the conversion
  from images in [0, 1] and counts values within 1e-4 of an integer level as that level: such values may differ by one
  level. Its mean of SSIM over batches equals tokbench's mean over images unless the last batch is smaller.
- **VTBench**: SSIM of torchmetrics in float32 differs from its own result in float64, with which tokbench agrees, so
  the bound for float32 is larger. torchmetrics 1.9 no longer infers the range of PSNR from the data, so the range that
  earlier versions would have inferred is passed.
- **TiTok** computes its network in float64; here it is compared in float32, the default of torch-fidelity.
- **RAE** limits the MSE to at least 1e-10, so an exact image has 100 dB; tokbench counts exact images separately.
- **ADM**'s evaluator requires TensorFlow and is not run here; torch-fidelity's port is used instead.
"""


@dataclass(frozen=True)
class Row:
    """One comparison, as the table shows it."""

    protocol: str
    number: str
    library: str
    ours: float
    theirs: float
    difference: float
    bound: float
    relative: bool

    def __str__(self) -> str:
        unit = " rel." if self.relative else ""
        difference, bound = (f"{value:.1e}{unit}" if value else "0" for value in (self.difference, self.bound))
        values = (self.protocol, self.number, self.library, f"{self.ours:.8g}", f"{self.theirs:.8g}", difference, bound)
        return f"| {' | '.join(values)} |"


ROWS = pytest.StashKey[list[Row]]()
WEIGHTS = pytest.StashKey[dict[str, str]]()


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("finds")
    item.add_marker("once")
    item.add_marker("slow")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--parity-table", type=Path, metavar="FILE", help="write all comparisons of tests/parity to FILE (with -n 0)"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("parity_table", None) and config.getoption("numprocesses", None):
        raise pytest.UsageError("--parity-table needs all comparisons in one process: add -n 0")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Write the table, but only from a run in which every comparison was made and passed."""
    path: Path | None = config.getoption("parity_table", None)
    if path is None:
        return
    if exitstatus != pytest.ExitCode.OK or {"skipped", "deselected"} & set(terminalreporter.stats):
        terminalreporter.write_line(f"{path} is not written: not all comparisons were made and passed", red=True)
        return
    names = ("torch", "torchvision", "numpy", "scipy", "pillow")
    text = INTRODUCTION.format(
        count=COUNT,
        size=SIZE,
        weights="; ".join(f"{name}: {what}" for name, what in sorted(config.stash.get(WEIGHTS, {}).items())),
        versions=", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]),
    )
    lines = ["protocol", "number", "compared with", "tokbench", "reference", "difference", "bound"]
    rows = _merged(config.stash.get(ROWS, []))
    table = [f"| {' | '.join(lines)} |", "|---|---|---|--:|--:|--:|--:|", *map(str, rows)]
    path.write_text("\n".join([text, *table, ROUNDING]), encoding="utf-8")
    terminalreporter.write_line(f"{path}: {len(rows)} comparisons")


def _merged(rows: list[Row]) -> list[Row]:
    """Sorted; those of one name (a crop of several photos) become one, which shows its worst case."""

    def name(row: Row) -> tuple[str, str, str]:
        return row.protocol, row.number, row.library

    merged = []
    for _, group in groupby(sorted(rows, key=name), name):
        cases = list(group)
        worst = max(cases, key=lambda row: row.difference)
        number = worst.number if len(cases) == 1 else f"{worst.number}, {len(cases)} cases"
        merged.append(replace(worst, number=number))
    return merged


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Assert that two numbers (or arrays, value by value) agree within a bound, and keep them for the table.

    library: what it is compared with, its last word the name of a distribution, whose version is added.
    """
    rows = request.config.stash.setdefault(ROWS, [])

    def compare(
        protocol: str, number: str, library: str, ours: object, theirs: object, bound: float, relative: bool = False
    ) -> None:
        one, two = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
        assert one.shape == two.shape, f"{protocol}, {number}: {one.shape} values here, {two.shape} of {library}"
        difference = float(np.abs(one - two).max())
        if relative:
            difference /= float(np.abs(two).max())
        with suppress(PackageNotFoundError):
            library += f" {version(library.split()[-1])}"
        row = Row(protocol, number, library, float(one.mean()), float(two.mean()), difference, bound, relative)
        assert difference <= bound, f"not equal within the bound: {row}"  # NaN fails too
        rows.append(row)

    return compare


@pytest.fixture(scope="session")
def sources() -> list[np.ndarray]:
    """scikit-image's colour photos, uint8 (H, W, 3)."""
    data = skimage.data
    names = (data.astronaut, data.coffee, data.chelsea, data.rocket, data.immunohistochemistry, data.retina)
    return [*(load() for load in names), data.stereo_motorcycle()[0], data.hubble_deep_field()]


@pytest.fixture(scope="session")
def references(sources: list[np.ndarray]) -> Tensor:
    """Crops of the photos, every second one at half its resolution: float32 (COUNT, 3, SIZE, SIZE), 8-bit levels."""
    draw, crops = np.random.default_rng(0), []
    for i in range(COUNT):
        photo = sources[i % len(sources)]
        photo = photo[::2, ::2] if i % 2 and min(photo.shape[:2]) >= 2 * SIZE else photo
        top, left = (draw.integers(side - SIZE + 1) for side in photo.shape[:2])
        crops.append(photo[top : top + SIZE, left : left + SIZE])
    return from_uint8(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))


@pytest.fixture(scope="session")
def images(references: Tensor) -> Tensor:
    """What a decoder made of them: blurred, compressed, noisy, in [0, 1] and not yet rounded.

    Each x is (s + 1) / 2 of some float32 s, as after a decoder that gives [-1, 1]: then 2 x - 1 is exact.
    """
    made = []
    for reference in (references * 255).round().byte().permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(reference).filter(ImageFilter.GaussianBlur(0.7)).save(file, "JPEG", quality=50)
        made.append(np.asarray(Image.open(file)))
    noise = torch.randn(references.shape, generator=torch.Generator().manual_seed(1)) * 0.06
    unit = (from_uint8(torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2)) + noise).clamp(0, 1)
    return ((2 * unit - 1) + 1) / 2


def _nearest(x: np.ndarray) -> np.ndarray:
    """1d-tokenizer: [0, 1] to nearest, which its evaluator then cuts to uint8."""
    x = np.round(x.clip(0, 1) * np.float32(255)) / np.float32(255)
    return (x * np.float32(255)).astype(np.uint8)


def _half_up(x: np.ndarray) -> np.ndarray:
    """LlamaGen: decoders give [-1, 1]; 127.5 x + 128, cut."""
    return (np.float32(127.5) * (2 * x - 1) + np.float32(128)).clip(0, 255).astype(np.uint8)


def _cut_of_signed(x: np.ndarray) -> np.ndarray:
    """guided-diffusion: decoders give [-1, 1]; (x + 1) * 127.5, cut."""
    return (((2 * x - 1) + 1) * np.float32(127.5)).clip(0, 255).astype(np.uint8)


def _cut(x: np.ndarray) -> np.ndarray:
    """VTBench and RAE: 255 x, cut."""
    return (x.clip(0, 1) * np.float32(255)).astype(np.uint8)


def _half_of_signed(x: np.ndarray) -> np.ndarray:
    """SEED-Voken: decoders give [-1, 1]; (x + 1) / 2, then 255 x, cut."""
    return (((2 * x - 1).clip(-1, 1) + 1) / 2 * np.float32(255)).astype(np.uint8)


def _original_through_signed(x: np.ndarray) -> np.ndarray:
    """SEED-Voken's originals: uint8 / 127.5 - 1 in float64 kept as float32, then as its decoded images."""
    signed = ((255 * x).round().astype(np.uint8) / 127.5 - 1).astype(np.float32)
    return ((signed + 1) / 2 * np.float32(255)).astype(np.uint8)


def _floor_of_half(x: np.ndarray) -> np.ndarray:
    """Cosmos-Tokenizer: 255 x + 0.5, cut."""
    return (x.clip(0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


@pytest.fixture(scope="session")
def eight_bits() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """How each repository makes uint8 levels of float32 images in [0, 1] (of which they are (s + 1) / 2 where its
    decoders give s), by protocol."""
    return {
        "titok": _nearest,
        "llamagen": _half_up,
        "adm": _cut_of_signed,
        "vtbench": _cut,
        "rae": _cut,
        "seed-voken": _half_of_signed,
        "seed-voken original": _original_through_signed,
        "cosmos": _floor_of_half,
    }


@pytest.fixture(scope="session")
def pixels(eight_bits: dict[str, Callable[[np.ndarray], np.ndarray]]) -> Callable[..., np.ndarray]:
    """uint8 (B, H, W, 3) of images (B, 3, H, W), rounded as a repository does, to nearest by default."""

    def rounded(images: Tensor, how: str = "titok") -> np.ndarray:
        return eight_bits[how](images.permute(0, 2, 3, 1).numpy())

    return rounded


def _noted(config: pytest.Config, network: str, what: str) -> None:
    config.stash.setdefault(WEIGHTS, {})[network] = what


def _state(network: str) -> dict[str, Tensor]:
    """The published weights on this machine, all or some of them; without any, none."""
    try:
        return read_state(network, resolve(network, KNOWN_WEIGHTS[network]))
    except MissingWeights:
        return {}


def _found(path: Path, network: str) -> LocalWeights:
    return LocalWeights(path, KNOWN_WEIGHTS[network][0], sha256_of(path))


def _stand_in(network: torch.nn.Module) -> dict[str, Tensor]:
    """Random weights that keep the variance of activations; batch norms that do a little."""
    draw, state = torch.Generator().manual_seed(7), {}
    for key, value in network.state_dict().items():
        noise = torch.randn(value.shape, generator=draw)
        if value.dim() > 1:
            noise *= (2 / value[0].numel()) ** 0.5
        elif key.endswith(("running_var", "bn.weight")):
            noise = 1 + 0.1 * noise.clamp(-2, 2)
        else:
            noise *= 0.05
        if not key.endswith("num_batches_tracked"):
            state[key] = noise
    return state


@pytest.fixture(scope="session")
def inception_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All weights of the FID network in one file: published ones as far as they are here, then stand-ins."""
    published = _state(INCEPTION)
    held = {key.partition(".")[0] for key in published}
    rest = {name: make() for name, make in BLOCKS.items() if name not in held}
    state = _stand_in(torch.nn.ModuleDict(rest))
    if "Conv2d_1a_3x3.conv.weight" in state:
        # Edges, not brightness: or one direction holds nearly all variance and drowns the others in rounding errors.
        state["Conv2d_1a_3x3.conv.weight"] -= state["Conv2d_1a_3x3.conv.weight"].mean((2, 3), keepdim=True)
    if "fc.weight" in state:
        state["fc.weight"] *= 10  # at 1 all classes, at 100 all images look alike: the Inception Score would be 1
    description = f"published before {next(iter(rest))}, stand-ins from there on" if held else "stand-ins"
    _noted(request.config, "Inception", description if rest else "published")
    path = tmp_path_factory.mktemp("inception") / "full.pth"
    torch.save(published | state, path)
    return path


@pytest.fixture(scope="session")
def inception(inception_file: Path) -> Inception:
    """tokbench's network with those weights."""
    return Inception(_found(inception_file, INCEPTION))


@pytest.fixture(scope="session")
def trunk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of LPIPS's trunk, `alex` or `vgg`, by torchvision's names: published weights, or stand-ins."""
    folder = tmp_path_factory.mktemp("trunks")

    def path_of(net: str) -> Path:
        path = folder / f"{net}.pth"
        if not path.exists():
            published = _state(f"lpips-{net}")
            with torch.device("meta"):  # its own random weights, which would take seconds, are not used
                model = lpips.LPIPS(net=net, pnet_rand=True, pretrained=False, verbose=False).net
            random = {f"features.{key.split('.', 1)[1]}": value for key, value in _stand_in(model).items()}
            torch.save({key: value for key, value in (published or random).items() if key in random}, path)
            _noted(request.config, {"alex": "AlexNet", "vgg": "VGG-16"}[net], "published" if published else "stand-ins")
        return path

    return path_of


@pytest.fixture(scope="session")
def perceptual(trunk: Callable[[str], Path]) -> Callable[[str], LPIPSNetwork]:
    """tokbench's LPIPS network, `alex` or `vgg`, with those weights."""
    return cache(lambda net: LPIPSNetwork(_found(trunk(net), f"lpips-{net}"), net=net))


Asked = Sequence[tuple[Protocol, str]]


@pytest.fixture(scope="session")
def ours() -> Callable[..., dict[tuple[str, str], float]]:
    """tokbench's numbers, by protocol and metric, of images and references; `networks` are those that they read.

    The protocols asked for at once must feed Inception alike, so that one pass of the network serves them all.
    """

    def measure(asked: Asked, references: Tensor, images: Tensor, *networks: FeatureExtractor, **given: object) -> dict:
        shelf = ExtractorPool()
        for network in networks:
            shelf._networks[network.name] = network.with_input("tf1") if isinstance(network, Inception) else network
        made = {
            (protocol.name, name): create_metric(name, MetricContext(shelf, None, protocol, **given))  # type: ignore[arg-type]
            for protocol, name in asked
        }
        for index, reference, image in zip(
            torch.arange(len(images)).split(BATCH), references.split(BATCH), images.split(BATCH), strict=True
        ):
            batch = Batch(index, reference, image)
            for metric in made.values():
                metric.update(batch)
        return {key: metric.compute()[key[1]] for key, metric in made.items()}

    return measure
