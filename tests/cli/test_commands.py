"""The command line: printed text, written files and exit status."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokbench.results.result import load

FAST = "psnr,rate"


def objects(result) -> list[dict]:
    return json.loads(result.stdout)


@pytest.mark.slow
def test_help_and_leaderboard_import_no_torch(tmp_path: Path, photo_folder: Path, cli) -> None:
    assert cli("eval", "identity", "--data", photo_folder, "--metrics", FAST, "--out", tmp_path).exit_code == 0
    commands = [["--help"], ["eval", "--help"], ["leaderboard", "--out", str(tmp_path)], ["list", "metrics"]]
    code = (
        "import sys; from tokbench.cli import main\n"
        f"for arguments in {commands!r}:\n"
        "    try: main(arguments)\n"
        "    except SystemExit as end: assert not end.code, (arguments, end.code)\n"
        "    assert 'torch' not in sys.modules, arguments"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys; from tokbench.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "slow = {'torch', 'scipy', 'pandas', 'numpy', 'sklearn', 'pooch', 'requests', 'rich'} & sys.modules.keys()\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_python_m_tokbench() -> None:
    done = subprocess.run([sys.executable, "-m", "tokbench", "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: tokbench ")


def test_json_is_all_of_stdout(cli, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKBENCH_WEIGHTS", raising=False)
    done = cli(
        "eval",
        "identity",
        "toy.p8",
        "--data",
        photo_folder,
        "--metrics",
        "psnr,codebook,rfid",
        "--json",
        "--out",
        tmp_path,
    )
    assert done.exit_code == 0, done.stderr
    identity, toy = objects(done)
    assert list(identity) == [
        "schema_version", "adapter", "dataset", "task", "num_images", "metrics", "skipped", "bad_images", "provenance",
        "warnings",
    ]  # fmt: skip
    assert (identity["adapter"], toy["adapter"]) == ("identity", "toy.p8")
    assert identity["num_images"] == 6
    assert identity["metrics"]["psnr"] == {"value": None, "low": None, "high": None, "n": 0}
    assert identity["metrics"]["exact"]["value"] == 6
    assert "no codebook" in identity["skipped"]["codebook"]
    assert "weights-inception-2015-12-05-6726825d.pth" in identity["skipped"]["rfid"]
    assert set(toy["metrics"]["psnr"]) == {"value", "low", "high", "n"}
    assert toy["metrics"]["codebook_usage"]["n"] == 6


def test_the_same_command_gives_the_same_file(cli, photo_folder: Path, tmp_path: Path) -> None:
    files = []
    for out in (tmp_path / "a", tmp_path / "b"):
        assert cli("eval", "jpeg.q50", "--data", photo_folder, "--metrics", FAST, "--out", out).exit_code == 0
        files.append(next(out.glob("jpeg.q50/*.json")).read_bytes())
    assert files[0] == files[1]


@pytest.mark.slow
def test_several_adapters_in_one_pass_equal_one_at_a_time(cli, photo_folder: Path, tmp_path: Path) -> None:
    names = ["resize.2", "toy.p8", "jpeg.q50"]
    metrics = "psnr,ssim,rate,fd_efficientnet"
    together = objects(
        cli("eval", *names, "--data", photo_folder, "--metrics", metrics, "--json", "--out", tmp_path / "a")
    )
    for name, expected in zip(names, together, strict=True):
        alone = objects(
            cli("eval", name, "--data", photo_folder, "--metrics", metrics, "--json", "--out", tmp_path / "b")
        )
        assert alone == [expected]


@pytest.mark.slow
def test_a_second_run_adds_its_metrics(cli, photo_folder: Path, tmp_path: Path) -> None:
    for metrics in ("psnr", "ssim,codebook"):
        assert cli("eval", "toy.p8", "--data", photo_folder, "--metrics", metrics, "--out", tmp_path).exit_code == 0
    (path,) = tmp_path.glob("toy.p8/*.json")
    result = load(path)
    assert {"psnr", "exact", "ssim", "codebook_usage"} <= set(result.metrics)
    assert {"index", "name", "psnr", "ssim"} == set(result.per_image)
    assert result.per_image["psnr"].mean() == pytest.approx(result.metrics["psnr"]["value"])


def test_other_pixels_replace_a_result(cli, photo_folder: Path, tmp_path: Path) -> None:
    """If only the content of images changes, not their names and sizes, old numbers must not remain."""
    folder = tmp_path / "p"
    folder.mkdir()
    for value in (10, 200):
        Image.new("RGB", (32, 32), (value, value, value)).save(folder / "a.bmp")
        done = cli(
            "eval",
            "toy.p8",
            "--data",
            folder,
            "--metrics",
            "psnr" if value == 10 else "ssim",
            "--out",
            tmp_path / "out",
        )
        assert done.exit_code == 0
    assert "replaced" in done.stderr
    (path,) = (tmp_path / "out").glob("toy.p8/*.json")
    assert set(load(path).metrics) == {"ssim"}


def test_bad_images_fail_the_run_unless_skipped(cli, photo_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(photo_folder, tmp_path / "p")
    (tmp_path / "p" / "photo1.png").write_bytes(b"broken")
    command = ["eval", "identity", "--data", tmp_path / "p", "--metrics", FAST, "--json", "--out", tmp_path / "out"]
    done = cli(*command)
    assert done.exit_code == 1
    (bad,) = objects(done)[0]["bad_images"]
    assert bad["name"] == "photo1.png" and "not an image" in bad["reason"]
    assert objects(done)[0]["num_images"] == 5
    assert "unreadable image photo1.png" in done.stderr
    assert cli(*command, "--skip-bad").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["eval"], "Missing argument"),
        (["eval", "nothing"], "no adapter 'nothing'"),
        (["eval", "identiti"], "did you mean 'identity'"),
        (["eval", "jpeg.q101"], "q0 to q100"),
        (["eval", "resize.1"], "at least 2"),
        (["eval", "identity", "--data", "nowhere"], "no dataset or path 'nowhere'"),
        (["eval", "identity", "--metrics", "fid"], "no metric 'fid'"),
        (["eval", "identity", "--protocol", "mine"], "no protocol 'mine'"),
        (["eval", "identity", "--limit", "0"], "--limit"),
        (["eval", "identity", "--seed", "-1"], "--seed"),
        (["eval", "identity.foo"], "no adapter 'identity.foo'"),
        (["eval", "jpeg.q050"], "q0 to q100"),
        (["eval", "resize.\u00b2"], "at least 2"),
        (["eval", "identity", "--device", "tpu"], "device 'tpu' cannot be used"),
        (["list", "planets"], "planets"),
    ],
)
def test_wrong_usage_is_status_2(cli, arguments: list[str], complaint: str, tmp_path: Path) -> None:
    done = cli(*arguments, *(["--out", tmp_path] if arguments[0] == "eval" else []))
    assert done.exit_code == 2
    assert complaint in done.stderr


def test_unequal_sizes_are_status_1(cli, tmp_path: Path) -> None:
    for side in (20, 30):
        Image.new("RGB", (side, side)).save(tmp_path / f"{side}.png")
    done = cli("eval", "identity", "--data", tmp_path, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "unequal sizes" in done.stderr


def test_a_failing_adapter_does_not_stop_the_others(cli, photo_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "one.toml").write_text("")
    (folder / "adapter.py").write_text(
        "from tokbench.tokenizers.base import Tokenizer\nfrom tokbench.tokenizers.spec import TokenizerSpec\n"
        "class Broken(Tokenizer):\n"
        "    spec = TokenizerSpec('broken.one', 'codec')\n"
        "    def encode(self, images): raise ValueError('boom')\n"
        "    def decode(self, tokens, seeds): return tokens\n"
        "def load(variant, device): return Broken()\n"
    )
    done = cli(
        "eval", folder, "identity", "--data", photo_folder, "--metrics", FAST, "--json", "--out", tmp_path / "out"
    )
    assert done.exit_code == 1
    broken, identity = objects(done)
    assert "ValueError: boom" in broken["error"]
    assert broken["metrics"] == {}
    assert identity["num_images"] == 6
    assert not (tmp_path / "out" / "broken.one").exists()
    assert "failed broken.one" in done.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "one.toml").touch()
    (empty / "adapter.py").touch()
    done = cli(
        "eval", empty, "identity", "--data", photo_folder, "--metrics", FAST, "--json", "--out", tmp_path / "out"
    )
    assert done.exit_code == 1
    broken, identity = objects(done)
    assert broken["adapter"] == str(empty)
    assert "no function load" in broken["error"]
    assert set(broken) == {*identity, "error"} - {"warnings"}  # of so few images
    assert f"failed {empty}" in done.stderr


def test_two_adapters_of_one_name_are_refused(cli, root: Path, photo_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "adapters" / "toy", tmp_path / "toy")
    (tmp_path / "toy" / "p16.toml").unlink()
    done = cli("eval", "toy.p8", tmp_path / "toy", "--data", photo_folder, "--metrics", FAST, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "two adapters are named toy.p8" in done.stderr


def test_results_hold_no_path_of_this_machine(
    cli, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKBENCH_WEIGHTS", raising=False)
    done = cli("eval", "toy.p8", "--data", photo_folder, "--metrics", "psnr,lpips_vgg", "--out", tmp_path / "out")
    (path,) = (tmp_path / "out").glob("toy.p8/*.json")
    text = path.read_text()
    assert "vgg16-397923af.pth, which was not there" in text
    assert str(Path.home()) not in text
    assert str(tmp_path) not in text
    assert "checkpoints; get it from" in done.stderr


def test_limit_and_size_are_in_the_file_name(cli, photo_folder: Path, tmp_path: Path) -> None:
    done = cli(
        "eval", "toy.p8", "--data", photo_folder, "--limit", 2, "--size", 100, "--metrics", FAST, "--out", tmp_path
    )
    assert done.exit_code == 0
    (path,) = tmp_path.glob("toy.p8/*.json")
    assert path.name.endswith(".s100.n2-reconstruct.json")
    provenance = load(path).provenance
    assert provenance["adapter"]["fitted"] == "padded from 100x100 to 104x104"
    assert "For toy.p8 images were padded from 100x100 to 104x104." in " ".join(done.stdout.split())
    assert (provenance["data"]["limit"], provenance["data"]["available"]) == (2, 6)


def test_per_image_values_lie_beside_the_json(cli, photo_folder: Path, tmp_path: Path) -> None:
    cli("eval", "jpeg.q50", "--data", photo_folder, "--metrics", "psnr,rate", "--out", tmp_path)
    (path,) = tmp_path.glob("jpeg.q50/*.npz")
    with np.load(path) as arrays:
        assert set(arrays) == {"index", "name", "psnr", "bits_per_image", "bpp"}
        assert arrays["name"][0] == "more/photo4.png"
        assert len(arrays["psnr"]) == 6


COPYCAT = """
import torch
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens
class Copy(Tokenizer):
    spec = TokenizerSpec('copycat', 'codec')
    def encode(self, images):
        print('talkative')
        return Tokens.from_samples((images * 255).round().byte())
    def decode(self, tokens, seeds): return tokens.tensor.float() / 255 * SCALE
