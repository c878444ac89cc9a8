"""Results and statistics files that are broken or made to harm: refused, naming file and field (docs/faults.md)."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokbench.errors import ResultError
from tokbench.io import npz
from tokbench.metrics.fid_statistics import FidStatistics, load_statistics
from tokbench.results import schema
from tokbench.results.leaderboard import read_all
from tokbench.results.result import Result, load
from tokbench.stats.split_half import Replicates


def facts() -> dict[str, Any]:
    """A result with everything that one can have."""
    return {
        "adapter": "a", "dataset": "set", "task": "reconstruct", "num_images": 4, "skipped": {"lpips": "no weights"},
        "bad_images": [{"name": "x.png", "reason": "empty"}],
        "metrics": {
            "psnr": {"value": 30.0, "low": 29.0, "high": 31.0, "n": 4},
            "rfid": {"value": 1.0, "low": 0.5, "high": 1.5, "n": 4},
            "rfid_infinity": {"value": 0.9, "low": 0.4, "high": 1.4, "n": 4},
            "bpp": {"value": 1},
        },
        "provenance": {
            "adapter": {"kind": "codec", "source": "a"},
            "data": {"sha256": "d" * 64, "width": 8, "height": 8, "own_size": 8, "limit": None, "available": 4},
            "protocol": {"name": "tokbench", "sha256": "b" * 64, "published": {"size": 256, "num_images": 50000}},
            "metrics": {"rfid": {"network": "n", "sha256": "e" * 64}},
            "reference": {
                "file": "s.npz", "sha256": "f" * 64, "count": 10, "width": 8, "height": 8, "dataset": None,
                "protocol": "tokbench", "original": True, "stated": ["size"], "mismatch": ["protocol"],
            },
            "seed": 0, "precision": "float32", "device": "cpu", "versions": {"torch": "2"},
        },
    }  # fmt: skip


def arrays() -> dict[str, np.ndarray]:
    return {
        "index": np.arange(4), "name": np.array(["a", "b", "c", "d"]), "psnr": np.array([1.0, 2.0, np.nan, 4.0]),
        "replicates.rfid": np.ones((200, 2)),
    }  # fmt: skip


def write(folder: Path, content: Any, held: dict[str, np.ndarray] | None = None) -> Path:
    path = folder / "a" / "r.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    np.savez(path.with_suffix(".npz"), **(arrays() if held is None else held))
    return path


def changed(document: Any, keys: str, value: Any) -> Any:
    """A copy in which what lies at `a.b.c` is another value; `...` removes it."""
    made = json.loads(json.dumps(document))
    *way, last = [int(key) if key.isdigit() else key for key in keys.split("/")]
    place = made
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return made


def test_a_whole_result_loads(tmp_path: Path) -> None:
    made = load(write(tmp_path, facts()))
    assert made.to_dict() == facts() | {"schema_version": 1}
    assert isinstance(made.replicates["rfid"], Replicates)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("adapter", "../../x"), ("adapter", ""), ("adapter", ".."), ("adapter", "a/b"), ("adapter", "a\nb"),
        ("adapter", r"a\b"), ("dataset", "../x"), ("dataset", "x" * 300), ("task", "/x"), ("task", None),
        ("num_images", 1.5), ("num_images", True), ("num_images", -1), ("num_images", 10**400), ("error", 5),
        ("metrics", []), ("metrics/psnr", 3), ("metrics/psnr/value", "3"), ("metrics/psnr/value", True),
        ("metrics/psnr/value", 10**400), ("metrics/psnr/value", ...), ("metrics/psnr/low", "x"),
        ("metrics/psnr/low", None), ("metrics/psnr/high", ...), ("metrics/psnr/high", [1]), ("metrics/psnr/n", None),
        ("metrics/psnr/n", "4"), ("metrics/psnr/n", 4.5), ("metrics/psnr/n", -1), ("metrics/rfid/value", None),
        ("metrics/rfid", ...), ("skipped/lpips", 3), ("skipped/lpips", None), ("skipped", []), ("bad_images", {}),
        ("bad_images/0", "x.png"), ("bad_images/0/name", 3), ("bad_images/0/reason", ...), ("provenance", None),
        ("provenance/adapter", "codec"), ("provenance/adapter/kind", None), ("provenance/adapter/source", 3),
        ("provenance/data/sha256", "../../x"), ("provenance/data/sha256", 3), ("provenance/data/width", "8"),
        ("provenance/data/width", 0), ("provenance/data/height", None), ("provenance/data/own_size", "8"),
        ("provenance/data/limit", [1]), ("provenance/data/limit", -1), ("provenance/data/available", ...),
        ("provenance/protocol/name", "../x"), ("provenance/protocol/sha256", None),
        ("provenance/protocol/published", 3), ("provenance/protocol/published/size", "256"),
        ("provenance/metrics", []), ("provenance/metrics/rfid", "n"), ("provenance/metrics/rfid/network", [1]),
        ("provenance/metrics/rfid/network", 3), ("provenance/reference", 3), ("provenance/reference/sha256", "../x"),
        ("provenance/reference/file", None), ("provenance/reference/count", "10"),
        ("provenance/reference/count", -1), ("provenance/reference/width", 0), ("provenance/reference/height", 8.5),
        ("provenance/reference/dataset", 3), ("provenance/reference/protocol", ["tokbench"]),
        ("provenance/reference/original", "yes"), ("provenance/reference/stated", "size"),
        ("provenance/reference/mismatch", [3]), ("provenance/protocol/reference", 3),
        ("provenance/seed", "0"), ("provenance/seed", [0]),
        ("provenance/seed", ...), ("provenance/precision", 32), ("provenance/device", {}), ("provenance/versions", "2"),
        ("provenance/adapter/range", 1e301), ("skipped/lpips", "\ud800"),
    ],
)  # fmt: skip
def test_a_field_of_the_wrong_type_is_named(tmp_path: Path, keys: str, value: Any) -> None:
    path = write(tmp_path, changed(facts(), keys, value))
    with pytest.raises(ResultError) as caught:
        load(path)
    assert str(path.parent) in str(caught.value)
    named = [key for key in keys.split("/") if not key.isdigit()]
    if value not in (1e301, "\ud800"):
        assert any(key in str(caught.value) for key in named[-2:]), str(caught.value)


@pytest.mark.parametrize(
    ("keys", "value", "complaint"),
    [
        ("provenance/data/width", "8", "provenance.data.width must be an integer, but it is '8'"),
        ("provenance/data/width", 0, "provenance.data.width must be an integer >= 1, but it is 0"),
        ("metrics/rfid/low", "x", "metrics.rfid.low must be a number or null, but it is 'x'"),
        ("metrics/pfid.a0.9-d10", {}, "metrics['pfid.a0.9-d10'].value is missing"),
        ("metrics/psnr/low", None, "metrics.psnr: low and high must both be numbers or null, but they are None and 31"),
        ("metrics/psnr/value", 10**400, "metrics.psnr.value must be a number between -1e+300 and 1e+300, but it is 1"),
        ("bad_images/0/name", 3, "bad_images[0].name must be text, but it is 3"),
        ("provenance/metrics/rfid/network", [1], "provenance.metrics.rfid.network must be text, but it is [1]"),
    ],
)  # fmt: skip
def test_a_message_says_where_what_was_expected_and_what_is_there(
    tmp_path: Path, keys: str, value: Any, complaint: str
) -> None:
    path = write(tmp_path, changed(facts(), keys, value))
    with pytest.raises(ResultError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: {complaint}")


def test_results_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, facts() | {"schema_version": 2})
    with pytest.raises(ResultError, match=r"r.json: schema_version is 2.* versions up to 1; upgrade tokbench"):
        load(path)


@pytest.mark.parametrize("version", [0, "1", 1.0, True, None])
def test_versions_that_are_none_are_refused(tmp_path: Path, version: object) -> None:
    with pytest.raises(ResultError, match=r"schema_version must be an integer >= 1"):
        load(write(tmp_path, facts() | {"schema_version": version}))


def test_earlier_versions_are_migrated_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here version 2 renames `psnr_db` of version 1 to `psnr`, and version 3 renames `rate` to `bpp`."""

    def renamed(old: str, new: str) -> Any:
        def step(document: dict[str, Any]) -> dict[str, Any]:
            metrics = {new if name == old else name: entry for name, entry in document["metrics"].items()}
            return document | {"metrics": metrics}

        return step

    first = json.loads(json.dumps(facts()).replace('"psnr"', '"psnr_db"').replace('"bpp"', '"rate"'))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(schema, "MIGRATIONS", {1: renamed("psnr_db", "psnr"), 2: renamed("rate", "bpp")})
    path = write(tmp_path, first)
    before = path.read_bytes()
    assert load(path).metrics == facts()["metrics"]
    assert path.read_bytes() == before  # files are not rewritten
    second = json.loads(json.dumps(facts()).replace('"bpp"', '"rate"')) | {"schema_version": 2}
    assert load(write(tmp_path, second)).metrics == facts()["metrics"]


