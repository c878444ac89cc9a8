"""The per-image values that the page compares rows with: a script file per row, which the page loads on demand.

A page opened as a file may not read other files, but it may load scripts. Each script passes the numbers and settings
of one result and its arrays (`.npz`, in base64) to the page. Files therefore have 4/3 of the size of the stored arrays,
and the main page does not grow.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.analysis.compare import SEED
from tokbench.io.atomic import write_atomically
from tokbench.metric_names import FOUND, ITEMS, MetricName
from tokbench.paths import slug
from tokbench.report.page_table import PageTable
from tokbench.results import leaderboard
from tokbench.results.columns import column_of, columns
from tokbench.results.result import EFFECT, Result
from tokbench.results.schema import SCHEMA_VERSION
from tokbench.stats import bootstrap
from tokbench.stats.naming import INFINITY
from tokbench.stats.sample_size import power_factor

FOLDER = "values"
"""The folder of the files, beside the main page."""


def write(tables: Sequence[PageTable], results: Sequence[Result], out: Path) -> list[PageTable]:
    """Write the values of all rows to `out`/values, delete other files there, and return the tables with their paths.

    Tables that are not made of `results`, such as those of token reduction, are returned unchanged.
    """
    groups, found, written = leaderboard.groups(results), [], set()
    for table in tables:
        members, rows = {result.row: result for result in groups.get(table.name, ())}, []
        for place, row in enumerate(table.rows):
            if (result := members.get(row.adapter)) is not None:
                path = out / FOLDER / slug(table.name) / f"{place}-{slug(row.adapter)}.js"
                write_atomically(path, _script(table.name, result).encode())
                written.add(path)
                row = replace(row, file=path.relative_to(out).as_posix())
            rows.append(row)
        found.append(replace(table, rows=rows))
    for stale in set((out / FOLDER).glob("*/*.js")) - written:
        stale.unlink()
    return found


def _script(table: str, result: Result) -> str:
    """Return the script of one row. Its object has some of the fields of a result's JSON file."""
    facts = {
        "adapter": result.adapter,
        "num_images": result.num_images,
        "metrics": result.metrics,
        "provenance": {"metrics": result.provenance["metrics"]},
    }
    buffer = io.BytesIO()
    if arrays := result.arrays():
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    words = (json.dumps(part, separators=(",", ":"), allow_nan=False) for part in (table, result.row, facts))
    return f"tokbenchValues({','.join(words)},{json.dumps(base64.b64encode(buffer.getvalue()).decode())});\n"


def rules(results: Sequence[Result]) -> dict[str, Any]:
    """Return what the script needs to read results and to compare them as `tokbench.analysis.compare` does.

    columns: `[field, title, digits, more, form]` in order, of all known columns and those of the results. form: "cell"
    or "version" if the number is a detail where its name has a part, "curve" if it always is, "" otherwise. items: noun
    and unit of the items by modality. state, increment: those of the PCG64 generator, as hexadecimal numbers, from
    which the resamples are drawn.
    """
    known = [column.field for column in columns()]
    bases = {MetricName.parse(number).base for result in results for number in result.metrics}
    listed = [*known, *sorted(bases - set(known))]
    pcg64 = np.random.default_rng(SEED).bit_generator.state["state"]
    return {
        "schema": SCHEMA_VERSION,
        "columns": [_column(field) for field in listed],
        "infinity": INFINITY,
        "items": {modality: [items.noun, items.unit] for modality, items in ITEMS.items()},
        "found": [FOUND, EFFECT],
        "derived": {name: how.values for name, how in bootstrap.DERIVED.items()},
        "state": f"{pcg64['state']:x}",
        "increment": f"{pcg64['inc']:x}",
        "resamples": bootstrap.RESAMPLES,
        "min_bootstrap_images": bootstrap.MIN_BOOTSTRAP_IMAGES,
        "power_factor": power_factor(),
        "min_positive_values": bootstrap.MIN_POSITIVE_VALUES,
    }


def _column(field: str) -> list[Any]:
    name, (_, column) = MetricName.parse(field), column_of(field)
    form = "cell" if name.naming is not None else "curve" if name.span == "curve" else "version" if name.version else ""
    return [field, column.title, column.digits, column.more, form]
