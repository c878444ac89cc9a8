"""The command line interface: parses options, calls the library and prints. Only commands that need torch import it."""

from __future__ import annotations

import io
import sys

import click

from tokbench._version import __version__
from tokbench.cli.audit import audit
from tokbench.cli.bd_rate import bd_rate
from tokbench.cli.cache import cache
from tokbench.cli.check import check
from tokbench.cli.compare import compare
from tokbench.cli.contract import contract
from tokbench.cli.evaluate import eval_
from tokbench.cli.import_tokbench import import_tokbench
from tokbench.cli.inspect import leaderboard, list_, show, weights
from tokbench.cli.options import Group, add_debug_option
from tokbench.cli.plan import plan
from tokbench.cli.prune import prune
from tokbench.cli.report import report, view
from tokbench.cli.sizes import sizes
from tokbench.cli.stats import stats
from tokbench.cli.train import train


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tokbench")
def main() -> None:
    """Benchmark and evaluation suite for visual tokenizers."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an unencodable character must not end the command
            stream.reconfigure(errors="replace")


_COMMANDS = (
    eval_, list_, show, leaderboard, weights, stats, compare, bd_rate, sizes, plan, check, contract, audit, train,
    prune, report, view, cache, import_tokbench,
)  # fmt: skip

for command in _COMMANDS:
    add_debug_option(command)
    main.add_command(command)
