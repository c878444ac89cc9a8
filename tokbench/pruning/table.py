"""Tables of pruning results, one per network, dataset and device, because speeds compare only within these."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokbench.paths import slug
from tokbench.pruning.kinds import CLASSIFIER, KINDS, kind_named
from tokbench.pruning.result import Estimate, PruningResult, Speedup, keep_of_row, load_all

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
    return sorted({timing.batch for one in found for row in one.rows.values() for timing in row.pace})


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


def gap_text(gap: float, low: float | None, high: float | None) -> str:
    """Return a difference of two shares and its interval as text, in %."""
    text = f"{100 * gap:+.1f}"
    return text if low is None or high is None or math.isnan(low) else f"{text} [{100 * low:+.1f}, {100 * high:+.1f}]"


def undertrained(result: PruningResult, row: Any) -> bool:
    """Return whether the training of a row was too short for a meaningful accuracy.

    A training of minutes on a CPU is too short, unless the full model reaches an accuracy that is judged with it.
    """
    about = result.about
    sufficient = about.get("training_profile") == "cpu" and not about["short"]
    profile = getattr(row, "training_profile", None)  # rows of vision-language models have none
    return profile == "cpu" and not sufficient


def write(out: Path) -> list[Path]:
    """Write `leaderboard/pruning-<table>.csv` and `.md` of all kinds of models in a results folder; return their
    paths."""
    folder = out / "leaderboard"
    written = []
    for kind in KINDS:
        for name, members in groups(load_all(out, kind)).items():
            shown = kind_named(kind).table
            csv, md = folder / f"{name}.csv", folder / f"{name}.md"
            folder.mkdir(parents=True, exist_ok=True)
            text = f"# {name}\n\n{shown.legend(members)}{shown.markdown(members)}"
            csv.write_text(
                shown.frame(members).to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="\n"
            )
            md.write_text(text, encoding="utf-8", newline="\n")
            written += [csv, md]
    return written
