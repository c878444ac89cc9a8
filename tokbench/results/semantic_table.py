"""The table of tokenizers whose tokens carry meaning: rate, quality, probes, retrieval, predictability and gFID.

Its rows are the `reconstruct` results with a probe, a retrieval or caption accuracy. gFID and FD-EfficientNet are
those of the priors that are named after the tokenizer: `gpt.hita_n80` generates tokens of `hita.n80`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tokbench.io.atomic import write_atomically
from tokbench.results.cells import sort_key
from tokbench.results.columns import column_of
from tokbench.results.leaderboard import groups
from tokbench.results.markdown import cell_text, legend, table
from tokbench.results.result import Result

MEANING = (
    "probe_linear", "probe_linear_pooled", "probe_knn", "probe_knn_pooled", "probe_knn_noisy", "image_to_caption_r1",
    "image_to_caption_r5", "caption_to_image_r1", "caption_to_image_r5", "zero_shot_top1", "caption_words",
    "caption_exact",
)  # fmt: skip
"""A row of the table has at least one of these numbers."""
OWN = ("bits_per_image", "psnr", "lpips", *MEANING, "gpt_bits_per_token", "gpt_bits_share")
OF_PRIORS = ("gfid_768", "fd_efficientnet")
NOTE = "gFID and FD-EfficientNet: the prior of that name, with its own guidance or without (cfg1)."

Key = tuple[str, str]
"""The JSON name of a number, and the prior that it belongs to; empty for a number of the tokenizer."""


def write(out: Path, found: Sequence[Result]) -> list[Path]:
    """Write `leaderboard/<data>-semantics.csv` and `.md` in a results folder, and return their paths.

    found: all results of the folder. No table is written for data without a row.
    """
    tables = groups(found)
    written = []
    for name, members in tables.items():
        data = name.removesuffix("-reconstruct")
        rows = [] if data == name else [result for result in members if not result.metrics.keys().isdisjoint(MEANING)]
        if not rows:
            continue
        rows.sort(key=sort_key)
        samples = [result for other, many in tables.items() if other.startswith(f"{data}-generate") for result in many]
        lines = [_line(result, samples) for result in rows]
        columns = sorted({key for line in lines for key in line}, key=_place)
        csv, md = (out / "leaderboard" / f"{data}-semantics.{form}" for form in ("csv", "md"))
        write_atomically(csv, _frame(rows, lines, columns).to_csv(index=False, lineterminator="\n").encode())
        body = [
            [result.row, *(cell_text(line.get(key), column_of(key[0])[1]) or "-" for key in columns)]
            for result, line in zip(rows, lines, strict=True)
        ]
        text = f"# {data}: tokens that carry meaning\n\n{legend(rows)} {NOTE}\n\n"
        write_atomically(md, (text + table(["adapter", *map(_title, columns)], body)).encode())
        written += [csv, md]
    return written


def _line(result: Result, samples: Sequence[Result]) -> dict[Key, dict[str, Any]]:
    """Return the cells of a row by column; samples: the results of generators on the same data."""
    line = {(field, ""): result.metrics[field] for field in OWN if field in result.metrics}
    ending = "." + result.adapter.replace(".", "_")
    for other in samples:
        prior = other.adapter.removesuffix(ending)
        if prior == other.adapter or other.provenance["adapter"].get("tokenizer") != result.adapter:
            continue
        label = f"{prior}{other.task.removeprefix('generate').replace('-', ' ')}"
        line |= {(field, label): other.metrics[field] for field in OF_PRIORS if field in other.metrics}
    return line


def _place(key: Key) -> tuple[int, str]:
    return (*OWN, *OF_PRIORS).index(key[0]), key[1]


def _title(key: Key) -> str:
    field, prior = key
    column = column_of(field)[1]
    return f"{column.title}{f' ({prior})' if prior else ''}{column.arrow}"


def _frame(rows: Sequence[Result], lines: Sequence[dict[Key, dict[str, Any]]], columns: Sequence[Key]) -> pd.DataFrame:
    records = []
    for result, line in zip(rows, lines, strict=True):
        record: dict[str, Any] = {"adapter": result.adapter, "num_images": result.num_images}
        for field, prior in columns:
            name, entry = field + (f"[{prior}]" if prior else ""), line.get((field, prior), {})
            record[name] = entry.get("value")
            if any(other.get((field, prior), {}).get("low") is not None for other in lines):
                record |= {f"{name}_low": entry.get("low"), f"{name}_high": entry.get("high")}
        records.append(record)
    return pd.DataFrame.from_records(records)
