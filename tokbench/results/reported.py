"""Values that others reported. They are in a separate table beside the leaderboards, never in a measured column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tokbench.errors import ResultError
from tokbench.results.columns import SCORES
from tokbench.results.markdown import table

COLUMNS = ("status", "method", "setting", "sets", "release", "score", "bin", "n", "value", "low", "high")
"""The required columns of a file in `reported/`, as written by `tokbench import-tokbench --csv`."""

_TITLES = {column.field: f"{column.title}{column.arrow}" for column in SCORES}


def write(out: Path) -> list[Path]:
    """Write `leaderboard/reported.md` from the CSV files in `reported/` of a results folder; delete it without any.

    Raises ResultError that names the file if one is not a table of reported values.
    """
    target = out / "leaderboard" / "reported.md"
    paths = sorted((out / "reported").glob("*.csv"))
    if not paths:
        target.unlink(missing_ok=True)
        return []
    text = (
        "# Reported, not measured here\n\nWhat TokBench's own evaluator read, in %. ± is half of the 95 % interval.\n"
    )
    for path in paths:
        text += f"\nFrom `{path.name}`:\n" + "".join(_tables(_read(path)))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8", newline="\n")
    return [target]


def _read(path: Path) -> pd.DataFrame:
    try:
        lines = pd.read_csv(path, keep_default_na=False, na_values={"value": [""], "low": [""], "high": [""]})
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} is not readable as CSV ({str(error)[:120]}); import it again") from error
    missing = [name for name in COLUMNS if name not in lines]
    numbers = all(pd.api.types.is_numeric_dtype(lines[name]) for name in ("value", "low", "high") if name in lines)
    if missing or not numbers or set(lines["status"]) != {"reported"}:
        raise ResultError(f"{path} is not a table of reported values; create it with: tokbench import-tokbench --csv")
    return lines.astype(dict.fromkeys(("method", "setting", "sets", "release", "score", "bin"), str))


def _tables(lines: pd.DataFrame) -> list[str]:
    """Return one table per kind, setting and release, with one row per method and one column per score and bin."""
    tables = []
    faces = lines["score"].str.startswith("f_").map({True: "faces", False: "words"})
    for (kind, setting, release), part in lines.groupby([faces, "setting", "release"], sort=False):
        scores: Sequence[tuple[str, str]] = list(dict.fromkeys(zip(part["score"], part["bin"], strict=True)))
        head = ["method", "sets", *(f"{_TITLES.get(score, score)} {bin}" for score, bin in scores)]
        body = []
        for (method, sets), own in part.groupby(["method", "sets"], sort=True):
            values = {(line["score"], line["bin"]): line for line in own.to_dict("records")}
            body.append([method, str(len(sets.split())), *(_cell(values.get(key)) for key in scores)])
        tables.append(f"\n## {kind.capitalize()} at {setting} (bins of {release})\n\n{table(head, body)}")
    return tables


def _cell(line: dict[str, Any] | None) -> str:
    if line is None or pd.isna(line["value"]):
        return "-"
    low, high = line["low"], line["high"]
    spread = "" if pd.isna(low) or pd.isna(high) or high == low else f" ± {50 * (high - low):.2f}"
    return f"{100 * line['value']:.2f}{spread}"
