"""Tables of results on classifiers of clips, and verdicts on CenterCLIP's claims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from tokbench.io.counts import count_of
from tokbench.pruning.clips.methods import CONTROLS
from tokbench.pruning.clips.result import ClipRow
from tokbench.pruning.result import Estimate, PruningResult, unpacked
from tokbench.pruning.table import NONE, faster, gap_text, rows
from tokbench.results.markdown import table
from tokbench.stats.bootstrap import bootstrap_pairs, metric_entry


@dataclass(frozen=True)
class Claim:
    """A claim that `method` classifies more clips correctly than `other` with equally many tokens."""

    text: str
    method: str
    other: str


CLAIMS = (
    Claim("Medoids beat evenly spaced tokens.", "k_medoids", "uniform"),
    Claim("Medoids beat temporal pooling.", "k_medoids", "pooling"),
    Claim("Spectral clustering beats k-medoids++.", "spectral", "k_medoids"),
)


@dataclass(frozen=True)
class Finding:
    """The difference of the shares of correct clips, method minus other, with its paired 95 % interval."""

    claim: Claim
    keep: float
    difference: Estimate
    verdict: str


def findings(found: Sequence[PruningResult]) -> Iterator[Finding]:
    """Yield the findings of all claims whose two rows are among the results of one table.

    Nothing is judged if the network with all tokens is too weak (`about["short"]`).
    """
    by_method = {one.about["method"]: one for one in found}
    for claim in CLAIMS:
        if not {claim.method, claim.other} <= by_method.keys():
            continue
        one, other = by_method[claim.method], by_method[claim.other]
        count = one.about["num_images"]
        for key in sorted(one.rows.keys() & other.rows.keys(), key=float, reverse=True):
            first, second = (unpacked(which.rows[key].right, count) for which in (one, other))
            interval = bootstrap_pairs(second, first, 0)
            verdict = "holds" if interval.low > 0 else "does not hold" if interval.high < 0 else "cannot tell"
            gap = Estimate(**metric_entry(float(first.mean() - second.mean()), interval))
            yield Finding(claim, float(key), gap, "not judged" if one.about["short"] else verdict)


def markdown(found: Sequence[PruningResult]) -> str:
    """Return a Markdown table of all rows, and one of the verdicts on the paper's claims."""
    batches = sorted({pace.batch for one in found for row in one.rows.values() for pace in row.pace})
    cameras = sorted({camera for one in found for row in one.rows.values() for camera in row.cameras})
    head = ["method", "keep", "tokens", "at most", "correct %", "less the whole's", "agreement %"]
    head += [*(f"correct %, {camera} camera" for camera in cameras), "GFLOPs", "x fewer"]
    for batch in batches:
        head += [f"x faster, batch {batch}", f"ms, batch {batch}", f"of it making tokens, batch {batch}"]
    body = []
    for one, keep, row in rows(found):
        cells = [
            row.title + (", control" if one.about["method"] in CONTROLS else ""), "-" if keep is None else f"{keep:g}",
            f"{row.tokens:,.1f}", f"{row.most_tokens:,}",
            f"{100 * row.top1.value:.1f}", gap_text(row.gap), f"{100 * row.agreement.value:.1f}",
            *(_camera(row, camera) for camera in cameras), f"{row.gflops:.3f}", f"{row.whole_gflops / row.gflops:.2f}",
        ]  # fmt: skip
        by_batch = {pace.batch: pace for pace in row.pace}
        for batch in batches:
            pace = by_batch.get(batch)
            cells += ["-"] * 3 if pace is None else [
                faster(pace.speedup), f"{pace.speedup.ms:.1f}", f"{100 * pace.selector_ms / pace.speedup.ms:.0f} %",
            ]  # fmt: skip
        body.append(cells)
    text = f"\n{table(head, body)}"
    judged = [
        [one.claim.text, f"{one.claim.method} - {one.claim.other}", f"{one.keep:g}", gap_text(one.difference),
         one.verdict]
        for one in findings(found)
    ]  # fmt: skip
    if judged:
        text += f"\n## Claims\n\n{table(['claim', 'rows', 'keep', 'difference %', 'verdict'], judged)}"
    return text


def _camera(row: ClipRow, camera: str) -> str:
    """Return the accuracy with this camera and its interval."""
    one = row.cameras.get(camera)
    if one is None or one.low is None or one.high is None:
        return "-"
    return f"{100 * one.value:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def legend(found: Sequence[PruningResult]) -> str:
    """Return the conditions of the measurements and an explanation of the columns, as Markdown."""
    about = found[0].about
    provenance, whole = about["provenance"], about["whole"]
    first: ClipRow = next(iter(found[0].rows.values()))
    processor = f" {provenance['processor']}" if provenance["processor"] else ""
    text = (
        f"`{about['model']}` on {count_of(about['num_images'], 'clip')} of {about['dataset']}, "
        f"{provenance['data']['side']} px; {provenance['device']}{processor}, float32. Intervals are 95 %, accuracy's "
        "paired by clip. `keep`: the share of a clip's patch tokens that are left; `-` for a network with tokens of "
        "its own.\n\n"
        f"With all tokens, {100 * whole['accuracy']:.1f} % are correct, and {100 * whole['floor']:.1f} % have the most "
        f"frequent label. GFLOPs of a clip with all tokens: {first.whole_gflops:.3f}; {provenance['formula']}.\n"
    )
    if any(row.pace for one in found for row in one.rows.values()):
        text += (
            "\nTimes include clustering and cheap trajectories (exact masks are given), in turns with all tokens, on "
            "noise; "
            f'"{NONE}" where the interval holds 1 or all tokens against themselves are off by 3 %.\n'
        )
    if about["short"]:
        text += (
            "\n**Not judged**: with all tokens, the accuracy is less than halfway between the most frequent label's "
            "share and 1, so that the accuracy of a row says nothing of its method.\n"
        )
    return text


def frame(found: Sequence[PruningResult]) -> pd.DataFrame:
    """Return all measurements, one row per method and keep."""
    records = []
    for one, keep, row in rows(found):
        about = one.about
        record = {
            "method": about["method"], "keep": keep, "training": about["training"], "network": row.network,
            "model": about["model"], "dataset": about["dataset"], "num_images": about["num_images"],
            "accuracy_whole": about["whole"]["accuracy"], "tokens": row.tokens, "most_tokens": row.most_tokens,
            "gflops": row.gflops, "gflops_whole": row.whole_gflops, "training_seconds": row.training_seconds,
        }  # fmt: skip
        for number in ("top1", "gap", "agreement"):
            estimate = getattr(row, number)
            record |= {f"{number}{end}": getattr(estimate, key) for end, key in _ENDS.items()}
        record |= {f"accuracy_{camera}": one.value for camera, one in row.cameras.items()}
        for pace in row.pace:
            speedup, name = pace.speedup, f"b{pace.batch}"
            record |= {f"speedup_{name}{end}": getattr(speedup, key) for end, key in _ENDS.items()}
            record |= {
                f"control_{name}": speedup.control, f"measured_{name}": speedup.measured, f"ms_{name}": speedup.ms,
                f"whole_ms_{name}": speedup.whole_ms, f"selector_ms_{name}": pace.selector_ms,
            }  # fmt: skip
        records.append(record)
    return pd.DataFrame.from_records(records)


_ENDS = {"": "value", "_low": "low", "_high": "high"}
