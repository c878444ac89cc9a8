"""action.yml: its steps run as on GitHub, in a clean folder that holds another repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from checkout import ROOT

ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = ACTION["runs"]["steps"]
CHECK = next(step for step in STEPS if step.get("id") == "check")


@dataclass
class Runner:
    """A minimal runner of composite actions. It knows the folders of a machine that has only Python and bash.

    workspace: the other repository. outputs: those of the steps so far, by step. summary: the job summary.
    """

    home: Path
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def workspace(self) -> Path:
        return self.home / "work"

    @property
    def summary(self) -> str:
        return (self.home / "summary.md").read_text(encoding="utf-8")

    def fill(self, text: str, inputs: Mapping[str, str]) -> str:
        """Replace the expressions in a text. Raises KeyError for an unknown one."""
        known = {f"inputs.{name}": value for name, value in inputs.items()}
        known |= {"github.action_path": str(self.home / "action"), "runner.os": "Linux"}
        known["hashFiles(format('{0}/**/*.json', inputs.against))"] = "0"
        known |= {
            f"steps.{step}.outputs.{name}": value
            for step, found in self.outputs.items()
            for name, value in found.items()
        }
        return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: known[found[1]], text)

    def run(self, step: Mapping[str, Any], **inputs: str) -> subprocess.CompletedProcess[str]:
        """Run the shell of one step. inputs: with underscores for hyphens; the others have their defaults."""
        given = {name: str(entry["default"]) for name, entry in ACTION["inputs"].items()}
        given |= {name.replace("_", "-"): value for name, value in inputs.items()}
        assert set(given) == set(ACTION["inputs"])
        output = self.home / "output.txt"
        output.write_text("")
        environment = {
            "PATH": f"{self.home / 'python' / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.home),
            "RUNNER_TEMP": str(self.home / "temp"),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(self.home / "summary.md"),
            "OMP_NUM_THREADS": "1",
            "PIP_NO_INDEX": "true",
            "PIP_NO_BUILD_ISOLATION": "false",  # pip reads it as the value of build isolation
            "PIP_DISABLE_PIP_VERSION_CHECK": "true",
        } | {name: self.fill(value, given) for name, value in step.get("env", {}).items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", self.fill(step["run"], given)],
            env=environment, cwd=self.workspace, check=False, timeout=500, capture_output=True, text=True,
        )  # fmt: skip
        lines = [line.partition("=") for line in output.read_text().splitlines()]
        self.outputs[step.get("id", "")] = {name: value for name, _, value in lines}
        return done


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A machine with a copy of this repository as the action and an empty checkout of another repository.

    The packages that tokbench needs are those of this Python, since no package index can be reached.
    """
    home = tmp_path_factory.mktemp("runner")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "tokbench", home / "action" / "tokbench", ignore=ignore)
    shutil.copytree(ROOT / "datasets" / "samples", home / "action" / "datasets" / "samples")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, home / "action")
    for name in ("work", "temp"):
        (home / name).mkdir()
    venv.create(home / "python", with_pip=False, symlinks=True)
    (site,) = (home / "python").glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Runner(home)


@pytest.fixture(scope="module")
def installed(runner: Runner) -> Runner:
    """The machine after the first step, with an adapter `mine` and its result in the other repository."""
    done = runner.run(STEPS[0])
    assert done.returncode == 0, done.stderr
    shutil.copytree(ROOT / "adapters" / "toy", runner.workspace / "adapters" / "mine")
    measure = "python -m tokbench eval mine.p8 --data samples --limit 4 --metrics psnr,rate --out results --no-cache"
    done = runner.run({"run": measure})
    assert done.returncode == 0, done.stderr
    return runner


def test_every_input_is_used_and_has_a_default() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    for name, entry in ACTION["inputs"].items():
        assert f"inputs.{name} }}}}" in text or f"inputs.{name} !=" in text, name
        assert entry["description"] and isinstance(entry["default"], str), name
    assert {step.get("shell", "bash") for step in STEPS} == {"bash"}
    assert ACTION["outputs"]["junit"]["value"] == "${{ steps.check.outputs.junit }}"


