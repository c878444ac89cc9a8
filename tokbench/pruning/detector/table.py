"""Tables of results on detectors."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tokbench.io.counts import count_of
from tokbench.pruning.claims import JUDGED, claims_table
from tokbench.pruning.detector.average_precision import NUMBERS
from tokbench.pruning.detector.result import DetectorRow
from tokbench.pruning.result import Estimate, PruningResult
from tokbench.pruning.table import (
    NONE,
    batches_of,
    estimate_fields,
    faster,
    gap_text,
    rows,
    speedup_fields,
    undertrained,
)
from tokbench.results.markdown import table


def markdown(found: Sequence[PruningResult]) -> str:
    """Return a Markdown table of all rows, and one of the verdicts on the papers' claims."""
    sizes = batches_of(found)
    head = [
        "method",
        "keep",
        "AP50 %",
        "less the full one's",
        "AP %",
        "less the full one's",
        "tokens",
        "GFLOPs",
        "x fewer",
    ]
    for size in sizes:
        head += [f"x faster, batch {size}", f"ms, batch {size}"]
    body = []
    for one, keep, row in rows(found):
        short = " (short)" if undertrained(one, row) else ""
        body.append([f"{row.title}{short}", "-" if keep is None else f"{keep:g}", *_cells(row, sizes)])
    return f"\n{table(head, body)}{claims_table(found)}"


def mean_tokens(row: DetectorRow) -> float:
    """Return the number of tokens that a layer updates, the mean over the layers."""
    return sum(row.tokens) / len(row.tokens)


def _cells(row: DetectorRow, sizes: Sequence[int]) -> list[str]:
    cells = [
        _percent(row.ap50), gap_text(row.ap50_gap.value, row.ap50_gap.low, row.ap50_gap.high),
        _percent(row.ap), gap_text(row.ap_gap.value, row.ap_gap.low, row.ap_gap.high),
        f"{mean_tokens(row):,.0f}", f"{row.gflops:.3f}", f"{row.whole_gflops / row.gflops:.2f}",
    ]  # fmt: skip
    for size in sizes:
        timing = row.timing(size)
        cells += ["-", "-"] if timing is None else [faster(timing.speedup), f"{timing.speedup.ms:.2f}"]
    return cells


def _percent(estimate: Estimate) -> str:
    text = f"{100 * estimate.value:.1f}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def legend(found: Sequence[PruningResult]) -> str:
    """Return the conditions of the measurements and an explanation of the columns, as Markdown."""
    about = found[0].about
    provenance, whole = about["provenance"], about["whole"]
    first: DetectorRow = next(iter(found[0].rows.values()))
    processor = f" {provenance['processor']}" if provenance["processor"] else ""
    text = (
        f"`{about['model']}` on {count_of(about['num_images'], 'image')} of {about['dataset']}, "
        f"{provenance['data']['side']} px; {provenance['device']}{processor}, float32. Intervals are 95 %, from a "
        "jackknife of groups of images; those of differences are paired by image.\n\n"
        f"The full detector updates all tokens in all layers: AP50 {100 * whole['ap50']:.1f} %, AP "
        f"{100 * whole['ap']:.1f} % (mean over overlaps of 0.5 to 0.95), {first.whole_gflops:.3f} GFLOPs "
        f"({provenance['formula']}).\n\n"
        "`keep`: the share of tokens that the first layer of the encoder updates; later layers update 0.8, 0.6 and 0.4 "
        "of it. `tokens`: those that a layer updates, mean over the layers. Rows named by a detector have its own "
        "weights, and the selection and keep of its training.\n"
    )
    if batches_of(found):
        text += (
            f'\nTimes of the whole detector, in turns with the full one. "{NONE}" where the interval contains 1 or the '
            "full one against itself is off by 3 %.\n"
        )
    if about["short"]:
        text += (
            f"\n**Not judged**: the full detector has an AP50 of less than {100 * JUDGED:.0f} %, so that the precision "
            "of a row says nothing about its method.\n"
        )
    elif any(undertrained(one, row) for one in found for row in one.rows.values()):
        text += "\n(short): trained on a CPU for minutes, so that its precision says nothing about the method.\n"
    return text


def frame(found: Sequence[PruningResult]) -> pd.DataFrame:
    """Return all measurements, one row per method and keep."""
    records = []
    for one, keep, row in rows(found):
        about = one.about
        record = {
            "method": about["method"], "keep": keep, "training": about["training"],
            "training_seconds": row.training_seconds, "training_images": row.training_images,
            "model": about["model"], "dataset": about["dataset"], "num_images": about["num_images"],
            "gflops": row.gflops, "gflops_whole": row.whole_gflops, "tokens": mean_tokens(row),
        }  # fmt: skip
        for number in NUMBERS:
            record |= {f"{number}_whole": about["whole"][number]} | estimate_fields(number, getattr(row, number))
            record |= estimate_fields(f"{number}_gap", getattr(row, f"{number}_gap"))
        for timing in row.pace:
            size = f"b{timing.batch}"
            record |= speedup_fields(size, timing.speedup)
            record |= {f"peak_mib_{size}": timing.peak_mib, f"whole_peak_mib_{size}": timing.whole_peak_mib}
        records.append(record)
    return pd.DataFrame.from_records(records)
