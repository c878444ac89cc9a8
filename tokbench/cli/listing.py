"""What is here, in lines for people: adapters, datasets, metrics, protocols, weights, one result. Imports no torch."""

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
    """Builtin forms first, then every variant of every adapter folder."""
    found = [(name, summary) for name, summary in BUILTIN_SUMMARIES.items()]
    for name, toml in adapter_files(root).items():
        try:
            config = tomllib.loads(toml.read_text(encoding="utf-8"))
            untrained = "training" in config and not shard_paths(AdapterConfig(name, toml.parent, config).file)
            found.append((name, f"{config.get('summary', '')}{' (not trained yet)' if untrained else ''}"))
        except (OSError, ValueError) as error:
            found.append((name, f"broken: {error}"))
    return _columns(found)


def datasets(root: Path | None) -> list[str]:
    """Every dataset, and whether its images are on this machine."""
    from tokbench.data.dataset_folder import describe
    from tokbench.data.dataset_folder import locate as locate_data

    found = []
    for name, folder in dataset_folders(root).items():
        try:
            described = describe(folder)
            stored = described.get("folder", name)
            here = "embedded" if "manifest" in described else "here" if locate_data(stored, described) else "not here"
            count = f"{described['count']:,}" if "count" in described else "all"
            found.append((name, f"{count} images, {described['size']} px, {here}: {described['title']}"))
        except TokbenchError as error:
            found.append((name, f"broken: {error}"))
    return _columns(found)


def metrics(root: Path | None) -> list[str]:
    """Every metric; a star marks those computed by default."""
    starred = defaults("reconstruct")
    rows = []
    for name, spec in METRICS.items():
        source = "" if METRICS.is_builtin(name) else f" (package {METRICS.package(name)})"
        rows.append((f"{name}{' *' if name in starred else ''}", f"{spec.summary}{source}"))
    rows += [(one.name, f"broken: {one}") for one in (*METRICS.broken, *EXTRACTORS.broken)]
    return [*_columns(rows), "", "* computed when --metrics is not given"]


def protocol_lines(root: Path | None) -> list[str]:
    """Every protocol with its hash."""
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
    """(what it is for, what needs it, file) of every weight file that tokbench knows."""
    known = []
    own = {name: spec.weights for name, spec in EXTRACTORS.items() if not EXTRACTORS.is_builtin(name)}
    for network, sources in (KNOWN_WEIGHTS | own).items():
        users = ", ".join(name for name, entry in METRICS.items() if network in (entry.network, entry.reader))
        known += [(network, users, source) for source in sources]
    for name, toml in adapter_files(root).items():
        try:
            variant = AdapterConfig(name, toml.parent, tomllib.loads(toml.read_text(encoding="utf-8")))
            variant.weight_files()
        except (OSError, ValueError, TokbenchError):  # 'tokbench list adapters' names it
            continue
        known += [(name, "the adapter", source) for sources in variant.weight_files().values() for source in sources]
    return known


def weights(root: Path | None) -> list[str]:
    """The full answer to "which files do I need, and where do they go?"."""
    lines = ["looked for in: " + ", ".join(str(folder) for folder in search_dirs())]
    headed = None
    for what, users, source in weight_files(root):
        if what != headed:
            lines += ["", f"{what}: needed by {users}"]
            headed = what
        found, wrong = locate([source])
        digits = f"{source.sha256}{'' if len(source.sha256) == 64 else '...'}" if source.sha256 else "not published"
        lines.append(f"  {source.file}  sha256 {digits}")
        lines.append(
            f"    {f'found at {found.path}' if found else 'not found'}{f' ({source.note})' if source.note else ''}"
        )
        lines += [f"    {note}" for note in wrong]
        if not found:
            lines.append(f"    get it from {source.get}{f': {source.url}' if source.url else ''}")
    return [*lines, "", "put a file in place with: tokbench weights add FILE"]


def show(result: Result) -> str:
    """One result as text."""
    told = result.provenance
    lines = [
        f"{result.adapter} on {result.group}: {result.num_images:,} images of "
        f"{told['data']['width']}x{told['data']['height']} px",
        "",
    ]
    rows = []
    for number, entry in sorted(result.metrics.items(), key=lambda item: (column_of(item[0])[0], item[0])):
        _, column = column_of(number)
        value = "none" if entry["value"] is None else f"{entry['value']:,.{column.digits}f}"
        if entry.get("low") is not None and entry["low"] != entry["high"]:
            value += f"  [{entry['low']:,.{column.digits}f}, {entry['high']:,.{column.digits}f}]"
        ways = told.get("metrics", {}).get(number, {}).items()
        made = ", ".join(f"{key} {text[:12] if len(text) == 64 else text}" for key, text in ways)
        rows.append((column.title, value, f"n {entry['n']:,}" if "n" in entry else "", made))
    lines += _columns(rows)
    lines += [f"warning: {warning.text}" for warning in result.warnings]
    lines += [f"skipped {metric}: {reason}" for metric, reason in result.skipped.items()]
    lines += [f"bad image {bad['name']}: {bad['reason']}" for bad in result.bad_images]
    lines += ["", f"data       sha256 {told['data']['sha256']}"]
    if left := told["data"].get("left_out"):
        lines += [f"left out   {describe_left_out(left)}"]
    lines += [f"protocol   {told['protocol']['name']}, sha256 {told['protocol']['sha256']}"]
    for key in ("adapter", "versions"):
        lines += [f"{key:10} {name} {value}" for name, value in sorted(told.get(key, {}).items())]
    lines += [f"{key:10} {told[key]}" for key in ("seed", "precision", "device")]
    return "\n".join(lines) + "\n"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Text columns, each as wide as its widest cell."""
    if not rows:
        return ["none"]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