def test_new_results_say_their_version_and_committed_ones_need_not(root: Path, tmp_path: Path) -> None:
    committed = next((root / "results" / "pca.f8c16").glob("*-reconstruct.json"))
    assert "schema_version" not in json.loads(committed.read_text())
    path, _ = load(committed).save(tmp_path)
    assert json.loads(path.read_text())["schema_version"] == schema.SCHEMA_VERSION


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[" * 100_000 + "]" * 100_000, "nesting is too deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nesting is too deep"),
        (json.dumps(facts() | {"extra": [[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]}), "nested deeper"),
        ('{"adapter": "a", "adapter": "b"}', "'adapter' is repeated"),
        ('{"adapter": ' + "9" * 10_000 + "}", "not a readable result"),
        ('{"adapter": NaN}', "NaN is not a JSON number"),
        ('{"adapter": -Infinity}', "Infinity is not a JSON number"),
        (json.dumps(facts()).replace("30.0", "1e999"), "not finite"),
        ("\x00" * 100, "not a readable result"),
        ("", "not a readable result"),
    ],
)
def test_json_that_is_made_to_harm_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ResultError, match=rf"r.json .*{complaint}"):
        load(write(tmp_path, text))


def test_results_that_are_no_text(tmp_path: Path) -> None:
    path = write(tmp_path, facts())
    path.write_bytes(path.read_bytes().replace(b"no weights", b"no \xff\xfe"))
    with pytest.raises(ResultError, match="not a readable result"):
        load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("index", None), ("index", np.arange(3)), ("index", np.arange(4.0)), ("index", np.array([0, 1, 1, 2])),
        ("index", np.array([-1, 0, 1, 2])), ("index", np.array(3)), ("name", np.arange(4)),
        ("name", np.array(["a"] * 3)), ("name", np.array(["\ud800"] * 4)),
        ("name", np.full(4, 0x7FFFFFFF, np.uint32).view("<U1")),
        ("psnr", np.arange(3.0)), ("psnr", np.ones((4, 1))), ("psnr", np.array(["x"] * 4)), ("psnr", np.ones(4) * 1j),
        ("psnr", np.ones(4, bool)), ("psnr", np.array([np.inf] * 4)), ("psnr", np.array([1] * 4, "M8[s]")),
        ("psnr", np.array([{}] * 4, object)), ("replicates.rfid", np.ones(200)),
        ("replicates.rfid", np.ones((199, 2))), ("replicates.rfid", np.ones((200, 3))),
        ("replicates.rfid", np.ones((0, 2))), ("replicates.rfid", np.full((200, 2), "x")),
        ("replicates.rfid", np.ones((200, 1))),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, name: str, value: np.ndarray | None) -> None:
    held = {key: array for key, array in (arrays() | {name: value}).items() if array is not None}
    with pytest.raises(ResultError, match=r"r.npz"):
        load(write(tmp_path, facts(), held))


