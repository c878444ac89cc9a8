"""Write the generated parts of the adapters' cards and of docs/zoo.md from results and training records.

The generated part of a card is between the markers <!-- zoo: titok --> and <!-- /zoo -->. With `--check` nothing is
written, and the exit code is 1 if a file is not up to date.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokbench.analysis.ablations import Finding, ablations, findings
from tokbench.metric_names import MetricName
from tokbench.pruning.ablations import COLUMNS, pruning_findings
from tokbench.pruning.kind_names import KINDS
from tokbench.pruning.result import load_all
from tokbench.results import leaderboard, markdown
from tokbench.results.columns import column_of
from tokbench.results.floors import Floors
from tokbench.results.result import Result
from tokbench.tokenizers.registry import adapter_files, network_files
from tokbench.tokenizers.training_record import read_record
from tokbench.weights.shards import shard_paths

ROOT = Path(__file__).resolve().parent.parent
GENERATED = re.compile(r"<!-- zoo: (\S+) -->\n.*?<!-- /zoo -->", re.DOTALL)
BITS = "tiny-imagenet.n2000-reconstruct"
"""Group of results in which tokenizers are compared at equal bits."""
SHOWN = (
    "tokens_per_image", "bits_per_image", "psnr", "ssim", "lpips", "rfid_768", "sfid", "fd_efficientnet",
    "codebook_usage", "perplexity", "code_density_cv", "normalized_entropy", "code_gini", "holistic_transfer",
    "pfid_768", "pfid_efficientnet", "ppsnr",
    "gfid_768", "precision_efficientnet", "recall_efficientnet", "network_evaluations", "gflops_per_image",
    "decode_gflops_per_image", "sample_latency_ms", "decode_latency_ms", "saturated_samples_per_second",
    "saturated_decodes_per_second", "encode_images_per_second", "decode_images_per_second", "peak_memory_mib",
)  # fmt: skip


def records() -> dict[str, dict[str, Any]]:
    """Return the training records of all adapters and networks by name."""
    files = adapter_files(ROOT) | network_files(ROOT)
    return {name: record for name, toml in files.items() if (record := read_record(toml))}


def trainings(records: dict[str, dict[str, Any]]) -> str:
    """Return a Markdown table of training records."""
    head = ["adapter", "device", "precision", "CPU seconds", "seconds", "images seen", "images per CPU second", "steps"]
    rows = []
    for name, record in records.items():
        terms = [f"{term} {curve[0]:.4g} → {curve[-1]:.4g}" for term, curve in record["curve"].items()]
        cpu = record.get("cpu_seconds")  # records of earlier versions have none
        cells = [
            record["device"],
            record.get("precision") or "-",
            f"{cpu:,.0f}" if cpu else "-",
            f"{record['seconds']:,.0f}",
            f"{record['images']:,}",
            f"{record['images'] / cpu:,.0f}" if cpu else "-",
            f"{record['steps']:,}" if record["steps"] else "fitted",
            str(record["seed"]),
            ", ".join(terms) or "-",
        ]
        rows.append([f"`{name}`", *cells])
    head += ["seed", "loss (first → last)"]
    return markdown.table(head, rows, left=(0, 1, 2, 9), markup=True)


def measured(results: Sequence[Result], floors: Floors) -> str:
    """Return a Markdown table for each group of results, with the metrics in SHOWN and the distances from the
    floors."""
    text = ""
    for group, rows in leaderboard.groups(results).items():
        hidden = {number for result in rows for number in result.metrics if MetricName.parse(number).base not in SHOWN}
        hidden |= {number for result in rows for number in result.metrics if MetricName.parse(number).infinite}
        text += f"\n`{group}`\n\n{markdown.markdown(rows, sorted(hidden), floors)}\n{markdown.legend(rows)}\n"
    return text


def verdicts(found: Sequence[Finding]) -> str:
    """Return a Markdown table of ablations."""
    head = ["claim", "ablated model", "metric", "results", "full", "ablated", "ablated - full", "verdict"]
    rows = []
    for one in found:
        gap = one.difference
        column = COLUMNS.get(gap.number) or column_of(gap.number)[1]
        shown = [f"{value:,.{column.digits}f}" if value is not None else "none" for value in (gap.first, gap.second)]
        spread = f"{gap.gap:+,.{column.digits}f} [{gap.low:+,.{column.digits}f}, {gap.high:+,.{column.digits}f}]"
        rows.append(
            [one.ablation.claim, f"`{one.ablation.ablated}`", column.title + column.arrow, one.group, *shown, spread,
             _verdict(one)]
        )  # fmt: skip
    return markdown.table(head, rows, left=(0, 1, 2, 3, 7), markup=True)


def _verdict(finding: Finding) -> str:
    """Return the text of a verdict, with the adapters that are below their floors."""
    if finding.below_floor:
        return f"{finding.verdict} ({', '.join(f'`{name}`' for name in finding.below_floor)})"
    return f"{finding.verdict} (one seed)"


def equal_bits(results: Sequence[Result]) -> str:
    """Return a Markdown table of the discrete tokenizers' bits per image: nominal, by entropy and coded."""
    rows = []
    for one in results:
        values = {name: entry["value"] for name, entry in one.metrics.items()}
        codebook = one.provenance["adapter"].get("codebook")
        if one.group != BITS or not codebook or "order0_bits_per_image" not in values:
            continue
        nominal = values["bits_per_image"]
        indices = nominal / math.log2(max(codebook.values()))  # all streams of a tokenizer have the same codebook size
        entropy = indices * values["codebook_entropy"]
        rows.append((values["order0_bits_per_image"], one, nominal, entropy, values))
    head = ["adapter", "tokens", "nominal bits", "entropy bits", "order-0 bits", "BPE bits", "BPE tokens"]
    head += ["PSNR ↑", "LPIPS ↓", "FD-EfficientNet ↓"]
    body = []
    for order0, one, nominal, entropy, values in sorted(rows, key=lambda row: row[0]):
        costs = (values["tokens_per_image"], nominal, entropy, order0, values["bpe_bits_per_image"])
        cells = [f"{cost:,.0f}" for cost in costs] + [f"{values['bpe_tokens_per_image']:,.1f}", f"{values['psnr']:.2f}"]
        body.append([f"`{one.adapter}`", *cells, f"{values['lpips']:.3f}", f"{values['fd_efficientnet']:,.1f}"])
    return markdown.table(head, body, markup=True)


