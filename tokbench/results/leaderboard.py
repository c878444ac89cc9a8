"""Writes the leaderboards of a results folder: sorted CSV and Markdown files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tokbench.errors import NoResults
from tokbench.io.atomic import write_atomically
from tokbench.metric_names import PRUNING_PREFIX as PRUNED
from tokbench.results.cells import cells, sort_key
from tokbench.results.floors import Floors
from tokbench.results.markdown import legend, markdown
from tokbench.results.result import Result, load
from tokbench.results.taxonomy import taxonomy_columns
from tokbench.results.tidy import TIDY, identity, tidy
from tokbench.stats.bootstrap import round_significant


def read_all(out: Path) -> list[Result]:
    """Return all results of a results folder without those of failed adapters, sorted by path.

    Raises ResultError if a file is invalid, and NoResults if there are none.
    """
    files = (path for path in out.glob("*/*.json") if path.parent.name != "leaderboard")
    paths = sorted(path for path in files if not path.name.startswith(PRUNED))
    if not paths:
        raise NoResults(f"{out} contains no results; run 'tokbench eval ... --out {out}' first")
    return [result for result in map(load, paths) if result.error is None]


def groups(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results of each table by its name. They have one dataset, size, N, protocol and task;
    the variants of a decoder are rows of one table.

    If results with one name have different pixels or protocols, each combination has its own table.
    """
    by_name: dict[str, dict[tuple[str, str], list[Result]]] = {}
    for result in results:
        hashes = result.provenance["data"]["sha256"], result.provenance["protocol"]["sha256"]
        by_name.setdefault(result.table, {}).setdefault(hashes, []).append(result)
    tables = {}
    for name, sets in by_name.items():
        for (data, protocol), members in sets.items():
            tables[name if len(sets) == 1 else f"{name}.{data[:8]}.{protocol[:8]}"] = members
    return dict(sorted(tables.items()))


def frame(results: Sequence[Result], floors: Floors | None = None) -> pd.DataFrame:
    """Return the table of a CSV file: one row per result, sorted by bits per pixel.

    The columns are the JSON names of the metrics, and `<name>_low` and `<name>_high` for the ends of intervals. The
    columns `floor`, `psnr_minus_floor` and `lpips_minus_floor` exist if at least one row has a floor, those
    of the taxonomy if rows differ in them. The last columns are those of `identity`. floors: the floors of the rows;
    None for those among the results.
    """
    floors = Floors(results) if floors is None else floors
    results = sorted(results, key=sort_key)
    columns, rows = cells(results)
    distances = [floors.distance(result) for result in results]
    taxonomy = taxonomy_columns(results)
    records = []
    for place, (result, row, distance) in enumerate(zip(results, rows, distances, strict=True)):
        record: dict[str, Any] = {
            "adapter": result.adapter,
            "kind": result.provenance["adapter"]["kind"],
            "num_images": result.num_images,
        }
        for label, column in columns:
            entry = row.get((label, column.field), {})
            name = f"{column.field}[{label}]" if label else column.field
            record[name] = entry.get("value")
            if any(other.get((label, column.field), {}).get("low") is not None for other in rows):
                record[f"{name}_low"], record[f"{name}_high"] = entry.get("low"), entry.get("high")
        if any(distances):
            record["floor"] = distance and distance.floor
            record["psnr_minus_floor"] = distance and round_significant(distance.psnr)
            record["lpips_minus_floor"] = (
                None if distance is None or distance.lpips is None else round_significant(distance.lpips)
            )
        if any(other.warnings for other in results):
            record["warnings"] = "; ".join(warning.text for warning in result.warnings)
        record |= {name: entries[place] or None for name, entries in taxonomy.items()}
        records.append(record | identity(result))
    return pd.DataFrame.from_records(records)


def write(out: Path, found: Sequence[Result] | None = None) -> list[Path]:
    """Write `leaderboard/*.csv` and `*.md` in a results folder, and `all.csv`, the table of `tidy`; return their paths.

    found: all results of the folder; None to read them.
    """
    folder = out / "leaderboard"
    found = read_all(out) if found is None else found
    tables, floors = groups(found), Floors(found)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, results in tables.items():
        csv, md = folder / f"{name}.csv", folder / f"{name}.md"
        write_atomically(csv, frame(results, floors).to_csv(index=False, lineterminator="\n").encode())
        write_atomically(md, f"# {name}\n\n{legend(results)}\n\n{markdown(results, floors=floors)}".encode())
        written += [csv, md]
    everything = folder / TIDY
    write_atomically(everything, tidy(found).to_csv(index=False, lineterminator="\n").encode())
    return [*written, everything]


def delete_stale(out: Path, written: Iterable[Path]) -> None:
    """Delete the tables in `leaderboard/` that are not among those just `written`; called after all are written."""
    folder = out / "leaderboard"
    for stale in {*folder.glob("*-*.csv"), *folder.glob("*-*.md")} - set(written):
        stale.unlink()


def to_json(facts: Sequence[dict[str, Any]]) -> str:
    """Return the JSON objects of several results as a JSON list."""
    return json.dumps(facts, indent=1, allow_nan=False)
