"""Names of the rows of published checkpoints, and the message for a folder that is named without its prefix."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tokbench.errors import NoAdapter, UsageError
from tokbench.results.result import load
from tokbench.tokenizers.checkpoint_names import last_part, parse_placed
from tokbench.tokenizers.registry import load_adapter, load_adapters


class Encode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Decode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(16, 3, 8, 8)

    def forward(self, z: Tensor) -> Tensor:
        return self.conv(z)


def save(folder: Path, seed: int = 0) -> Path:
    """A pair of TorchScript files with random weights."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, module in (("encoder", Encode()), ("decoder", Decode())):
            torch.jit.save(torch.jit.script(module.eval()), folder / f"{name}.jit")
    return folder


def test_a_checkpoint_has_one_name_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = save(tmp_path / "here" / "ci8")
    shutil.copytree(here, tmp_path / "there" / "ci8")
    other = save(tmp_path / "other" / "ci8", seed=1)
    name = load_adapter(f"torchscript:{here}").name
    assert name.startswith("torchscript.ci8-")
    assert load_adapter(f"torchscript:{tmp_path / 'there' / 'ci8'}/").name == name
    monkeypatch.chdir(tmp_path / "here")
    assert load_adapter("torchscript:./ci8").name == name
    assert load_adapter(f"torchscript:{other}").name != name
    with pytest.raises(UsageError, match=r"two adapters are named .* as in NAME=diffusers:PATH"):
        load_adapters([f"torchscript:{here}", "torchscript:ci8"])


def test_a_name_can_be_chosen(tmp_path: Path) -> None:
    folder = save(tmp_path / "ci8")
    found = load_adapter(f"cosmos.ci8=torchscript:{folder}")
    assert (found.name, found.source) == ("cosmos.ci8", f"cosmos.ci8=torchscript:{folder}")
    both, failed = load_adapters([f"a=torchscript:{folder}", f"b=torchscript:{folder}"])
    assert ([one.name for one in both], failed) == (["a", "b"], {})


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ("my model=torchscript:{}", "'my model' cannot be the name of a row.* use 'my-model'"),
        ("../x=torchscript:{}", "cannot be the name of a row"),
        ("taef2=torchscript:{}", "'taef2' is the name of another adapter"),
        ("jpeg.q50=torchscript:{}", "'jpeg.q50' is the name of another adapter"),
        ("mine=jpeg.q50", "NAME= applies to images:, diffusers:, torchscript: only, and 'jpeg.q50' keeps its own name"),
    ],
)
def test_names_that_cannot_be_used(asked: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=complaint):
        load_adapter(asked.format(tmp_path))


@pytest.mark.parametrize(
    ("asked", "last"),
    [
        ("diffusers:stabilityai/sd-vae-ft-mse", "sd-vae-ft-mse"),
        ("diffusers:stabilityai/sd-vae-ft-mse,variant=fp16", "sd-vae-ft-mse"),
        ("diffusers:{}/models--stabilityai--sd-vae-ft-mse/snapshots/0a1b", "sd-vae-ft-mse"),
        ("diffusers:{}/models--stabilityai--sd-vae-ft-mse", "sd-vae-ft-mse"),
        ("x=diffusers:{}/models--stabilityai--sd-vae-ft-mse/snapshots/0a1b/vae/", "vae"),
        ("diffusers:{}/ae.safetensors,class=AutoencoderKL,config=a/b", "ae"),
    ],
)
def test_the_last_part_of_a_place(asked: str, last: str, tmp_path: Path) -> None:
    (tmp_path / "models--stabilityai--sd-vae-ft-mse" / "snapshots" / "0a1b" / "vae").mkdir(parents=True)
    (tmp_path / "ae.safetensors").write_bytes(b"")
    placed = parse_placed(asked.format(tmp_path))
    assert placed is not None
    assert last_part(placed) == last


def make_pipeline(folder: Path) -> str:
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text("{}")
    return f"diffusers:{folder}"


def make_autoencoder(folder: Path) -> str:
    (folder / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    return f"diffusers:{folder}"


def make_single(folder: Path) -> str:
    (folder / "ae.safetensors").write_bytes(b"")
    return f"diffusers:{folder / 'ae.safetensors'}"


def make_script(folder: Path) -> str:
    (folder / "autoencoder.jit").write_bytes(b"")
    return f"torchscript:{folder}"


@pytest.mark.parametrize("make", [make_pipeline, make_autoencoder, make_single, make_script])
def test_a_folder_of_a_checkpoint_suggests_its_prefix(make, tmp_path: Path) -> None:
    wanted = make(tmp_path)
    with pytest.raises(NoAdapter, match="holds a published checkpoint; write its prefix: ") as caught:
        load_adapter(str(tmp_path))
    assert str(caught.value).endswith(wanted)


def test_other_folders_and_hub_ids(tmp_path: Path) -> None:
    with pytest.raises(NoAdapter, match=r"has no adapter\.py"):
        load_adapter(str(tmp_path))
    with pytest.raises(NoAdapter, match="write diffusers:stabilityai/sd-vae-ft-mse"):
        load_adapter("stabilityai/sd-vae-ft-mse")


def test_check_and_leaderboard_follow_the_name(cli, tmp_path: Path, photo_folder: Path) -> None:
    folder, out = save(tmp_path / "a" / "ci8"), tmp_path / "results"
    common = ["--data", photo_folder, "--metrics", "psnr", "--out", out]
    assert cli("eval", f"torchscript:{folder}", *common, "--name", "mine").exit_code == 0
    assert cli("eval", f"torchscript:{folder}", *common).exit_code == 0
    automatic = load_adapter(f"torchscript:{folder}").name
    assert sorted(path.name for path in out.iterdir() if path.is_dir() and path.name != "leaderboard") == [
        "mine",
        automatic,
    ]
    result = load(next((out / "mine").glob("*.json")))
    assert result.provenance["adapter"]["source"] == f"mine=torchscript:{folder}"
    assert cli("leaderboard", "--out", out).exit_code == 0
    table = next((out / "leaderboard").glob("*.md")).read_text()
    assert "| mine " in table
    assert f"| {automatic} " in table
    moved = folder.rename(tmp_path / "ci8")
    for asked, name in ((f"mine=torchscript:{moved}", "mine"), (f"torchscript:{moved}", automatic)):
        done = cli("check", asked, "--against", out, "--data", photo_folder, "--json")
        assert done.exit_code == 0, done.output
        assert {entry["adapter"] for entry in json.loads(done.stdout)["checks"]} == {name}
    done = cli("check", "other=torchscript:x", "--against", out, "--data", photo_folder)
    assert done.exit_code == 2
    assert "contains no result of other" in done.stderr


def test_name_is_for_a_single_checkpoint(cli, photo_folder: Path) -> None:
    done = cli("eval", "identity", "--name", "x", "--data", photo_folder)
    assert done.exit_code == 2
    assert "identity has a name of its own" in " ".join(done.stderr.split())
    done = cli("eval", "diffusers:a", "diffusers:b", "--name", "x", "--data", photo_folder)
    assert done.exit_code == 2
    assert "write NAME=ADAPTER before each" in " ".join(done.stderr.split())
