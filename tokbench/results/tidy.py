"""The numbers of all results as one long table, one row per number, and the columns that identify a result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tokbench.results.columns import column_of
from tokbench.results.result import Result, settings

if TYPE_CHECKING:
    import pandas as pd

TIDY = "all.csv"
"""The name of the file in `leaderboard/`."""

_DIGITS = 8
"""Hexadecimal digits of a hash in CSV files."""
_DIRECTION = {True: "higher", False: "lower", None: ""}


def identity(result: Result) -> dict[str, Any]:
    """Return the columns that say of which data, protocol and weights the numbers of a result are.

    Hashes have their first 8 digits, as in other tables. `weights_sha256` is None for adapters without parameters,
    `reference_sha256` if distributions were not compared with a statistics file.
    """
    provenance = result.provenance
    data, protocol = provenance["data"], provenance["protocol"]
    weights = provenance["adapter"].get("parameters_sha256")
    reference = provenance.get("reference")
    # Tables in which nothing is degraded have none of these columns.
    degraded = {"degrade": protocol["degrade"]} if protocol.get("degrade") else {}
    degraded |= {"restore": provenance["restore"]["name"]} if "restore" in provenance else {}
    return {
        "data": result.dataset,
        "task": result.task,
        "width": data["width"],
        "height": data["height"],
        "protocol": protocol["name"],
        "protocol_sha256": protocol["sha256"][:_DIGITS],
        "pixels_sha256": data["sha256"][:_DIGITS],
        "reference_sha256": reference["sha256"][:_DIGITS] if reference else None,
        "weights_sha256": weights[:_DIGITS] if weights else None,
        "device": provenance["device"],
    } | degraded


def tidy(results: Iterable[Result]) -> pd.DataFrame:
    """Return a table with one row per number: adapter, kind, metric, value, low, high, n, unit, direction, settings,
    num_images, and the columns of `identity`.

    direction: "higher" or "lower" is better, "" if neither is. settings: the network, weights or device that the number
    was computed with, separated by semicolons. Rows are sorted by adapter, data, task, size, protocol and
    metric. A table of adapters and metrics is `frame.query("data == ... and task == ...").pivot_table(values="value",
    index="adapter", columns="metric")`.
    """
    import pandas as pd

    rows = []
    for result in sorted(results, key=lambda one: (one.adapter, one.group, one.provenance["protocol"]["sha256"])):
        about = identity(result)
        for name, entry in sorted(result.metrics.items(), key=lambda item: (column_of(item[0])[0], item[0])):
            _, column = column_of(name)
            chosen = settings(result, name).items()
            rows.append(
                {
                    "adapter": result.adapter,
                    "kind": result.provenance["adapter"]["kind"],
                    "metric": name,
                    "value": entry["value"],
                    "low": entry.get("low"),
                    "high": entry.get("high"),
                    "n": entry.get("n", result.num_images),
                    "unit": column.unit,
                    "direction": _DIRECTION[column.more],
                    "settings": "; ".join(
                        f"{key} {text[:_DIGITS] if len(text) == 64 else text}" for key, text in chosen
                    ),
                    "num_images": result.num_images,
                }
                | about
            )
    return pd.DataFrame.from_records(rows)
