"""`tokbench train`: dependencies, several trainings at a time, and interruptions."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from checkout import ROOT
from click.testing import CliRunner
from image_files import write_noise

from tokbench.cli import main
from tokbench.errors import UsageError
from tokbench.paths import cache_dir
from tokbench.training.zoo import dependencies


def test_adapters_that_are_built_on_one_another_are_named(root: Path) -> None:
    text = (root / "adapters/mini/c4.toml").read_text()
    for name, below in (("a", "b"), ("b", "c"), ("c", "a")):
        (root / f"adapters/mini/{name}.toml").write_text(f'base = "mini.{below}"\n{text}')
    with pytest.raises(UsageError, match="in a cycle: ") as caught:
        dependencies(root)
    places = str(caught.value).partition("cycle: ")[2].split(" -> ")
    assert len(places) == 4
    assert " -> ".join(places[:-1]) in "mini.a -> mini.b -> mini.c -> mini.a -> mini.b" and places[-1] == places[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one small adapter that can be trained, and some images."""
    folder = tmp_path / "adapters" / "mini"
    folder.mkdir(parents=True)
    source = ROOT / "adapters" / "pca" / "adapter.py"
    (folder / "adapter.py").write_text(source.read_text())
    (folder / "c4.toml").write_text('summary = "x"\n[model]\ncomponents = 4\n[training]\n')
    write_noise(tmp_path / "photos", 6, 16)
    return tmp_path


def test_the_command_trains_and_the_adapter_runs(root: Path) -> None:
    run = CliRunner().invoke(main, ["train", "mini.c4", "--root", str(root), "--data", str(root / "photos")])
    assert run.exit_code == 0, run.output
    assert (root / "adapters/mini/c4.safetensors").is_file()
    assert "wrote" in run.stderr
    command = ["eval", "mini.c4", "--root", str(root), "--data", str(root / "photos"), "--metrics", "psnr"]
    run = CliRunner().invoke(main, [*command, "--out", str(root / "results"), "--no-cache"])
    assert run.exit_code == 0, run.output


@pytest.mark.slow
def test_several_at_a_time_each_after_what_it_is_built_on(root: Path) -> None:
    """A training whose process dies is reported; the others finish, with the weights that sequential runs give."""
    folder = root / "adapters" / "mini"
    with (folder / "adapter.py").open("a") as file:
        file.write(
            "import os, time\nfrom tokbench.errors import AdapterError\n_model = model\n"
            "def model(variant):\n"
            "    if variant.name == 'mini.a_dies':\n        os._exit(7)\n"
            "    if variant.name == 'mini.c4':\n        time.sleep(1)\n"
            "    if 'base' in variant.config and not (variant.folder / 'c4.safetensors').exists():\n"
            "        raise AdapterError('too early')\n"
            "    return _model(variant)\n"
        )
    own = (folder / "c4.toml").read_text()
    (folder / "c3.toml").write_text(own.replace("4", "3"))
    (folder / "a_dies.toml").write_text(own)
    (folder / "b4.toml").write_text('base = "mini.c4"\n' + own)
    command = ["train", "--all", "--root", str(root), "--data", str(root / "photos"), "--jobs", "3"]
    run = CliRunner().invoke(main, command)
    assert run.exit_code == 1
    assert "failed mini.a_dies: its process ended with 7 before it was done" in run.stderr
    assert run.stderr.count("wrote") == 3, run.stderr
    together = (folder / "c3.safetensors").read_bytes()
    assert CliRunner().invoke(main, ["train", "mini.c3", "--retrain", *command[2:-2]]).exit_code == 0
    assert (folder / "c3.safetensors").read_bytes() == together
    assert not list(cache_dir().glob("training-data-*"))


@pytest.mark.slow
def test_a_stopped_command_leaves_no_process_behind(root: Path, started) -> None:
    """Ended while its trainings run, it ends them too, and takes the images that they shared with it."""
    folder, cache = root / "adapters" / "mini", root / "cache"
    with (folder / "adapter.py").open("a") as file:
        file.write(
            "import os, time\n"
            "def model(variant):\n"
            "    (variant.folder / f'{os.getpid()}.pid').touch()\n    time.sleep(600)\n"
        )
    (folder / "c3.toml").write_text((folder / "c4.toml").read_text())
    command = ["train", "--all", "--root", root, "--data", root / "photos", "--jobs", 2]
    process = started(command, os.environ | {"TOKBENCH_CACHE": str(cache)})
    deadline = time.monotonic() + 240
    while len(found := list(folder.glob("*.pid"))) < 2:
        assert process.poll() is None, process.communicate(timeout=60)
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert list(cache.glob("training-data-*"))
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert not list(cache.glob("training-data-*"))
    for path in found:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.stem), 0)


def test_an_untrained_adapter_says_how_to_train_it(root: Path) -> None:
    run = CliRunner().invoke(main, ["list", "adapters", "--all", "--root", str(root)])
    assert "x (no trained weights here)" in run.stdout
    command = ["eval", "mini.c4", "--root", str(root), "--data", str(root / "photos"), "--metrics", "psnr"]
    run = CliRunner().invoke(main, [*command, "--out", str(root / "results")])
    assert run.exit_code == 1
    assert "tokbench train mini.c4" in run.stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "name adapters to train, or give --all"),
        (["mini.c9"], "cannot train mini.c9; trainable adapters: mini.c4"),
        (["mini.c4", "--budget", "9 minutes"], "expected seconds or images"),
    ],
)
def test_wrong_usage_says_what_is_wrong(root: Path, arguments: list[str], message: str) -> None:
    run = CliRunner().invoke(main, ["train", *arguments, "--root", str(root), "--data", str(root / "photos")])
    assert run.exit_code == 2
    assert message in run.stderr
