"""Runs one tokbench command in a process of its own; `started` of conftest.py calls it with what is `given`."""

import os
import sys

given = globals()["given"]
os.environ.clear()
os.environ.update(given["environment"])
for number, path in enumerate(given["printed"], 1):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
sys.argv[:] = ["tokbench", *given["arguments"]]

from tokbench.cli import main  # noqa: E402

main(prog_name="tokbench")
