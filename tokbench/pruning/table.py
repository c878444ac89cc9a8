"""Tables of pruning results, one per network, dataset and device, because speeds compare only within these."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tokbench.io.counts import count_of
from tokbench.paths import slug
from tokbench.pruning.kinds import CLASSIFIER, KINDS, kind_named
from tokbench.pruning.result import Estimate, PruningResult, PruningRow, Speedup, labels_text, load_all
from tokbench.results.markdown import table

NONE = "none measured"

FREE = "Nothing trained for it"
LEARNED = "Trained for it"


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
        keeps = [(None if key == "whole" else float(key), row) for key, row in one.rows.items()]
        listed += [(one, keep, row) for keep, row in sorted(keeps, key=lambda pair: -(pair[0] or 2))]
    return listed


def shared(found: Sequence[PruningResult]) -> dict[str, str]:
    """Return a title that contains the method's name for each method whose title is not unique, such as EViT's."""
    titles = [one.about["title"] for one in found]
    return {
        one.about["method"]: f"{title} ({one.about['method']})"
        for one, title in zip(found, titles, strict=True)
        if titles.count(title) > 1
    }


def frame(found: Sequence[PruningResult]) -> pd.DataFrame:
    """Return all measurements, one row per method and keep."""
    records = []
    for one, keep, row in rows(found):
        record = {
            "method": one.about["method"], "keep": keep, "training": one.about["training"],
            "training_seconds": row.training_seconds, "training_images": row.training_images,
            "model": one.about["model"], "dataset": one.about["dataset"], "num_images": one.about["num_images"],
            "gflops": row.gflops, "gflops_whole": row.whole_gflops, "gflops_counted": row.counted_gflops,
            "tokens_last": row.tokens[-1][1],
        }  # fmt: skip
        for number in ("top1", "top1_gap", "top5", "top5_gap", "agreement"):
            record |= {f"{number}{end}": getattr(getattr(row, number), key) for end, key in _ENDS.items()}
        for pace in row.pace:
            for number, speedup in (("speedup", pace.speedup), ("speedup_same_kernel", pace.speedup_same_kernel)):
                record |= {f"{number}_b{pace.batch}{end}": getattr(speedup, key) for end, key in _ENDS.items()}
            speedup, same = pace.speedup, pace.speedup_same_kernel
            record |= {
                f"control_b{pace.batch}": speedup.control, f"measured_b{pace.batch}": speedup.measured,
                f"control_same_kernel_b{pace.batch}": same.control,
                f"measured_same_kernel_b{pace.batch}": same.measured,
                f"ms_b{pace.batch}": speedup.ms, f"whole_ms_b{pace.batch}": speedup.whole_ms,
                f"images_per_second_b{pace.batch}": pace.batch / speedup.ms * 1000,
                f"selector_ms_b{pace.batch}": pace.selector_ms,
                f"peak_mib_b{pace.batch}": pace.peak_mib,
                f"whole_peak_mib_b{pace.batch}": pace.whole_peak_mib,
            }  # fmt: skip
        records.append(record)
    return pd.DataFrame.from_records(records)


_ENDS = {"": "value", "_low": "low", "_high": "high"}


def faster(speedup: Speedup) -> str:
    """Return a speed-up with its interval as text, or that none was measured."""
    if not speedup.measured:
        return NONE
    return f"{speedup.value:.2f} [{speedup.low:.2f}, {speedup.high:.2f}]"


def markdown(found: Sequence[PruningResult]) -> str:
    """Return a Markdown table of the methods that need no training, and one of the trained methods."""
    batches = sorted({pace.batch for one in found for row in one.rows.values() for pace in row.pace})
    head = ["method", "keep", "top-1 %", "less the whole's", "top-5 %", "agreement %", "GFLOPs", "x fewer"]
    for batch in batches:
        head += [f"x faster, batch {batch}", f"ms, batch {batch}", f"of it choosing, batch {batch}"]
    head += [f"MiB at its peak, batch {batch}" for batch in batches[-1:]]
    text, named = "", shared(found)
    for title, trained in ((FREE, False), (LEARNED, True)):
        chosen = [entry for entry in rows(found) if (entry[0].about["training"] != "none") == trained]
        if not chosen:
            continue
        cost = ["training s", "of it images"] if trained else []
        body = [
            _line(one, named.get(one.about["method"], row.title), keep, row, batches, trained)
            for one, keep, row in chosen
        ]
        text += f"\n## {title}\n\n{table([*head, *cost], body)}"
    return text


def _line(
    one: PruningResult, title: str, keep: float | None, row: PruningRow, batches: Sequence[int], trained: bool
) -> list[str]:
    cells = [
        title + (" (short)" if undertrained(row) else ""), "-" if keep is None else f"{keep:g}",
        f"{100 * row.top1.value:.1f}",
        gap_text(row.top1_gap),
        f"{100 * row.top5.value:.1f}",
        f"{100 * row.agreement.value:.1f}", f"{row.gflops:.2f}", f"{row.whole_gflops / row.gflops:.2f}",
    ]  # fmt: skip
    by_batch = {pace.batch: pace for pace in row.pace}
    for batch in batches:
        if (pace := by_batch.get(batch)) is None:
            cells += ["-"] * 3
            continue
        speedup = pace.speedup
        cells += [faster(speedup), f"{speedup.ms:.1f}", f"{100 * pace.selector_ms / speedup.ms:.0f} %"]
    for batch in batches[-1:]:
        peak = by_batch[batch].peak_mib if batch in by_batch else None
        cells.append("-" if peak is None else f"{peak:,.0f}")
    if trained:
        cells += ["-" if cost is None else f"{cost:,.0f}" for cost in (row.training_seconds, row.training_images)]
    return cells


def gap_text(gap: Estimate) -> str:
    if gap.low is None or gap.high is None:
        return f"{100 * gap.value:+.1f}"
    return f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"


def undertrained(row: PruningRow) -> bool:
    """Return whether the training of a row was too short for a meaningful accuracy."""
    return row.training_profile == "cpu"


def legend(found: Sequence[PruningResult]) -> str:
    """Return the conditions of the measurements and an explanation of the columns, as Markdown."""
    about = found[0].about
    provenance, first = about["provenance"], next(iter(found[0].rows.values()))
    processor = f" {provenance['processor']}" if provenance["processor"] else ""
    paces = [pace for one in found for row in one.rows.values() for pace in row.pace]
    text = (
        f"`{about['model']}` on {count_of(about['num_images'], 'image')} of {about['dataset']}, "
        f"{provenance['data']['side']} px; "
        f"{provenance['device']}{processor}, float32, attention by {provenance['kernel']}. "
        "Intervals are 95 %, accuracy's paired by image. `keep`: the share of tokens that each of "
        "three stages keeps; methods that cut elsewhere are set to the FLOPs of that, but for SiT (its paper's counts) "
        "and lower resolution (whole patches).\n\n"
        f"GFLOPs: {first.whole_gflops:.3f} for the whole network; {provenance['formula']}.\n"
    )
    text += _labels_note(provenance.get("labels", {}))
    if paces:
        kernels = sorted({f"{pace.best_kernel} at batch {pace.batch}" for pace in paces})
        text += (
            f"\nTimes faster than the whole network by its faster kernel ({', '.join(kernels)}), the two in turns, "
            f'{min(pace.speedup.repetitions for pace in paces)} or more timings each; "{NONE}" where the '
            "interval holds 1 or the whole network against itself is off by 3 %. Against the same kernel: in the CSV. "
            "A row's ms are of its own minutes, and a machine's pace drifts: rows compare by their ratios.\n"
        )
    if not about["short"] and any(undertrained(row) for one in found for row in one.rows.values()):
        text += "\n(short): trained on a CPU for minutes, so that its accuracy says nothing of the method.\n"
    if about["short"]:
        text += (
            "\n**short**: the network was trained on a CPU for minutes. Its accuracy says nothing of the methods, and "
            "no verdict on accuracy is drawn; token counts, operations and times do not depend on it.\n"
        )
    return text


def _labels_note(labels: dict[str, Any]) -> str:
    """Return the origin of the labels and the warnings about them; empty for older results without labels."""
    if not labels:
        return ""
    return f"\nLabels: {labels_text(labels)}.\n" + "".join(f"\n**Warning:** {text}\n" for text in labels["warnings"])


def write(out: Path) -> list[Path]:
    """Write `leaderboard/pruning-<table>.csv` and `.md` of all kinds of models in a results folder; return their
    paths."""
    folder = out / "leaderboard"
    written = []
    for kind in KINDS:
        for name, members in groups(load_all(out, kind)).items():
            shown = kind_named(kind)
            csv, md = folder / f"{name}.csv", folder / f"{name}.md"
            folder.mkdir(parents=True, exist_ok=True)
            text = f"# {name}\n\n{shown.legend(members)}{shown.markdown(members)}"
            csv.write_text(
                shown.frame(members).to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="\n"
            )
            md.write_text(text, encoding="utf-8", newline="\n")
            written += [csv, md]
    return written