def load(variant, device): return Copy()
"""


def copycat(folder: Path, scale: float) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "default.toml").touch()
    (folder / "adapter.py").write_text(COPYCAT.replace("SCALE", str(scale)))
    sys.modules.pop(next((name for name in sys.modules if name.startswith("tokbench_adapter_copycat")), ""), None)
    return folder


def test_what_adapters_print_does_not_reach_stdout(cli, photo_folder: Path, tmp_path: Path) -> None:
    folder = copycat(tmp_path / "copycat", 1)
    done = cli("eval", folder, "--data", photo_folder, "--metrics", "psnr", "--json", "--out", tmp_path / "out")
    assert objects(done)[0]["metrics"]["exact"]["value"] == 6
    assert "talkative" in done.stderr


@pytest.mark.slow
def test_other_code_or_other_reconstructions_replace_a_result(cli, photo_folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "made"
    for scale in (1, 0.5):
        folder = copycat(tmp_path / "copycat", scale)
        shutil.copytree(photo_folder, images, dirs_exist_ok=True)
        if scale != 1:
            for file in images.rglob("*.png"):
                Image.new("RGB", (256, 256)).save(file)
        for adapter in (folder, f"images:{images}"):
            metrics = "psnr" if scale == 1 else "ssim"
            done = cli("eval", adapter, "--data", photo_folder, "--metrics", metrics, "--out", tmp_path / "out")
            assert done.exit_code == 0, done.stderr
            assert ("replaced" in done.stderr) == (scale != 1)
    for path in (tmp_path / "out").glob("*/*.json"):
        result = load(path)
        assert set(result.metrics) == {"ssim"}
        assert set(result.per_image) == {"index", "name", "ssim"}


@pytest.mark.slow
def test_batch_size_does_not_change_the_file(cli, photo_folder: Path, tmp_path: Path) -> None:
    metrics = "psnr,ssim,rate,codebook,fd_efficientnet"
    files = []
    for size in (1, 4, 32):
        out = tmp_path / str(size)
        command = ["eval", "toy.p8", "--data", photo_folder, "--metrics", metrics, "--batch-size", size, "--out", out]
        assert cli(*command).exit_code == 0
        files.append(next(out.glob("toy.p8/*.json")).read_bytes())
    assert files[0] == files[1] == files[2]


@pytest.mark.finds
def test_all_images_bad_is_a_failure_in_json_too(cli, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "p" / name).write_bytes(b"broken")
    done = cli("eval", "identity", "--data", tmp_path / "p", "--json", "--skip-bad", "--out", tmp_path / "out")
    assert done.exit_code == 1
    (only,) = objects(done)
    assert [bad["name"] for bad in only["bad_images"]] == ["a.png", "b.png"]
    assert "no image could be read" in only["error"]
    assert "unreadable image b.png" in done.stderr


@pytest.mark.finds
def test_small_images_skip_lpips_and_keep_the_rest(cli, photo_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("lpips")
    command = ["eval", "identity", "--data", photo_folder, "--size", 28, "--metrics", "psnr,lpips", "--json"]
    (result,) = objects(cli(*command, "--out", tmp_path))
    assert result["metrics"]["exact"]["value"] == 6
    assert "lpips" in result["skipped"]


@pytest.mark.slow
def test_one_broken_earlier_result_loses_only_itself(cli, photo_folder: Path, tmp_path: Path) -> None:
    command = ["eval", "identity", "toy.p8", "--data", photo_folder, "--metrics", "psnr", "--out", tmp_path]
    assert cli(*command).exit_code == 0
    (broken,) = tmp_path.glob("identity/*.json")
    broken.write_text("{")
    done = cli(*command)
    assert done.exit_code == 1
    assert "failed identity" in done.stderr
    assert "wrote" in done.stderr


@pytest.mark.slow
def test_a_progress_bar_on_a_terminal_and_none_in_a_pipe(cli, photo_folder: Path, tmp_path: Path) -> None:
    import os
    import pty

    command = ["eval", "identity", "--data", str(photo_folder), "--metrics", "psnr", "--out", str(tmp_path)]
    piped = cli(*command)  # in this process, whose standard error is no terminal either
    assert piped.exit_code == 0, piped.stderr
    assert "images/s" not in piped.stderr
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "tokbench", *command], stdout=subprocess.DEVNULL, stderr=theirs, timeout=120, check=True
    )
    os.close(theirs)
    assert "6/6" in os.read(ours, 65536).decode()