def card(family: str, results: Sequence[Result], known: Sequence[Finding]) -> str:
    """Return the generated part of a family's card; `known` are the findings of all ablations."""
    own = {name: record for name, record in records().items() if name.partition(".")[0] == family}
    text = f"## Training\n\n{trainings(own)}" if own else "No model has been trained yet.\n"
    own_results = [result for result in results if result.adapter.partition(".")[0] == family]
    files = adapter_files(ROOT) | network_files(ROOT)
    if uncommitted := [name for name in own if not shard_paths(files[name].with_suffix(".safetensors"))]:
        names = " ".join(uncommitted)
        text += (
            "\nThe following weights are not in the repository; results record their hashes. To train them, run\n\n"
            f"    tokbench train {names}\n"
        )
    if own_results:
        text += f"\n## Results\n{measured(own_results, Floors(results))}"
    if found := [one for one in known if one.ablation.of.partition(".")[0] == family]:
        text += (
            f"\n## Ablations\n\n{verdicts(found)}\nEach row compares two models trained with the same seed, "
            "images, order and number of steps. Intervals cover the choice of images, not of seeds.\n"
        )
    return text


def filled(text: str, results: Sequence[Result], known: Sequence[Finding]) -> str:
    """Return a card with its generated part replaced."""
    return GENERATED.sub(lambda match: f"<!-- zoo: {match[1]} -->\n{card(match[1], results, known)}<!-- /zoo -->", text)


def main() -> int:
    """Write the files, or compare them with `--check`; return the exit code."""
    results, stale = leaderboard.read_all(ROOT / "results"), 0
    pages = [path for path in sorted((ROOT / "adapters").glob("*/README.md")) if "<!-- zoo:" in path.read_text("utf-8")]
    found = findings(ablations(adapter_files(ROOT)), results)
    for kind in KINDS:
        found += pruning_findings(ablations(network_files(ROOT)), load_all(ROOT / "results", kind))
    texts = {path: filled(path.read_text("utf-8"), results, found) for path in pages}
    tables = {"trainings": trainings(records()), "verdicts": verdicts(found), "bits": equal_bits(results)}
    page = ROOT / "docs" / "zoo.md"
    text = page.read_text("utf-8")
    for mark, part in tables.items():
        part = f"<!-- {mark} -->\n{part}<!-- /{mark} -->"
        text = re.sub(rf"<!-- {mark} -->\n.*?<!-- /{mark} -->", lambda _, part=part: part, text, flags=re.DOTALL)
    texts[page] = text
    for path, text in texts.items():
        stale += text != path.read_text("utf-8")
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    return int(bool(stale)) if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
