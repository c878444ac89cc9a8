"""The runs of the tests themselves: a test that kills its process fails alone, and the run ends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from checkout import ROOT

TESTS = """
import os
import pytest

@pytest.mark.parametrize("number", range(40))
def test_many(number):
    if number == 25:
        os._exit(11)
"""


def test_a_dead_process_fails_one_test_and_the_run_ends(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "scheduling.py", tmp_path)
    (tmp_path / "conftest.py").write_text("from scheduling import pytest_xdist_make_scheduler\n")
    (tmp_path / "test_many.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "1 failed, 39 passed" in done.stdout
    assert "crashed while running 'test_many.py::test_many[25]'" in done.stdout
