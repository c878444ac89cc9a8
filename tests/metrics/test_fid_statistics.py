"""Statistics files: what is written, what other programs' files may be used for, and `tokbench stats`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tokbench.errors import NotApplicable, ResultError, UsageError
from tokbench.metrics.fid_statistics import FidStatistics, largest_differences, load_statistics
from tokbench.metrics.frechet import distance_of_sets, distance_to, frechet_distance
from tokbench.results.result import load

KNOWN = {"network": "net", "input": "tf1", "precision": "float32", "weights": "w" * 64}


@pytest.fixture
def made() -> FidStatistics:
    rows = np.random.default_rng(0).normal(size=(50, 6))
    return FidStatistics({"6": (rows.mean(0), np.cov(rows, rowvar=False))}, **KNOWN, count=50, data="d" * 64)


def test_round_trip(made: FidStatistics, tmp_path: Path) -> None:
    spatial = (np.zeros(3), np.eye(3))
    replace(made, layers={**made.layers, "sfid": spatial}).save(tmp_path / "s.npz")
    again = load_statistics(tmp_path / "s.npz")
    assert again.to_dict() == made.to_dict() | {"layers": ["6", "sfid"]}
    for layer, moments in {**made.layers, "sfid": spatial}.items():
        assert largest_differences(moments, again.layers[layer]) == (0, 0)


def test_the_file_is_what_other_programs_read(made: FidStatistics, tmp_path: Path) -> None:
    """pytorch-fid's own loader, and the keys of ADM."""
    fid_score = pytest.importorskip("pytorch_fid.fid_score")
    replace(made, layers={**made.layers, "sfid": (np.zeros(3), np.eye(3))}).save(tmp_path / "s.npz")
    mean, covariance = fid_score.compute_statistics_of_path(str(tmp_path / "s.npz"), None, 1, 6, "cpu")
    np.testing.assert_array_equal(mean, made.layers["6"][0])
    np.testing.assert_array_equal(covariance, made.layers["6"][1])
    with np.load(tmp_path / "s.npz", allow_pickle=False) as arrays:
        assert {"mu", "sigma", "mu_s", "sigma_s"} < set(arrays)


@pytest.mark.parametrize("key", KNOWN)
def test_statistics_made_otherwise_are_refused(made: FidStatistics, key: str) -> None:
    ours = {**KNOWN, "layer": "6"}
    assert made.moments(**ours) is made.layers["6"]
    with pytest.raises(NotApplicable, match=f"was made with {key} other"):
        replace(made, **{key: "other"}).moments(**ours)
    with pytest.raises(NotApplicable, match="has no layer 7; it has 6"):
        made.moments(**(ours | {"layer": "7"}))


def test_unknown_statistics_need_the_users_word(tmp_path: Path) -> None:
    np.savez(tmp_path / "fid.npz", mu=np.zeros(6), sigma=np.eye(6))
    unknown, ours = load_statistics(tmp_path / "fid.npz"), {**KNOWN, "layer": "6"}
    with pytest.raises(NotApplicable, match=r"fid.npz does not record its network.*--reference-is net:tf1:float32"):
        unknown.moments(**ours)
    assert unknown.assume("net:tf1:float32").moments(**ours)
    with pytest.raises(NotApplicable, match="was made with input clean"):
        unknown.assume("net:clean:float32").moments(**ours)
    with pytest.raises(UsageError, match="give NETWORK:INPUT:PRECISION"):
        unknown.assume("tf1")


def test_the_users_word_does_not_overrule_the_file(made: FidStatistics) -> None:
    with pytest.raises(UsageError, match="records that its input is tf1"):
        made.assume("net:clean:float32")


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"features": np.zeros((3, 6))}, "neither mu and sigma"),
        ({"mu": np.zeros(5), "sigma": np.eye(6)}, "do not fit"),
        ({"mu": np.full(6, np.nan), "sigma": np.eye(6)}, "NaN or infinite"),
        ({"mu": np.array([{}], dtype=object), "sigma": np.eye(1)}, "not a readable"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, arrays: dict, complaint: str) -> None:
    np.savez(tmp_path / "bad.npz", allow_pickle=True, **arrays)
    with pytest.raises(ResultError, match=rf"bad\.npz.*{complaint}"):
        load_statistics(tmp_path / "bad.npz")


def test_a_file_that_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"half of a file")
    with pytest.raises(ResultError, match=r"bad\.npz is not a readable"):
        load_statistics(tmp_path / "bad.npz")


