"""Facts about the code and weights of an adapter in results: which results are joined, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from factories import make_result

from tokbench.errors import ResultError
from tokbench.results.result import Result, load


def result_with(**provenance: Any) -> Result:
    """A result with these facts in its provenance."""
    return make_result(adapter_facts=provenance.pop("adapter", {}), **provenance)


NOW = {"modules": {"mine": "1" * 64}, "packages": {"torch": "2.14.1", "timm": "1.0"}}


@pytest.mark.parametrize(
    ("before", "now", "differences"),
    [
        ({}, {"adapter": NOW}, []),  # a result of an earlier version does not say
        ({"adapter": NOW}, {"adapter": NOW}, []),
        ({"adapter": NOW}, {"adapter": NOW | {"modules": {"mine": "2" * 64}}}, ["module mine"]),
        (
            {"adapter": NOW | {"packages": {"torch": "2.13.0", "lpips": "1"}}},
            {"adapter": NOW},
            ["package lpips 1 -> absent", "package timm absent -> 1.0", "package torch 2.13.0 -> 2.14.1"],
        ),
        ({"adapter": {"packages": {"torch": "2"}}}, {"adapter": {"modules": {"x": "1"}, "packages": {"torch": "2"}}},
         ["module x"]),
        ({"adapter": NOW}, {}, ["module mine", "package timm 1.0 -> absent", "package torch 2.14.1 -> absent"]),
        ({}, {"adapter": {"code_sha256": "e" * 64}}, ["code_sha256"]),
        ({}, {"adapter": {"weights": {"f": "1"}, "parameters_sha256": "2"}}, ["parameters_sha256", "weights"]),
        ({}, {"adapter": {"dtype": "float16"}}, ["dtype None -> float16"]),
        ({}, {"data": {"sha256": "e" * 64}, "protocol": {"sha256": "e" * 64}}, ["data", "protocol"]),
        ({}, {"seed": 1, "precision": "bfloat16"}, ["seed 0 -> 1", "precision float32 -> bfloat16"]),
        ({"adapter": {"unused_tensors": {"loss.": 1}, "source": "x"}}, {}, []),
        ({}, {"adapter": {"files": {"a.json": "1"}}}, ["file a.json"]),  # earlier results did not look at any
        ({"adapter": {"files": {"a.json": "1", "b": "2"}}}, {"adapter": {"files": {"b": "2"}}}, ["file a.json"]),
        ({}, {"adapter": {"config_sha256": "1", "other_parameters_sha256": "2"}},
         ["config_sha256", "other_parameters_sha256"]),
    ],
)  # fmt: skip
def test_what_two_results_were_made_with(before: dict, now: dict, differences: list[str], tmp_path: Path) -> None:
    assert result_with(**now).differs_from(result_with(**before)) == differences
    result_with(**before).save(tmp_path)
    _, replaced = result_with(**now).save(tmp_path)
    assert bool(replaced) == bool(differences)
    assert all(part in replaced for part in differences)


def test_committed_results_join_what_is_measured_today(root: Path, tmp_path: Path) -> None:
    """Those of earlier versions do not say which packages they used."""
    earlier = load(next((root / "results" / "pca.f8c16").glob("*-reconstruct.json")))
    for key in ("modules", "packages"):
        earlier.provenance["adapter"].pop(key, None)
    adapter = earlier.provenance["adapter"] | NOW
    later = Result(**{name: getattr(earlier, name) for name in ("adapter", "dataset", "task", "num_images", "metrics")},
                   skipped={}, bad_images=[], provenance=earlier.provenance | {"adapter": adapter})  # fmt: skip
    assert later.differs_from(earlier) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("modules", []), ("modules", {"a": 1}), ("packages", "torch"), ("packages", {"torch": None}),
        ("files", ["a.json"]), ("files", {"a.json": 1}), ("config_sha256", 1), ("other_parameters_sha256", ["1"]),
        ("unused_tensors", {"loss.": -1}), ("unused_tensors", {"loss.": "1"}), ("unused_tensors", [1]),
        ("weights_in_part", {"missing": 1}), ("weights_in_part", {"missing": 1, "unexpected": 0, "first": [1]}),
        ("weights_in_part", {"missing": True, "unexpected": 0, "first": []}), ("weights_in_part", 1),
        ("floor", 1), ("floor", "kmeans.f8"),
    ],
)  # fmt: skip
def test_facts_of_the_wrong_type_are_refused(key: str, value: object, tmp_path: Path) -> None:
    path, _ = result_with().save(tmp_path)
    facts = json.loads(path.read_text())
    facts["provenance"]["adapter"][key] = value
    path.write_text(json.dumps(facts))
    with pytest.raises(ResultError, match=rf"provenance\.adapter\.{key}\S* (must be|is missing)"):
        load(path)


def test_good_facts_come_back(tmp_path: Path) -> None:
    facts = NOW | {
        "unused_tensors": {"loss.": 2},
        "weights_in_part": {"missing": 1, "unexpected": 0, "first": ["a.weight"]},
    }
    path, _ = result_with(adapter=facts).save(tmp_path)
    assert load(path).provenance["adapter"].items() >= facts.items()