@pytest.mark.slow
def test_the_steps_check_another_repository(installed: Runner) -> None:
    """The status is 0 for unchanged results and 1 for changed ones and missing numbers, unless inputs allow both;
    summary and JUnit report name them."""
    done = installed.run(CHECK)
    assert done.returncode == 0, done.stderr
    assert "tokbench check" in installed.summary and "| mine.p8" in installed.summary
    junit = Path(installed.fill(ACTION["outputs"]["junit"]["value"], {}))
    assert junit.parent == installed.home / "temp"
    assert ElementTree.parse(junit).getroot().get("failures") == "0"

    (path,) = installed.workspace.glob("results/mine.p8/*.json")
    text, values = path.read_text(), path.with_suffix(".npz").read_bytes()
    try:
        path.with_suffix(".npz").unlink()
        changed = re.sub(r'("psnr": \{[^}]*"value": )[\d.]+', r"\g<1>90.0", text)
        path.write_text(changed.replace('"metrics": {\n', '"metrics": {\n  "sharpness": {"value": 1.0},\n', 1))
        done = installed.run(CHECK, junit="report.xml", adapters="mine.p8", data="samples", device="cpu")
        assert done.returncode == 1
        assert "::error title=tokbench mine.p8::" in done.stdout
        assert "regression" in installed.summary
        assert installed.outputs["check"]["junit"] == "report.xml"
        root = ElementTree.parse(installed.workspace / "report.xml").getroot()
        failed = {case.get("name") for case in root.findall("testsuite/testcase") if case.find("failure") is not None}
        assert failed == {"psnr", "sharpness"}
        done = installed.run(CHECK, max_drop="psnr=99", fail_on_missing="false")
        assert done.returncode == 0 and "allowed drop" in done.stdout
    finally:
        path.write_text(text)
        path.with_suffix(".npz").write_bytes(values)


@pytest.mark.slow
def test_the_cached_folders_are_those_that_tokbench_uses(installed: Runner) -> None:
    folders, cache = STEPS[1], STEPS[2]
    done = installed.run(folders)
    assert done.returncode == 0, done.stderr
    assert cache["uses"].startswith("actions/cache@") and "weights-cache-key" in cache["if"]
    inputs = {"weights-cache-key": "v7", "against": "results"}
    paths = installed.fill(cache["with"]["path"], inputs).split()
    assert paths == [f"{installed.home}/.cache/tokbench", f"{installed.home}/.cache/torch/hub/checkpoints",
                     "~/.cache/huggingface/hub"]  # fmt: skip
    assert installed.fill(cache["with"]["key"], inputs) == "tokbench-v7-Linux-0"


def test_indexes_and_switches_reach_the_commands(tmp_path: Path) -> None:
    """A `python` that prints its arguments stands for pip and for tokbench."""
    other = Runner(tmp_path)
    for name in ("work", "temp", "python/bin"):
        (tmp_path / name).mkdir(parents=True)
    program = tmp_path / "python" / "bin" / "python"
    program.write_text('#!/bin/bash\necho "$PIP_EXTRA_INDEX_URL: $*"\n')
    program.chmod(0o755)
    plain = other.run(STEPS[0]).stdout
    assert plain == f": -m pip install --quiet --editable {tmp_path}/action\n"
    install = other.run(STEPS[0], torch_index_url="https://torch", extra_index_url="https://more", extras="hf").stdout
    assert install.splitlines() == [
        "https://more: -m pip install --quiet torch torchvision --index-url https://torch",
        f"https://more: -m pip install --quiet --editable {tmp_path}/action[hf]",
    ]
    switches = {"strict": "true", "allow_download": "true", "config": "a b.toml", "device": "cuda:1", "limit": "3"}
    called = other.run(CHECK, adapters="x y", **switches).stdout
    assert called.startswith(": -m tokbench check x y --against results --junit ")
    for option in ("--strict", "--allow-download", "--config a b.toml", "--device cuda:1", "--limit 3", "--github"):
        assert option in called
    assert "--allow-missing" not in called and "--max-drop" not in called
    for value, allowed in (("false", True), ("true", False), ("yes", False), ("", False)):
        assert ("--allow-missing" in other.run(CHECK, fail_on_missing=value).stdout) is allowed, value