@pytest.mark.parametrize("read", [load, load_statistics])
def test_arrays_that_claim_or_unfold_to_much_are_refused(
    tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, facts()).with_suffix(".npz")
    target = path if read is load_statistics else path.with_suffix(".json")
    lie = io.BytesIO()
    np.lib.format.write_array_header_1_0(lie, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mu.npy", lie.getvalue() + bytes(80))
    with pytest.raises(ResultError, match="does not fit its 80 bytes"):
        read(target)
    monkeypatch.setattr(npz, "MAX_ARRAYS", 1 << 20)
    np.savez_compressed(path, mu=np.zeros(1 << 18))
    with pytest.raises(ResultError, match="over the limit"):
        read(target)


def test_no_result_is_written_outside_the_results_folder(tmp_path: Path) -> None:
    """Names inside a result become its path and the names of tables."""
    for keys in ("adapter", "dataset", "task", "provenance/protocol/name", "provenance/data/sha256"):
        with pytest.raises(ResultError):
            read_all(write(tmp_path, changed(facts(), keys, "../../../x")).parent.parent)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "tokbench: the content must be an object"),
         ("{", "not a readable"), ('{"layers": 3}', "layers.* must be"),
        ('{"layers": [3]}', "layers.* must be"), ('{"network": 3}', "network.* must be"),
        ('{"count": "x"}', "count.* must be"),
        ('{"count": true}', "count.* must be"), ('{"count": -1}', "count.* must be"), ("[" * 100_000, "not a readable"),
        ('{"width": 0, "height": 8}', "width.* must be"), ('{"width": 8, "height": "8"}', "height.* must be"),
        ('{"width": 8}', "width and height must both"), ('{"preparation": "crop"}', "preparation.* must be"),
        ('{"preparation": {"crop": [1]}}', "preparation.* must be"), ('{"weights": {}}', "weights.* must be"),
        ('{"protocol_sha256": []}', "protocol_sha256.* must be"), (r'{"count": "\ud800"}', "not valid Unicode"),
        (r'{"preparation": {"a": "x", "b": 3}, "count": "\ud800"}', "preparation.b must be"),
    ],
)  # fmt: skip
def test_statistics_that_say_nonsense_of_themselves_are_named(tmp_path: Path, text: str, complaint: str) -> None:
    np.savez(tmp_path / "s.npz", mu=np.zeros(3), sigma=np.eye(3), tokbench=np.array(text))
    with pytest.raises(ResultError, match=rf"s.npz.*{complaint}"):
        load_statistics(tmp_path / "s.npz")


