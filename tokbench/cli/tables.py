"""Tables of results on stdout: fitted to the terminal, as Markdown, or as CSV."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import click

from tokbench.metric_names import Section

if TYPE_CHECKING:
    from rich.console import Console

    from tokbench.results.floors import Floors
    from tokbench.results.markdown import Grid
    from tokbench.results.result import Result

Form = Literal["table", "markdown", "csv"]

format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "markdown", "csv"]),
    help="Format of printed tables [default: table, fitted to the width of the terminal; markdown if stdout is none].",
)

_GAP = 2
"""Spaces between two columns on a terminal."""
_DEFAULT_WIDTH = 100
"""Characters per line if neither the terminal nor COLUMNS states a width."""

_SECTIONS = {
    Section.RATE: "Rate",
    Section.PAIRED: "Reconstruction",
    Section.DECODER: "Decoder",
    Section.SAMPLES: "Samples",
    Section.PERTURBED: "Perturbed tokens",
    Section.ANNOTATED: "Text and faces",
    Section.CODES: "Codes",
    Section.SIZE: "Size of the model",
    Section.COST: "Cost",
    Section.SPEED: "Speed",
    Section.ADDED: "Metrics of other packages",
}


class TablePrinter:
    """Prints tables of results to stdout in one format, separated by blank lines; CSV is printed as one table.

    form: the format; None for the default of a terminal or a pipe. floors: the floors of the rows; None for those among
    the rows of each table.
    """

    def __init__(self, form: Form | None, floors: Floors | None = None) -> None:
        self.form: Form = form or ("table" if sys.stdout.isatty() else "markdown")
        self._floors = floors
        self._printed: list[Sequence[Result]] = []

    def add(self, title: str, results: Sequence[Result]) -> None:
        """Print the table of results that share a dataset and a task. CSV is printed by `finish`."""
        from tokbench.results.markdown import grid, legend, markdown

        if self._printed and self.form != "csv":
            click.echo()
        self._printed.append(results)
        if self.form == "markdown":
            click.echo(f"{title}: {legend(results)}\n\n{markdown(results, floors=self._floors)}", nl=False)
        elif self.form == "table":
            console = make_console()
            _print_text(console, f"{title}: {legend(results)}\n")
            print_grid(console, grid(results, floors=self._floors))

    def finish(self) -> None:
        """Print the rows of all tables as one CSV table whose columns identify dataset, size, protocol and task."""
        if self.form == "csv" and self._printed:
            from tokbench.results.leaderboard import frame

            # One frame for all rows, so that numbers of different networks or devices have columns of their own.
            rows = frame([result for results in self._printed for result in results], self._floors)
            rows = rows.sort_values(["data", "task", "width", "height", "protocol", "pixels_sha256"], kind="stable")
            click.echo(rows.to_csv(index=False, lineterminator="\n"), nl=False)


def print_grid(console: Console, grid: Grid) -> None:
    """Print a table on a terminal: one row as a list with sections, several rows in blocks that fit the width."""
    from tokbench.results.floors import FLOOR_NOTE

    if len(grid.body) == 1:
        _print_list(console, grid)
    else:
        for block in blocks(grid.head, grid.body, console.width):
            _print_block(console, [grid.head[i] for i in block], [[line[i] for i in block] for line in grid.body])
            console.print()
    if grid.distances:
        _print_text(console, FLOOR_NOTE)
    by_text: dict[str, list[str]] = {}
    for adapter, text in grid.warnings:
        by_text.setdefault(text, []).append(adapter)
    for text, adapters in by_text.items():
        _print_text(console, f"warning {', '.join(adapters)}: {text}")


def blocks(head: Sequence[str], body: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Return the positions of the columns of each block; every block begins with the first column.

    A block is at most `width` characters wide, unless the first column and one other column are wider together.
    """
    from rich.cells import cell_len

    widths = [max(cell_len(line[i]) for line in [head, *body]) for i in range(len(head))]
    found: list[list[int]] = []
    used = width
    for column, own in enumerate(widths[1:], 1):
        if not found or used + _GAP + own > width:
            found.append([0])
            used = widths[0]
        found[-1].append(column)
        used += _GAP + own
    return found or [[0]]


def print_lines(head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    """Print a table of texts to stdout with columns aligned to the left, one line per row."""
    from rich.cells import cell_len

    widths = [max(cell_len(line[i]) for line in [head, *body]) for i in range(len(head))]
    for line in [head, *body]:
        cells = [text + " " * (width - cell_len(text)) for text, width in zip(line, widths, strict=True)]
        click.echo((" " * _GAP).join(cells).rstrip())


def make_console() -> Console:
    """Return a console for stdout that has the terminal's width, or COLUMNS, or a default width in a pipe."""
    from rich.console import Console

    width = shutil.get_terminal_size((_DEFAULT_WIDTH, 24)).columns
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


def _print_text(console: Console, text: str) -> None:
    from rich.text import Text

    console.print(Text(text))


def _print_block(console: Console, head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), collapse_padding=True)
    for i, title in enumerate(head):
        # Only the names of adapters are folded, so that no number is ever cut.
        table.add_column(
            Text(title), justify="right" if i else "left", no_wrap=bool(i), overflow="fold", header_style="bold"
        )
    for line in body:
        table.add_row(*map(Text, line))
    console.print(table)


def _print_list(console: Console, grid: Grid) -> None:
    from rich.text import Text

    (line,) = grid.body
    names = [f"    {title}" for title in grid.head[1:]]
    width = max(map(len, names), default=0)
    console.print(Text(line[0], style="bold"))
    section = None
    for name, value, own in zip(names, line[1:], grid.sections, strict=True):
        if own != section:
            console.print(Text(f"  {_SECTIONS[own]}", style="bold"))
            section = own
        console.print(Text(f"{name.ljust(width)}  {value}"))
    console.print()
