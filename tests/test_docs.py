"""What docs/ and action.yml say is true: their commands run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tokbench.protocol import protocols

ROOT = Path(__file__).resolve().parent.parent


def test_the_small_example_of_the_check_runs(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    printed = ""
    for line in block.splitlines():
        done = cli(*shlex.split(line)[1:])
        assert done.exit_code == 0, (line, done.stderr)
        printed = done.stdout
    assert re.search(r"prints `(.*?)`", text)[1] in printed


def test_the_action_checks_a_repository(tmp_path: Path, cli) -> None:
    """Its last step, run as GitHub would with bash: 0 for facts that hold, 1 for spoiled ones."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    assert action["runs"]["using"] == "composite"
    install, step = action["runs"]["steps"]
    assert "--editable" in install["run"]
    given = {key: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", r"\1", value) for key, value in step["env"].items()}
    assert set(given.values()) <= set(action["inputs"])

    facts = tmp_path / "facts"
    command = ("eval", "resize.2", "--data", "samples", "--limit", 4, "--metrics", "psnr", "--out", facts)
    assert cli(*command).exit_code == 0

    def run() -> int:
        values = {key: str(action["inputs"][name]["default"]) for key, name in given.items()}
        values |= {"AGAINST": str(facts), "DATA": "samples", "ADAPTERS": "resize.2"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **values, "PATH": path, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
        return subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step["run"]], env=environment, cwd=tmp_path, check=False, timeout=300
        ).returncode

    assert run() == 0
    (path,) = facts.glob("resize.2/*.json")
    path.with_suffix(".npz").unlink()
    path.write_text(re.sub(r'("psnr": \{[^}]*"value": )[\d.]+', r"\g<1>90.0", path.read_text()))
    assert run() == 1


def test_every_protocol_has_its_line() -> None:
    text = (ROOT / "docs" / "protocols.md").read_text(encoding="utf-8")
    for name in protocols():
        assert f"`{name}`" in text, name


@pytest.mark.parametrize("file", sorted((ROOT / "docs").glob("*.md")), ids=lambda file: file.name)
def test_links_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text(encoding="utf-8")):
        assert (file.parent / target).exists(), target
