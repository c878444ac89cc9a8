"""Adapters that use code outside their folder, for the tests of what an adapter's identity covers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from factories import run_eval

from tokbench.data.dataset import open_dataset
from tokbench.data.stream import CHUNK
from tokbench.evaluation.checkpoint import unfinished
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results.result import Result
from tokbench.tokenizers.registry import load_adapter

NETWORK = """
import torch


class Network(torch.nn.Module):
    calls = 0

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def decode(self, latents):
        Network.calls += 1
        if Network.calls > CALLS:
            raise RuntimeError("index out of range")
        return torch.nn.functional.pixel_shuffle(latents, 8) * SCALE


NETWORK = Network()


def decode(latents):
    return NETWORK.decode(latents)
"""

ADAPTER = """
IMPORT
import torch
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens


class Mine(Tokenizer):
    def __init__(self, name, network):
        self.module = self.network = network
        self.spec = TokenizerSpec(name, kind="continuous", multiple=8, downsample=8, bits_per_token=3072.0)

    def encode(self, images):
        latents = torch.nn.functional.pixel_unshuffle(images, 8)
        return Tokens.from_latents(latents, tokens=latents.shape[2] * latents.shape[3])

    def decode(self, tokens, seeds):
        return self.network.decode(tokens.tensor.float())


def load(variant, device):
    LOAD
    return Mine(variant.name, network())
"""

TOPS = ("outer", "beyond", "made_up", "side")


def forget() -> None:
    """Remove the modules of these tests from the imported ones, as in a new process."""
    for name in [name for name in sys.modules if name.partition(".")[0] in TOPS or "tokbench_adapter_mine" in name]:
        del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def adapter(tmp_path: Path, imports: str, load: str, name: str = "mine") -> Path:
    folder = tmp_path / "adapters" / name
    text = ADAPTER.replace("IMPORT", imports, 1).replace("LOAD", load or "pass")
    write(folder, {"adapter.py": text, "default.toml": ""})
    return folder


def network(scale: float = 1, calls: int = 1000) -> str:
    return NETWORK.replace("SCALE", str(scale)).replace("CALLS", str(calls))


def measured(folder: Path, images: Path, networks, cache: Path | None, *metrics: str) -> Result:
    (result,) = run_eval(
        [load_adapter(str(folder))], open_dataset(str(images), TOKBENCH), metrics or ["psnr"],
        networks=networks, cache=cache, batch_size=8,
    )  # fmt: skip
    return result


def mended(folder: Path, images: Path, networks, tmp_path: Path, write: Callable[[str], object]) -> None:
    """A run dies after its first unit, its author mends the code (`write` puts it in place) and gives the same command:
    all images are measured anew."""
    write(network(0.5, CHUNK // 8 + 2))  # two: the first images are decoded once more, and one is tried
    failed = measured(folder, images, networks, tmp_path / "cache")
    assert "index out of range" in str(failed.error)
    assert next(unfinished(tmp_path / "cache" / "runs")).images == CHUNK
    forget()
    write(network(0.9))
    again = measured(folder, images, networks, tmp_path / "cache")
    forget()
    alone = measured(folder, images, networks, None)
    assert again.metrics == alone.metrics
    assert again.per_image["psnr"].tolist() == alone.per_image["psnr"].tolist()
