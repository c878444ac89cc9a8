"""README is true: its commands and examples run, its tables are those of results/, its links and names exist."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from checkout import ROOT
from PIL import Image

import tokbench
from tokbench.metric_names import METRICS, PRUNING_PREFIX, base_metric, is_single_cell
from tokbench.pruning.result import load as load_reduced
from tokbench.results.columns import SCORES
from tokbench.results.result import load
from tokbench.tokenizers.registry import adapter_files, load_adapter
from tokbench.weights.registry import KNOWN_WEIGHTS
from tokbench.weights.shards import shard_paths

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "docs").glob("*.md")}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def workplace(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what README's commands name: images, reconstructions, a diffusers folder, a TorchScript pair."""
    shutil.copytree(photo_folder, tmp_path / "path" / "to" / "images")
    shutil.copytree(photo_folder, tmp_path / "reconstructions")
    down, up = torch.nn.AvgPool2d(8), torch.nn.Upsample(scale_factor=8)
    (tmp_path / "path" / "to" / "model").mkdir()
    torch.jit.script(down).save(tmp_path / "path" / "to" / "model" / "encoder.jit")
    torch.jit.script(up).save(tmp_path / "path" / "to" / "model" / "decoder.jit")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_own_checkpoint_commands_run(workplace: Path, cli) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)  # so small a network may be born dead, and then its decoder gives one image for all tokens
    diffusers.AutoencoderTiny(
        encoder_block_out_channels=(4, 4),
        decoder_block_out_channels=(4, 4),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(workplace / "path" / "to" / "vae")
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("tokbench eval")]
    assert len(commands) == 3
    for command in commands:
        done = cli(*shlex.split(command)[1:], "--metrics", "psnr", "--limit", 2)
        assert done.exit_code == 0, (command, done.stderr)
    assert len(list((workplace / "results").glob("*/*.json"))) == 3


def test_the_adapter_example_is_an_adapter(workplace: Path, cli) -> None:
    (code,) = [block for block in blocks("python") if "class " in block]
    folder = workplace / "path" / "to" / "folder"
    folder.mkdir()
    (folder / "default.toml").write_text("")
    (folder / "adapter.py").write_text(
        "import torch\nfrom tokbench.tokenizers.base import Tokenizer\n"
        "from tokbench.tokenizers.spec import TokenizerSpec\nfrom tokbench.tokenizers.tokens import Tokens\n"
        "class Model(torch.nn.Module):\n"
        "    def encode(self, x): return ((x.mean(1)[:, ::16, ::16] + 1) * 99).long()\n"
        "    def decode(self, c):\n"
        "        return torch.nn.Upsample(scale_factor=16)((c[:, None] / 99.0 - 1).repeat(1, 3, 1, 1))\n"
        f"def load_my_model(): return Model()\n{code}\ndef load(variant, device): return Mine(variant.name)\n"
    )
    done = cli("eval", "path/to/folder", "--data", "path/to/images", "--metrics", "psnr,rate,codebook")
    assert done.exit_code == 0, done.stderr
    (path,) = Path("results").glob("folder/*.json")
    assert load(path).metrics["tokens_per_image"]["value"] == 256


@pytest.mark.skipif(not hasattr(tokbench, "evaluate"), reason="this version has no tokbench.evaluate")
def test_the_python_example_runs(workplace: Path) -> None:
    class Model(torch.nn.Module):
        def encode(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(images, 8)

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.interpolate(latents, scale_factor=8)

    (code,) = [block for block in blocks("python") if "tokbench.evaluate" in block]
    names = {"model": Model()}
    exec(code, names)
    result = names["result"]
    assert result["psnr"].low < result["psnr"].value < result["psnr"].high
    assert "psnr" in result.to_frame().to_string()
    assert list(Path("results").glob("*/*.json"))


def generator(name: str) -> Any:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_generated_tables_are_up_to_date(root: Path) -> None:
    tables = generator("tables")
    assert README.count("<!-- table:") == 1
    for name, made in tables.WRITTEN.items():
        text = (root / name).read_text(encoding="utf-8")
        assert "<!-- /" in text, name
        assert made(text) == text, "run python docs/tables.py"


def test_every_marker_is_written() -> None:
    """A generated part cannot go stale because its marker is misspelt."""
    tables = generator("tables")
    for name in ("metrics", "weights", "protocols", "commands"):
        (page,) = [page for page, text in DOCS.items() if f"<!-- {name} -->" in text]
        written = tables.marked(name, lambda: "| another table |\n")(DOCS[page])
        assert "| another table |" in written
        assert tables.WRITTEN[f"docs/{page}"](written) == DOCS[page]


@pytest.mark.slow
def test_measured_parts_of_the_zoo_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["zoo.py", "--check"])
    assert generator("zoo").main() == 0, "run python docs/zoo.py"


def test_the_demo_table_is_that_of_make_demo(root: Path) -> None:
    demo = re.search(r"^DEMO_ADAPTERS \?= (.*)$", (root / "Makefile").read_text(), re.MULTILINE)[1].split()
    marker = r"<!-- table: samples-reconstruct ((?:-\w+ )*)(.*) -->"
    assert re.search(marker, DOCS["index.md"])[2].split() == demo
    shown = re.search(marker, README)[2].split()
    assert len(shown) == 5
    assert set(shown) < set(demo)


