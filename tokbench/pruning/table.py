"""Tables of pruning results, one per network, dataset and device, because speeds compare only within these."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pandas as pd

from tokbench.paths import slug
from tokbench.pruning.kind_names import CLASSIFIER
from tokbench.pruning.number_style import SHARE
from tokbench.pruning.result import (
    STEADY,
    BatchTiming,
    Estimate,
    NetworkRow,
    PruningResult,
    SelectorTiming,
    Speedup,
    TimedRow,
    keep_of_row,
)

NONE = "none measured"


def groups(found: Sequence[PruningResult]) -> dict[str, list[PruningResult]]:
    """Return the results by the name of their table; a table has one device, network, weights, images and kernel.

    A table is named by its device. If a device has several tables, their names also contain network and dataset, and a
    hash if these are equal, too. Tables of other models than classifiers also have the kind in their names.
    """
    sets: dict[str, list[PruningResult]] = {}
    for one in found:
        provenance = one.about["provenance"]
        alike = [one.about["model"], one.group, one.about["num_images"]]
        alike += [provenance[key] for key in ("data", "weights", "processor")]
        alike.append(provenance.get("versions", {}).get("torch"))
        alike += [provenance["labels"]["sha256"]] if "labels" in provenance else []  # older results do not record it
        sets.setdefault(json.dumps(alike, sort_keys=True), []).append(one)
    devices = [slug(members[0].about["provenance"]["device"]) for members in sets.values()]
    longer = [f"{slug(members[0].about['model'])}.{members[0].group}" for members in sets.values()]
    tables = {}
    for (same, members), device, long in zip(sets.items(), devices, longer, strict=True):
        digest = f".{hashlib.sha256(same.encode()).hexdigest()[:8]}" if longer.count(long) > 1 else ""
        kind = "" if members[0].kind == CLASSIFIER else f"{members[0].kind}-"
        tables[f"pruning-{kind}{device if devices.count(device) == 1 else f'{long}{digest}'}"] = members
    return dict(sorted(tables.items()))


def rows(found: Sequence[PruningResult]) -> list[tuple[PruningResult, float | None, Any]]:
    """Return every row with its result and keep: untrained methods first, then by method and decreasing keep."""
    listed = []
    for one in sorted(found, key=lambda one: (one.about["training"] != "none", one.about["method"])):
        listed += [(one, keep_of_row(key), one.rows[key]) for key in sorted(one.rows, key=row_order)]
    return listed


def batches_of(found: Sequence[PruningResult]) -> list[int]:
    """Return the batch sizes of the timings in a table, sorted."""
    return sorted({timing.batch for row in rows_of(found) for timing in row.timings})


def rows_of(found: Sequence[PruningResult]) -> Iterator[Any]:
    """Yield all rows of a table."""
    return (row for one in found for row in one.rows.values())


def row_order(key: str) -> float:
    """Return the sort key of a row's key: rows without a keep come first, then those with the largest keep."""
    return -(keep_of_row(key) or 2)


def shared(found: Sequence[PruningResult]) -> dict[str, str]:
    """Return a title that contains the method's name for each method whose title is not unique, such as EViT's."""
    titles = [one.about["title"] for one in found]
    return {
        one.about["method"]: f"{title} ({one.about['method']})"
        for one, title in zip(found, titles, strict=True)
        if titles.count(title) > 1
    }


_ENDS = {"": "value", "_low": "low", "_high": "high"}


def estimate_fields(name: str, estimate: Estimate | Speedup) -> dict[str, float | None]:
    """Return a value and the ends of its interval as fields of a CSV file: `<name>`, `<name>_low`, `<name>_high`."""
    return {f"{name}{end}": getattr(estimate, key) for end, key in _ENDS.items()}


def speedup_fields(suffix: str, speedup: Speedup) -> dict[str, float | bool | None]:
    """Return a speed-up as fields of a CSV file, named `speedup_<suffix>` and so on."""
    return estimate_fields(f"speedup_{suffix}", speedup) | {
        f"control_{suffix}": speedup.control, f"measured_{suffix}": speedup.measured, f"ms_{suffix}": speedup.ms,
        f"whole_ms_{suffix}": speedup.whole_ms,
    }  # fmt: skip


def faster(speedup: Speedup) -> str:
    """Return a speed-up with its interval as text, or that none was measured."""
    if not speedup.measured:
        return NONE
    return f"{speedup.value:.2f} [{speedup.low:.2f}, {speedup.high:.2f}]"


def gap_text(gap: Estimate) -> str:
    """Return a difference of two shares and its interval as text, in %."""
    return SHARE.gap(gap.value, gap.low, gap.high)


def with_speeds(text: str, row: TimedRow) -> str:
    """Return text about a row with its speed-ups by batch size."""
    return ", ".join([text, *(f"batch {timing.batch}: {faster(timing.speedup)}" for timing in row.timings)])


