"""`tokbench import-tokbench`: tabulates result files written by TokBench's own evaluator."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("import-tokbench")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.json...",
)
@click.option(
    "--csv",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write every bin, with its count and 95 % interval over images, to this file.",
)
def import_tokbench(files: tuple[Path, ...], csv: Path | None) -> None:
    """Tabulate the result files of TokBench's evaluator (output/*.json in its repository).

    Words and faces are pooled over the files by method and setting, in the bins of both TokBench releases. Words are
    scored again from their texts; stored scores that differ are counted. Every line of the CSV has the status
    "reported". Save it as results/reported/NAME.csv, and 'tokbench leaderboard' shows it in leaderboard/reported.md,
    separate from measured results.
    """
    import pandas as pd

    from tokbench.analysis import tokbench_import
    from tokbench.io.atomic import write_atomically

    pooled = tokbench_import.read(files)
    rows = tokbench_import.rows(pooled)
    if csv:
        lines = pd.DataFrame.from_records(tokbench_import.records(rows)).to_csv(index=False, lineterminator="\n")
        write_atomically(csv, lines.encode())
    click.echo(tokbench_import.markdown(pooled, rows), nl=False)