def test_every_number_metric_and_weight_file_is_explained() -> None:
    """Every number is in the definitions of docs/metrics.md, which are written by hand, not only in its table."""
    definitions = DOCS["metrics.md"].partition("<!-- /metrics -->")[2]
    plain = [number.name for entry in METRICS.values() if not entry.reader for number in entry.numbers]
    for number in plain:
        also = re.sub("_(768|efficientnet)$", "", number)
        assert f"`{number}`" in definitions or f"`{also}`" in definitions, number
    for column in SCORES:
        assert f"`{column.field}`" in definitions, column.field
    for name, entry in METRICS.items():
        assert f"`{name}`" in DOCS["metrics.md"], name
        assert entry.network is None or KNOWN_WEIGHTS[entry.network][0].file in DOCS["weights.md"]


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_links_lead_somewhere(root: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / target).exists(), target


def test_committed_results_are_whole(root: Path) -> None:
    paths = sorted((root / "results").glob("*/*.json"))
    assert paths
    for path in paths:
        if path.name.startswith(PRUNING_PREFIX):
            assert load_reduced(path).rows, path
            assert path == root / "results" / load_reduced(path).path
            continue
        result = load(path)
        assert result.error is None, path
        assert result.bad_images == [], path
        assert path == root / "results" / result.path
        assert 0 < result.num_images <= 2000, path
        if result.readings:
            kinds = {name for name, images in result.readings.items() if images}
            assert kinds & {"words", "faces"}, path
            continue
        assert len(result.per_image["index"]) == result.num_images, path
        task = result.task.partition("-")[0]
        of_all = [name for name in result.metrics if base_metric(name) == "psnr" and not is_single_cell(name)]
        of_others = {
            "video": ["frame_psnr", "clip_psnr", "frame_ssim", "frame_lpips"],
            "sound": ["si_sdr", "log_mel", "mr_stft", "sound_kbps"],
            "shape": ["iou", "chamfer", "f_score", "bytes_per_shape"],
        }
        modality = tomllib.loads((root / "datasets" / result.dataset / "dataset.toml").read_text()).get("modality")
        numbers = {"perturb": of_all, "generate": ["bpp"], "decode": ["psnr", "ssim", "lpips"]}.get(
            task, of_others.get(modality, ["psnr", "ssim", "lpips", "bpp"])
        )
        assert numbers, path
        for number in numbers:
            value = result.metrics[number]["value"]
            if value is not None:
                assert np.nanmean(result.per_image[number]) == pytest.approx(value, rel=1e-8), (path, number)


@pytest.mark.slow
def test_committed_results_are_of_todays_code(root: Path) -> None:
    """A result of an adapter whose code or settings changed since is measured again, or what is here is not what made
    it. (Of what is trained here: the others' weights may be elsewhere.)"""
    stale = {}
    for name, results in itertools.groupby(sorted((root / "results").glob("*/*.json")), lambda path: path.parent.name):
        if name not in adapter_files(root) or not shard_paths(adapter_files(root)[name].with_suffix(".safetensors")):
            continue
        code = load_adapter(name, root=root).code
        of = {
            path.name: load(path).provenance["adapter"]["code_sha256"]
            for path in results
            if PRUNING_PREFIX not in path.name
        }
        stale |= {f"{name}/{file}": made for file, made in of.items() if made != code}
    assert not stale


@pytest.mark.slow
def test_committed_leaderboards_are_made_again_byte_for_byte(root: Path, tmp_path: Path, cli) -> None:
    shutil.copytree(root / "results", tmp_path / "results")
    expected = {path.name: path.read_bytes() for path in (root / "results" / "leaderboard").iterdir()}
    for path in (tmp_path / "results" / "leaderboard").iterdir():
        path.unlink()
    assert cli("leaderboard", "--out", tmp_path / "results").exit_code == 0
    made = {path.name: path.read_bytes() for path in (tmp_path / "results" / "leaderboard").iterdir()}
    assert made == expected


def test_the_committed_numbers_come_out_again(root: Path, tmp_path: Path, cli) -> None:
    """Two codecs on the first 20 embedded images: each image's PSNR and bytes as committed."""
    done = cli("eval", "jpeg.q50", "resize.2", "--metrics", "psnr,ssim,rate", "--limit", 20, "--out", tmp_path)
    assert done.exit_code == 0, done.stderr
    for adapter in ("jpeg.q50", "resize.2"):
        committed = load(root / "results" / adapter / "samples-reconstruct.json").per_image
        again = load(next((tmp_path / adapter).glob("*.json"))).per_image
        for number in ("psnr", "ssim", "bits_per_image"):
            np.testing.assert_allclose(again[number], committed[number][:20], rtol=1e-9)


def test_the_pictures_are_images(root: Path) -> None:
    for name in ("flow", "architecture"):
        assert ElementTree.parse(root / "docs" / f"{name}.svg").getroot().tag.endswith("svg")
    assert Image.open(next((root / "datasets" / "samples" / "pages").glob("*.png"))).size == (256, 256)