def time_head(batches: Sequence[int], selecting: str = "") -> list[str]:
    """Return the titles of the columns of `time_cells`. selecting: that of the share of choosing tokens, if shown."""
    titles = ["x faster", "ms", *([selecting] if selecting else [])]
    return [f"{title}, batch {batch}" for batch in batches for title in titles]


def time_cells(row: TimedRow, batches: Sequence[int], selecting: bool = False) -> list[str]:
    """Return the speed-up and the milliseconds of a row at each batch size, with the share of choosing tokens."""
    cells = []
    for batch in batches:
        if (timing := row.timing(batch)) is None:
            cells += ["-"] * (3 if selecting else 2)
            continue
        cells += [faster(timing.speedup), f"{timing.speedup.ms:.1f}"]
        cells += [f"{100 * timing.selector_ms / timing.speedup.ms:.0f} %"] if selecting else []
    return cells


def time_fields(timing: BatchTiming) -> dict[str, float | bool | None]:
    """Return a timing at one batch size as fields of a CSV file."""
    size = f"b{timing.batch}"
    return speedup_fields(size, timing.speedup) | {
        f"peak_mib_{size}": timing.peak_mib, f"whole_peak_mib_{size}": timing.whole_peak_mib,
        **({f"selector_ms_{size}": timing.selector_ms} if isinstance(timing, SelectorTiming) else {}),
    }  # fmt: skip


def network_frame(
    found: Sequence[PruningResult],
    numbers: Sequence[str],
    more: Callable[[PruningResult, Any], dict[str, Any]],
    times: Callable[[Any], dict[str, Any]] = time_fields,
) -> pd.DataFrame:
    """Return all measurements, one row per method and keep, as a kind's table is written to a CSV file.

    numbers: the estimates of a row. more: returns further fields of a row. times: returns those of a timing.
    """
    records = []
    for one, keep, row in rows(found):
        record = _network_fields(one, keep, row) | more(one, row)
        for number in numbers:
            record |= estimate_fields(number, getattr(row, number))
        for timing in row.timings:
            record |= times(timing)
        records.append(record)
    return pd.DataFrame.from_records(records)


def _network_fields(one: PruningResult, keep: float | None, row: NetworkRow) -> dict[str, Any]:
    """Return the fields of a row of a CSV file that do not depend on the kind."""
    about = one.about
    return {
        "method": about["method"], "keep": keep, "training": about["training"],
        "training_seconds": row.training_seconds, "training_images": row.training_images, "model": about["model"],
        "dataset": about["dataset"], "num_images": about["num_images"], "gflops": row.gflops,
        "gflops_whole": row.whole_gflops,
    }  # fmt: skip


def keep_text(keep: float | None) -> str:
    """Return a keep ratio as text."""
    return "-" if keep is None else f"{keep:g}"


def conditions(about: dict[str, Any], counted: str, unit: str = "px") -> str:
    """Return the model, the data and the device of a table as the beginning of a sentence.

    counted: the number of inputs, as text. unit: of their size.
    """
    provenance = about["provenance"]
    processor = f" {provenance['processor']}" if provenance["processor"] else ""
    return (
        f"`{about['model']}` on {counted} of {about['dataset']}, {provenance['data']['side']} {unit}; "
        f"{provenance['device']}{processor}"
    )


def time_note(found: Sequence[PruningResult], subject: str) -> str:
    """Return how the times of a table were measured, as a paragraph; empty without times. subject: of the sentence."""
    repetitions = [speedup.repetitions for row in rows_of(found) for one in row.timings for speedup in one.speedups]
    if not repetitions:
        return ""
    return (
        f"\n{subject} are measured alternately with the full model, with {min(repetitions)} or more timings of each. "
        f'"{NONE}": the interval contains 1, or the full model compared with itself deviates by more than '
        f"{100 * STEADY:.0f} %. The speed of a machine varies between the measurements of two rows, so compare rows by "
        "their ratios, not by their milliseconds.\n"
    )


def quality_note(found: Sequence[PruningResult], weak: str) -> str:
    """Return which rows are not judged, as paragraphs. weak: why the full model is not, if it is not."""
    text = ""
    if found[0].about["short"]:
        text += (
            f"\n**Not judged**: {weak}, so no verdict on accuracy is drawn. Token counts, FLOPs and times do not "
            "depend on it.\n"
        )
    if any(undertrained(one, row) for one in found for row in one.rows.values()):
        text += "\n(short): the network was trained on a CPU for minutes, so no verdict on its accuracy is drawn.\n"
    return text


def titled(one: PruningResult, row: Any, title: str) -> str:
    """Return the title of a row, marked if its training was short."""
    return f"{title} (short)" if undertrained(one, row) else title


def undertrained(result: PruningResult, row: Any) -> bool:
    """Return whether the training of a row was too short for a meaningful accuracy.

    A training of minutes on a CPU is too short, unless the full model reaches an accuracy that is judged with it.
    """
    about = result.about
    sufficient = about.get("training_profile") == "cpu" and not about["short"]
    profile = getattr(row, "training_profile", None)  # rows of vision-language models have none
    return profile == "cpu" and not sufficient
