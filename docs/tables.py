"""Write the generated tables of README.md and docs/ again; `--check` only compares.

From results/: a marker names a leaderboard and, optionally, numbers to leave out and adapters to show:
    <!-- table: samples-reconstruct -lpips identity jpeg.q50 -->
`bits: photos-512-reconstruct jpeg` is the change of the bits at equal quality, compared with a codec.
From the code, between markers of their name: `protocols` from the preset files, `metrics` from the registry of metrics
and the columns of the leaderboards, `weights` from the list of known weight files, `commands` from the command line,
`reported: DATASET` from the published values in a dataset.toml.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokbench.cli import main as commands
from tokbench.metric_names import EVERY_MODALITY, METRICS, MetricName
from tokbench.protocol.protocol import TOKBENCH, load_protocol, protocols
from tokbench.results import leaderboard, markdown
from tokbench.results.bd_rate import NUMBERS, rate_changes
from tokbench.results.columns import column_of
from tokbench.results.floors import Floors
from tokbench.results.markdown import table
from tokbench.weights.registry import KNOWN_WEIGHTS

ROOT = Path(__file__).resolve().parent.parent
MARKED = re.compile(r"<!-- table: (\S+)([^\n]*?) -->\n.*?<!-- /table -->", re.DOTALL)
REPORTED = re.compile(r"<!-- reported: (\S+) -->\n.*?<!-- /reported: \1 -->", re.DOTALL)
BITS = re.compile(r"<!-- bits: (\S+) (\S+) -->\n.*?<!-- /bits -->", re.DOTALL)
# Speeds are one machine's; the rest is in results/leaderboard/.
LEFT_OUT = (
    "bits_per_image", "exact", "rfid_192", "rfid_64", "kid", "kid_768", "perplexity", "codebook_entropy", "parameters",
    "encode_images_per_second", "decode_images_per_second", "peak_memory_mib",
)  # fmt: skip


def with_results(text: str) -> str:
    """The text with every marked table of results written again."""
    results = leaderboard.read_all(ROOT / "results")
    tables, floors = leaderboard.groups(results), Floors(results)

    def written(match: re.Match[str]) -> str:
        name, words = match[1], match[2].split()
        wanted = [word for word in words if not word.startswith("-")]
        hidden = [word[1:] for word in words if word.startswith("-")]
        hidden += [number for result in tables[name] for number in result.metrics if MetricName.parse(number).infinite]
        rows = [result for result in tables[name] if not wanted or result.adapter in wanted]
        head = f"<!-- table: {name}{match[2]} -->\n"
        body = markdown.markdown(rows, (*LEFT_OUT, *hidden), floors)
        return f"{head}{body}\n{markdown.legend(rows)}\n<!-- /table -->"

    return MARKED.sub(written, text)


def with_bits(text: str) -> str:
    """The text with every marked table of `tokbench bd-rate` written again; rows that have no number are left out."""
    tables = leaderboard.groups(leaderboard.read_all(ROOT / "results"))

    def written(match: re.Match[str]) -> str:
        changes: dict[str, dict[str, str]] = {}
        for one in rate_changes(tables[match[1]], match[2]):
            if one.percent is not None:
                part = f" ({one.interval.low:+.0f} to {one.interval.high:+.0f})" if one.interval else ""
                changes.setdefault(one.name, {})[one.number] = f"{one.percent:+.0f} %{part}"
        rows = [[f"`{name}`", *(own.get(number, "-") for number in NUMBERS)] for name, own in changes.items()]
        head = ["bits compared with " + match[2], *(f"at equal {column_of(number)[1].title}" for number in NUMBERS)]
        return f"<!-- bits: {match[1]} {match[2]} -->\n{table(head, rows, markup=True)}<!-- /bits -->"

    return BITS.sub(written, text)


def protocol_table() -> str:
    """One row per protocol: what differs from the default, and the sources."""
    default = _flat(asdict(TOKBENCH))
    rows = []
    for name in protocols():
        protocol = load_protocol(name)
        differ = [f"{key} {value}" for key, value in _flat(asdict(protocol)).items() if value != default[key]]
        published = [f"{protocol.published.size} px"] * bool(protocol.published.size)
        published += [f"N {protocol.published.num_images:,}"] if protocol.published.num_images else []
        sources = "; ".join(dict.fromkeys(source.partition(": ")[0] for source in protocol.source))
        row = [", ".join(differ), ", ".join(published), sources]
        rows.append([f"`{name}`", protocol.sha256[:8], *(text or "-" for text in row)])
    head = ["protocol", "hash", "difference from the default", "published setting", "source"]
    return table(head, rows, left=range(5), markup=True)


def metric_table() -> str:
    """One row per metric: summary, numbers with their direction, network, default tasks, and the kinds of data."""
    rows = []
    for name, spec in METRICS.items():
        if not METRICS.is_builtin(name):
            continue
        fields = [f"{number.name}{spec.suffix}" for number in spec.numbers]
        numbers = ", ".join(f"`{field}`{column_of(field)[1].arrow}" for field in fields)
        network = spec.network or spec.reader or "-"
        summary = spec.summary[:1].upper() + spec.summary[1:]
        data = "all" if spec.modalities == EVERY_MODALITY else ", ".join(spec.modalities)
        rows.append([f"`{name}`", summary, numbers, network, ", ".join(spec.default_for) or "-", data])
    head = ["metric", "summary", "numbers", "network", "default for", "data"]
    return table(head, rows, left=range(6), markup=True)


def weight_table() -> str:
    """One row per weight file of a frozen network."""
    rows = []
    for network, files in KNOWN_WEIGHTS.items():
        readers = [name for name, entry in METRICS.items() if network in (entry.network, entry.reader)]
        needed = ", ".join(f"`{name}`" for name in readers)
        for place, file in enumerate(files):
            note = f"{file.get}{f' ({file.note})' if file.note else ''}"
            rows.append([network if not place else "", needed if not place else "", f"`{file.file}`", note])
    return table(["network", "needed by", "file", "from"], rows, left=range(4), markup=True)


def with_reported(text: str) -> str:
    """The text with the table of every marked dataset written again, from the `[[reported]]` of its dataset.toml."""

    def written(match: re.Match[str]) -> str:
        name = match[1]
        found = tomllib.loads((ROOT / "datasets" / name / "dataset.toml").read_text(encoding="utf-8"))["reported"]
        columns = [column_of(one["number"])[1] for one in found]
        rows = [
            [one["of"], column.title + column.arrow, f"{one['value']:.{column.digits}f}", one["source"]]
            for one, column in zip(found, columns, strict=True)
        ]
        body = table(["model", "number", "reported", "source"], rows, left=(0, 1, 3), markup=True)
        return f"<!-- reported: {name} -->\n{body}<!-- /reported: {name} -->"

    return REPORTED.sub(written, text)


def command_table() -> str:
    """One row per command."""
    rows = [
        [f"`tokbench {name}`", command.get_short_help_str(limit=200)]
        for name, command in sorted(commands.commands.items())
    ]
    return table(["command", "what it does"], rows, left=range(2), markup=True)


def marked(name: str, make: Callable[[], str]) -> Callable[[str], str]:
    """A function that writes the part between the markers of that name again."""

    def written(text: str) -> str:
        part = f"<!-- {name} -->\n{make()}<!-- /{name} -->"
        return re.sub(rf"<!-- {name} -->\n.*?<!-- /{name} -->", lambda _: part, text, flags=re.DOTALL)

    return written


def _flat(fields: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested fields by their dotted names, without those that change no number."""
    found: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, dict) and key != "published":
            found |= _flat(value, f"{before}{key}.")
        elif key not in ("name", "summary", "source", "published"):
            found[f"{before}{key}"] = value
    return found


WRITTEN: dict[str, Callable[[str], str]] = {
    "README.md": with_results,
    "docs/index.md": with_results,
    "docs/evaluate.md": with_results,
    "docs/protocols.md": marked("protocols", protocol_table),
    "docs/metrics.md": marked("metrics", metric_table),
    "docs/documents.md": with_reported,
    "docs/compression.md": with_bits,
    "docs/decoders.md": with_results,
    "docs/video.md": with_results,
    "docs/sound.md": with_results,
    "docs/shapes.md": with_results,
    "docs/weights.md": marked("weights", weight_table),
    "docs/cli.md": marked("commands", command_table),
}
"""Every file with generated parts, and the function that writes them."""


def main() -> int:
    stale = 0
    for name, make in WRITTEN.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        made = make(text)
        stale += made != text
        if "--check" not in sys.argv:
            (ROOT / name).write_text(made, encoding="utf-8")
    return int(bool(stale)) if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