@pytest.mark.parametrize(
    ("mu", "sigma", "complaint"),
    [
        (np.zeros(3, complex), np.eye(3), "must be numbers"),
        (np.array(["a"]), np.eye(1), "must be numbers"),
        (np.zeros(0), np.zeros((0, 0)), "do not fit"),
        (np.zeros(3), -np.eye(3), "negative variance"),
        (np.zeros(2), np.array([[1.0, 5.0], [0.0, 1.0]]), "not symmetric"),
        (np.zeros(3), np.full((3, 3), np.inf), "NaN or infinite"),
    ],
)
def test_statistics_that_are_none_are_refused(
    tmp_path: Path, mu: np.ndarray, sigma: np.ndarray, complaint: str
) -> None:
    np.savez(tmp_path / "s.npz", mu=mu, sigma=sigma)
    with pytest.raises(ResultError, match=complaint):
        load_statistics(tmp_path / "s.npz")


def test_statistics_cannot_name_another_file_or_hash(tmp_path: Path) -> None:
    text = json.dumps({"path": "/etc/passwd", "sha256": "0" * 64, "network": "net"})
    np.savez(tmp_path / "s.npz", mu=np.zeros(3), sigma=np.eye(3), tokbench=np.array(text))
    made = load_statistics(tmp_path / "s.npz")
    assert isinstance(made, FidStatistics)
    assert (made.path, made.network) == (tmp_path / "s.npz", "net")
    assert made.sha256 != "0" * 64


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", r"'readings.words' is not readable \(Expecting"),
        (rb'[["a", [{"text": "\ud800"}]]]', r"'readings.words' is not readable \(.*surrogates"),
        (b'[["a"]]', r"'readings.words'.* must be"),
        (b'[["a", [], 1]]', r"'readings.words'.* must be"),
        (b'[["a", [3]]]', r"'readings.words'.* must be an object, but it is 3"),
        (b'{"a": []}', r"'readings.words'.* must be a list"),
    ],
)
def test_readings_that_do_not_fit_are_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    held = arrays() | {"readings.words": np.frombuffer(content, dtype=np.uint8)}
    with pytest.raises(ResultError, match=rf"r.npz: {complaint}.*delete it and run again"):
        load(write(tmp_path, facts(), held))


def test_readings_of_another_type_are_named(tmp_path: Path) -> None:
    held = arrays() | {"readings.words": np.arange(4.0)}
    with pytest.raises(ResultError, match=r"r.npz: 'readings.words' must be bytes, but it is float64"):
        load(write(tmp_path, facts(), held))


@pytest.mark.slow
def test_committed_results_load(root: Path) -> None:
    assert all(isinstance(made, Result) for made in read_all(root / "results"))
