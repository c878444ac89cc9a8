"""Several processes: the result of one, and an error that names the rank where one of them dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from image_files import encode, write_files, write_noise
from PIL import Image

from tokbench.results.result import load

pytestmark = pytest.mark.slow

WHAT = ["toy.p8", "jpeg.q50", "--data", "samples", "--limit", "72", "--size", "64"]
WHAT += ["--metrics", "psnr,ssim,fd_efficientnet,codebook"]


def environment(cache: Path, **more: object) -> dict[str, str]:
    return os.environ | {"TOKBENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"} | {k: str(v) for k, v in more.items()}


@pytest.fixture(scope="module")
def alone(started):
    """One process, to its end."""

    def run(out: Path, cache: Path, what: Sequence[str] = WHAT) -> None:
        process = started(["eval", *what, "--out", out], environment(cache))
        _, stderr = process.communicate(timeout=200)
        assert process.returncode == 0, stderr

    return run


@pytest.fixture
def both(started):
    """Two ranks by themselves, as a launcher that does not watch over them would start them, with a cache or one each,
    and what they are."""

    def start(out: Path, *caches: Path, what: Sequence[str] = WHAT) -> list:
        joined = {"WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free()}
        return [
            started(["eval", *what, "--out", out], environment(cache, RANK=rank, LOCAL_RANK=rank, **joined))
            for rank, cache in zip((0, 1), caches * 2, strict=False)
        ]

    return start


def torchrun(out: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free()}"]
    return subprocess.run(
        [*launch, "-m", "tokbench", "eval", *WHAT, "--out", str(out)], env=environment(cache), text=True,
        capture_output=True, timeout=200,
    )  # fmt: skip


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def expected(alone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of one process."""
    folder = tmp_path_factory.mktemp("alone")
    alone(folder / "out", folder / "cache")
    return folder / "out"


def equal(out: Path, expected: Path) -> None:
    """Codec values and counts bit for bit, network values within 1e-5 and Fréchet distances within 1e-6."""
    for path in expected.rglob("*.json"):
        ours, theirs = load(out / path.relative_to(expected)), load(path)
        assert ours.metrics.keys() == theirs.metrics.keys()
        assert ours.provenance["data"] == theirs.provenance["data"]
        for number, entry in theirs.metrics.items():
            near = 1e-6 if number.startswith("fd_") else 0
            assert ours.metrics[number]["value"] == pytest.approx(entry["value"], rel=near, abs=0), number
        for number, values in theirs.per_image.items():
            np.testing.assert_array_equal(ours.per_image[number], values)


def test_two_processes_give_the_result_of_one(tmp_path: Path, expected: Path) -> None:
    done = torchrun(tmp_path / "out", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    equal(tmp_path / "out", expected)
    assert done.stdout.count("samples: 72 images") == 1  # rank 0 alone prints
    assert not list((tmp_path / "cache" / "runs").iterdir())


def test_samples_are_shared_and_references_are_not_paired_with_them(
    alone, both, tmp_path: Path, samples: Path, tiles: Path
) -> None:
    """More samples than references; the first process looks at those, all of them."""
    what = [f"images:{samples}", "--task", "generate", "--data", str(tiles), "--size", "32"]
    what += ["--metrics", "fd_efficientnet,precision_recall_efficientnet"]
    alone(tmp_path / "alone", tmp_path / "one", what)
    ranks = both(tmp_path / "out", tmp_path / "cache", what=what)
    outputs = [process.communicate(timeout=200) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs
    equal(tmp_path / "out", tmp_path / "alone")
    assert sum(printed.count("60 samples of 32x32 px against 48 images") for printed, _ in outputs) == 1


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """60 noisy images of 32 px."""
    return write_noise(tmp_path / "samples", 60, 32)


def test_exif_rotations_of_reconstructions_are_known_to_all_ranks(both, tmp_path: Path) -> None:
    """Rank 0 knew only the rotations of its own reconstructions, and warned of those of all other images."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    data = write_files(tmp_path / "set", {f"{i:02}.jpg": encode(picture, kind="JPEG", exif=exif) for i in range(70)})
    what = [f"images:{data}", "--data", str(data), "--metrics", "psnr"]
    outputs = [process.communicate(timeout=200) for process in both(tmp_path / "out", tmp_path / "cache", what=what)]
    (result,) = (load(path) for path in (tmp_path / "out").rglob("*.json"))
    assert result.num_images == 70, outputs
    assert "exif_rotation" not in {warning.kind for warning in result.warnings}


def test_nodes_without_a_common_folder(both, tmp_path: Path, expected: Path) -> None:
    """Each rank has its own cache; rank 0 receives its files through the process group."""
    for process in both(tmp_path / "out", tmp_path / "cache0", tmp_path / "cache1"):
        _, stderr = process.communicate(timeout=200)
        assert process.returncode == 0, stderr
    equal(tmp_path / "out", expected)


@pytest.mark.parametrize("victim", [1, 0])
def test_a_killed_rank_is_named_and_the_run_resumes(both, tmp_path: Path, expected: Path, victim: int) -> None:
    cache = tmp_path / "cache"
    ranks = both(tmp_path / "out", cache)
    deadline = time.monotonic() + 120
    while not list((cache / "runs").glob("*/0*.npz")):
        assert time.monotonic() < deadline
        assert ranks[0].poll() is None, ranks[0].communicate(timeout=60)
        time.sleep(0.02)
    ranks[victim].send_signal(signal.SIGKILL)
    ranks[victim].communicate(timeout=60)
    _, stderr = ranks[1 - victim].communicate(timeout=120)
    assert ranks[1 - victim].returncode == 1
    assert f"rank {victim} ended before its share was finished" in stderr
    assert "run the same command again" in stderr
    assert not list((tmp_path / "out").rglob("*.json"))
    kept = {path.relative_to(cache): path.stat().st_mtime_ns for path in (cache / "runs").rglob("0*.npz")}
    assert kept
    again = both(tmp_path / "out", cache)
    outputs = [process.communicate(timeout=200) for process in again]
    assert [process.returncode for process in again] == [0, 0], outputs
    equal(tmp_path / "out", expected)


def test_torchrun_names_a_rank_that_fails(tmp_path: Path) -> None:
    """One rank cannot write its cache: the launcher stops the others and names that rank."""
    (tmp_path / "cache").write_text("no folder")
    done = torchrun(tmp_path / "out", tmp_path / "cache")
    assert done.returncode != 0
    assert "several processes need a writable cache folder" in done.stderr
    assert "rank " in done.stderr


def test_a_lonely_rank_is_asked_to_use_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    done = cli("eval", "identity", "--out", tmp_path)
    assert done.exit_code == 2
    assert "start them with torchrun" in done.stderr


def test_shares_are_disjoint_and_whole() -> None:
    from tokbench.evaluation.distributed import ProcessGroup

    items = list(range(11))
    shares = [ProcessGroup(rank, 3).share(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_files_outside_the_cache_are_refused(tmp_path: Path) -> None:
    from tokbench.errors import TokbenchError
    from tokbench.evaluation.distributed import _inside

    assert _inside(tmp_path, "runs/a.npz") == tmp_path / "runs" / "a.npz"
    for name in ("../a", "/etc/passwd", "runs/../../a"):
        with pytest.raises(TokbenchError, match="outside the cache"):
            _inside(tmp_path, name)