@pytest.mark.parametrize("count", [4, 40])
def test_the_distance_to_moments_is_that_of_the_sets(count: int) -> None:
    """Computed from n x n and from D x D matrices."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(60, 12)), rng.normal(size=(count, 12)) + 0.2
    moments = first.mean(0), np.cov(first, rowvar=False)
    own = second.mean(0), np.cov(second, rowvar=False)
    expected = frechet_distance(*moments, *own)
    assert distance_to(*moments, second) == pytest.approx(expected, rel=1e-6)
    assert distance_of_sets(first, second) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_make_show_verify_and_use(cli, photo_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "stats.npz"
    common = ["--data", photo_folder]
    made = cli("stats", "make", *common, "--network", "efficientnet-lite0", "--layers", "pooled", "--out", file)
    assert made.exit_code == 0, made.stderr
    shown = cli("stats", "show", file)
    assert "layer pooled: 1280 dimensions" in shown.stdout
    assert "network    efficientnet-lite0" in shown.stdout
    verified = cli("stats", "verify", file, *common)
    assert (verified.exit_code, verified.stdout.splitlines()[-1]) == (0, "equal")
    nameless = cli("stats", "verify", file)  # it names its images; a folder without a name cannot be found by that
    assert nameless.exit_code == 2
    assert f"no dataset or path '{load_statistics(file).dataset}'" in nameless.stderr
    other = cli("stats", "verify", file, *common, "--limit", 5)
    assert (other.exit_code, other.stdout.splitlines()[-1]) == (1, "different")

    numbers = []
    for extra in ([], ["--reference", file]):
        done = cli("eval", "jpeg.q10", *common, "--metrics", "fd_efficientnet", *extra, "--json", "--out", tmp_path)
        assert done.exit_code == 0, done.stderr
        numbers.append(json.loads(done.stdout)[0])
    values = [facts["metrics"]["fd_efficientnet"]["value"] for facts in numbers]
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    digest = load_statistics(file).sha256
    assert numbers[1]["provenance"]["metrics"]["fd_efficientnet"]["reference"] == digest
    names = sorted(path.name for path in tmp_path.glob("jpeg.q10/*.json"))
    assert len(names) == 2
    assert f".ref-{digest[:8]}-" in names[1]
    assert load(tmp_path / "jpeg.q10" / names[1]).provenance["reference"]["sha256"] == digest


@pytest.mark.slow
def test_verify_takes_data_and_protocol_from_the_file(cli, tmp_path: Path) -> None:
    options = ["--network", "efficientnet-lite0", "--layers", "pooled", "--protocol", "seed-voken", "--limit", 4]
    assert cli("stats", "make", "--data", "samples", *options, "--out", tmp_path / "s.npz").exit_code == 0
    assert load_statistics(tmp_path / "s.npz").protocol == "seed-voken"
    done = cli("stats", "verify", tmp_path / "s.npz")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "equal"), done.stderr


def test_only_vectors_have_statistics(cli, tmp_path: Path) -> None:
    options = ["--network", "efficientnet-lite0", "--layers", "nothing", "--limit", 1, "--out", tmp_path / "s.npz"]
    done = cli("stats", "make", *options)
    assert done.exit_code == 2
    assert "no layer 'nothing'" in done.stderr
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(ResultError, match=r"x\.npy is not a readable"):
        load_statistics(tmp_path / "x.npy")


def test_another_input_path_is_refused(cli, photo_folder: Path, tmp_path: Path) -> None:
    """A file that names its network but another input: the metric is skipped with the reason, never computed."""
    moments = np.zeros(1280), np.eye(1280)
    FidStatistics({"pooled": moments}, "efficientnet-lite0", "x", "bfloat16").save(tmp_path / "s.npz")
    done = cli(
        "eval", "jpeg.q10", "--data", photo_folder, "--metrics", "psnr,fd_efficientnet", "--json", "--reference",
        tmp_path / "s.npz", "--out", tmp_path,
    )  # fmt: skip
    (facts,) = json.loads(done.stdout)
    assert "precision bfloat16, but this run uses float32" in facts["skipped"]["fd_efficientnet"]
    assert "psnr" in facts["metrics"]


def test_a_protocol_of_statistics_asks_for_them(cli, photo_folder: Path, tmp_path: Path) -> None:
    done = cli(
        "eval", "jpeg.q10", "--data", photo_folder, "--metrics", "psnr,fd_efficientnet", "--protocol", "adm", "--json",
        "--out", tmp_path,
    )  # fmt: skip
    (facts,) = json.loads(done.stdout)
    assert "VIRTUAL_imagenet256_labeled.npz" in facts["skipped"]["fd_efficientnet"]
    assert facts["provenance"]["protocol"]["name"] == "adm"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["stats", "make", "--out", "x.npz", "--network", "dino"], "unknown network 'dino'"),
        (["stats", "make", "--out", "x.npz", "--layers", "64,768"], "one pooled layer"),
        (["stats", "make", "--out", "x.txt"], "must end in .npz"),
        (["eval", "identity", "--reference-is", "a:b:c"], "require --reference"),
    ],
)
def test_wrong_usage(cli, arguments: list[str], complaint: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(*arguments)
    assert done.exit_code == 2
    assert complaint in done.stderr
