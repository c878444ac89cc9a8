"""Ablations: verdicts from result files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import image_columns, make_result

from tokbench.analysis.ablations import ablations, findings
from tokbench.errors import AdapterError
from tokbench.results.result import Result
from tokbench.tokenizers.registry import adapter_files

TABLE = """
[ablation]
of = "mini.whole"
without = "the part"
claim = "The part helps."
numbers = ["psnr"]
tasks = ["reconstruct"]
"""


def result(adapter: str, shift: float, task: str = "reconstruct") -> Result:
    values = np.linspace(20, 30, 40) + shift
    metrics = {"psnr": {"value": float(values.mean()), "low": None, "high": None, "n": 40}}
    columns = image_columns(40, psnr=values)
    return make_result(adapter, metrics, dataset="photos", task=task, num_images=40, per_image=columns)


@pytest.fixture
def declared(tmp_path: Path):
    (tmp_path / "ablated.toml").write_text(TABLE)
    (tmp_path / "whole.toml").write_text("")
    return ablations({"mini.ablated": tmp_path / "ablated.toml", "mini.whole": tmp_path / "whole.toml"})


@pytest.mark.parametrize("shift, verdict", [(-1.0, "supported"), (1.0, "not supported"), (0.0, "cannot tell")])
def test_the_verdict_follows_the_paired_difference(declared, shift: float, verdict: str) -> None:
    (found,) = findings(declared, [result("mini.whole", 0), result("mini.ablated", shift)])
    assert found.verdict == verdict
    assert found.difference.gap == pytest.approx(shift)


@pytest.mark.parametrize("cost, verdict", [(-2.0, "supported"), (0.2, "supported"), (2.0, "not supported")])
def test_what_saves_work_may_cost_so_much(tmp_path: Path, cost: float, verdict: str) -> None:
    """A margin of 4 % of 25 dB is 1 dB: the adapter may be at most 1 dB worse than the ablated one."""
    (tmp_path / "ablated.toml").write_text(TABLE + "margin = 0.04\n")
    declared = ablations({"mini.ablated": tmp_path / "ablated.toml"})
    (found,) = findings(declared, [result("mini.whole", -cost), result("mini.ablated", 0)])
    assert found.verdict == verdict


def test_an_ablation_may_test_several_claims(tmp_path: Path) -> None:
    """The ablated adapter is 0.2 dB better: the part does not help, but a margin of 4 % allows its cost."""
    tables = TABLE.replace("[ablation]", "[[ablation]]")
    (tmp_path / "ablated.toml").write_text(tables + tables.replace("helps", "costs little") + "margin = 0.04\n")
    declared = ablations({"mini.ablated": tmp_path / "ablated.toml"})
    found = findings(declared, [result("mini.whole", 0), result("mini.ablated", 0.2)])
    assert {one.ablation.claim: one.verdict for one in found} == {
        "The part helps.": "not supported", "The part costs little.": "supported"
    }  # fmt: skip


def reconstruction(adapter: str, psnr: float, lpips: float | None, **facts: object) -> Result:
    """A result of 640 bits per image, on the images of `result`, as `facts` of an adapter declare it."""
    values = {"bits_per_image": 640.0, "psnr": psnr} | ({} if lpips is None else {"lpips": lpips})
    metrics = {name: {"value": value, "low": None, "high": None, "n": 40} for name, value in values.items()}
    columns = image_columns(40, psnr=np.linspace(-1, 1, 40) + psnr)
    facts = {"kind": "discrete"} | facts
    return make_result(adapter, metrics, dataset="photos", num_images=40, per_image=columns, adapter_facts=facts)


@pytest.mark.parametrize(
    ("whole", "ablated", "below", "verdict"),
    [
        ((20.0, 0.3), (19.5, 0.3), (), "supported"),
        ((18.0, 0.4), (17.5, 0.4), ("mini.whole", "mini.ablated"), "below floor: no verdict"),
        ((20.0, 0.3), (18.0, 0.4), ("mini.ablated",), "below floor: no verdict"),
        ((18.0, 0.4), (20.0, 0.3), ("mini.whole",), "below floor: no verdict"),
        ((18.0, 0.3), (17.5, 0.3), (), "supported"),  # worse than the floor in PSNR only
        ((18.0, None), (17.5, None), (), "supported"),  # no LPIPS was measured
    ],
)
def test_networks_below_their_floor_have_no_verdict(
    declared, whole: tuple, ablated: tuple, below: tuple[str, ...], verdict: str
) -> None:
    floor = reconstruction("kmeans.f8", 19.0, 0.33, floor=True)
    rows = [reconstruction("mini.whole", *whole), reconstruction("mini.ablated", *ablated)]
    (found,) = findings(declared, [floor, *rows])
    assert (found.below_floor, found.verdict) == (below, verdict)
    (without,) = findings(declared, rows)
    assert without.verdict == ("supported" if ablated[0] < whole[0] else "not supported")


def test_a_margin_gives_no_verdict_below_the_floor_either(tmp_path: Path) -> None:
    (tmp_path / "ablated.toml").write_text(TABLE + "margin = 0.04\n")
    floor = reconstruction("kmeans.f8", 19.0, 0.33, floor=True)
    rows = [reconstruction("mini.whole", 18.0, 0.4), reconstruction("mini.ablated", 18.0, 0.4)]
    (found,) = findings(ablations({"mini.ablated": tmp_path / "ablated.toml"}), [floor, *rows])
    assert found.verdict == "below floor: no verdict"


def test_other_tasks_and_single_adapters_give_no_finding(declared) -> None:
    assert not findings(declared, [result("mini.ablated", 1)])
    assert not findings(declared, [result("mini.whole", 0, "truncate-4"), result("mini.ablated", 1, "truncate-4")])


def test_an_incomplete_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ablated.toml").write_text('[ablation]\nof = "mini.whole"\n')
    with pytest.raises(AdapterError, match=r"mini\.ablated: \[ablation\] must give"):
        ablations({"mini.ablated": tmp_path / "ablated.toml"})


def test_every_committed_ablation_names_an_adapter_of_its_family() -> None:
    files = adapter_files()
    assert len(ablations(files)) >= 10
    for one in ablations(files):
        assert one.of in files
        assert one.of.partition(".")[0] == one.ablated.partition(".")[0]
