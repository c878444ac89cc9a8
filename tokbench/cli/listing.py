"""Text listings of adapters, datasets, metrics, protocols, weights and single results. Imports no torch."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

from tokbench.errors import TokbenchError
from tokbench.extractors.specs import EXTRACTORS
from tokbench.io.left_out import describe_left_out
from tokbench.metric_names import METRICS, defaults
from tokbench.paths import dataset_folders
from tokbench.protocol.protocol import load_protocol, protocols
from tokbench.results.columns import column_of
from tokbench.results.result import Result
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.registry import BUILTIN_SUMMARIES, adapter_files
from tokbench.weights.registry import KNOWN_WEIGHTS, WeightFile, locate, search_dirs
from tokbench.weights.shards import shard_paths


def adapters(root: Path | None) -> list[str]:
    """Return one line per adapter: built-in adapters first, then every configuration of every adapter folder."""
    found = [(name, summary) for name, summary in BUILTIN_SUMMARIES.items()]
    for name, toml in adapter_files(root).items():
        try:
            config = tomllib.loads(toml.read_text(encoding="utf-8"))
            untrained = "training" in config and not shard_paths(AdapterConfig(name, toml.parent, config).file)
            found.append((name, f"{config.get('summary', '')}{' (no trained weights here)' if untrained else ''}"))
        except (OSError, ValueError) as error:
            found.append((name, f"broken: {error}"))
    return _columns(found)


def datasets(root: Path | None) -> list[str]:
    """Return one line per dataset, with the availability of its images on this machine."""
    from tokbench.data.dataset_folder import describe
    from tokbench.data.dataset_folder import locate as locate_data

    found = []
    for name, folder in dataset_folders(root).items():
        try:
            described = describe(folder)
            stored = described.get("folder", name)
            availability = (
                "embedded" if "manifest" in described else "found" if locate_data(stored, described) else "not found"
            )
            count = f"{described['count']:,}" if "count" in described else "all"
            found.append((name, f"{count} images, {described['size']} px, {availability}: {described['title']}"))
        except TokbenchError as error:
            found.append((name, f"broken: {error}"))
    return _columns(found)


def metrics(root: Path | None) -> list[str]:
    """Return one line per metric; a star marks the default metrics."""
    starred = defaults("reconstruct")
    rows = []
    for name, spec in METRICS.items():
        source = "" if METRICS.is_builtin(name) else f" (package {METRICS.package(name)})"
        rows.append((f"{name}{' *' if name in starred else ''}", f"{spec.summary}{source}"))
    rows += [(one.name, f"not available: {one}") for one in (*METRICS.broken, *EXTRACTORS.broken)]
    return [*_columns(rows), "", "* computed when --metrics is not given"]


def protocol_lines(root: Path | None) -> list[str]:
    """Return one line per protocol, with its hash."""
    return _columns(
        [(name, f"{load_protocol(name).sha256[:8]}  {load_protocol(name).summary}") for name in protocols()]
    )


LISTS: dict[str, Callable[[Path | None], list[str]]] = {
    "adapters": adapters,
    "datasets": datasets,
    "metrics": metrics,
    "protocols": protocol_lines,
}


def weight_files(root: Path | None) -> list[tuple[str, str, WeightFile]]:
    """Return (network or adapter, what needs it, file) for every known weight file."""
    known = []
    own = {name: spec.weights for name, spec in EXTRACTORS.items() if not EXTRACTORS.is_builtin(name)}
    for network, sources in (KNOWN_WEIGHTS | own).items():
        users = ", ".join(name for name, entry in METRICS.items() if network in (entry.network, entry.reader))
        known += [(network, users, source) for source in sources]
    for name, toml in adapter_files(root).items():
        try:
            variant = AdapterConfig(name, toml.parent, tomllib.loads(toml.read_text(encoding="utf-8")))
            variant.weight_files()
        except (OSError, ValueError, TokbenchError):  # 'tokbench list adapters' shows the error
            continue
        known += [(name, "the adapter", source) for sources in variant.weight_files().values() for source in sources]
    return known


def weights(root: Path | None) -> list[str]:
    """Return the lines of `tokbench weights`: every weight file with its hash, location and source."""
    lines = ["searched folders: " + ", ".join(str(folder) for folder in search_dirs())]
    heading = None
    for what, users, source in weight_files(root):
        if what != heading:
            lines += ["", f"{what}: needed by {users}"]
            heading = what
        found, wrong = locate([source])
        digits = f"{source.sha256}{'' if len(source.sha256) == 64 else '...'}" if source.sha256 else "not published"
        lines.append(f"  {source.file}  sha256 {digits}")
        lines.append(
            f"    {f'found at {found.path}' if found else 'not found'}{f' ({source.note})' if source.note else ''}"
        )
        lines += [f"    {note}" for note in wrong]
        if not found:
            lines.append(f"    available from {source.get}{f': {source.url}' if source.url else ''}")
    return [*lines, "", "add a file with: tokbench weights add FILE"]


def show(result: Result) -> str:
    """Return one result as text: metrics, warnings, skipped metrics and provenance."""
    provenance = result.provenance
    lines = [
        f"{result.adapter} on {result.group}: {result.num_images:,} images of "
        f"{provenance['data']['width']}x{provenance['data']['height']} px",
        "",
    ]
    rows = []
    for number, entry in sorted(result.metrics.items(), key=lambda item: (column_of(item[0])[0], item[0])):
        _, column = column_of(number)
        value = "none" if entry["value"] is None else f"{entry['value']:,.{column.digits}f}"
        if entry.get("low") is not None and entry["low"] != entry["high"]:
            value += f"  [{entry['low']:,.{column.digits}f}, {entry['high']:,.{column.digits}f}]"
        setting_items = provenance.get("metrics", {}).get(number, {}).items()
        setting_text = ", ".join(f"{key} {text[:12] if len(text) == 64 else text}" for key, text in setting_items)
        rows.append((column.title, value, f"n {entry['n']:,}" if "n" in entry else "", setting_text))
    lines += _columns(rows)
    lines += [f"warning: {warning.text}" for warning in result.warnings]
    lines += [f"skipped {metric}: {reason}" for metric, reason in result.skipped.items()]
    lines += [f"unreadable image {bad['name']}: {bad['reason']}" for bad in result.bad_images]
    lines += ["", f"data       sha256 {provenance['data']['sha256']}"]
    if left_out := provenance["data"].get("left_out"):
        lines += [f"left out   {describe_left_out(left_out)}"]
    lines += [f"protocol   {provenance['protocol']['name']}, sha256 {provenance['protocol']['sha256']}"]
    for key in ("adapter", "versions"):
        lines += [f"{key:10} {name} {value}" for name, value in sorted(provenance.get(key, {}).items())]
    lines += [f"{key:10} {provenance[key]}" for key in ("seed", "precision", "device")]
    return "\n".join(lines) + "\n"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the rows as lines, each column padded to its widest cell."""
    if not rows:
        return ["none"]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
