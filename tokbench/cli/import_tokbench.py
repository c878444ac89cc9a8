"""`tokbench import-tokbench`: the table of result files that TokBench's own evaluator wrote."""

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
    help="Write every bin with its n and 95 % interval over images to this file.",
)
def import_tokbench(files: tuple[Path, ...], csv: Path | None) -> None:
    """Print the table of TokBench's result files (output/*.json of its repository), in the bins of both its releases.

    Words and faces are pooled over the files by method and setting. Words are scored again from their texts, and stored
    scores that differ are counted. The CSV says "reported" in every line. Kept as results/reported/NAME.csv, 'tokbench
    leaderboard' makes leaderboard/reported.md of it: a table of its own, and no number in a measured column.
    """
    import pandas as pd

    from tokbench.analysis import tokbench_import
    from tokbench.io.atomic import write_atomically

    found = tokbench_import.read(files)
    rows = tokbench_import.rows(found)
    if csv:
        lines = pd.DataFrame.from_records(tokbench_import.records(rows)).to_csv(index=False, lineterminator="\n")
        write_atomically(csv, lines.encode())
    click.echo(tokbench_import.markdown(found, rows), nl=False)
