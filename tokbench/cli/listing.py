"""Text listings of adapters, datasets, metrics, protocols, weights and single results. Imports no torch."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tokbench.errors import AdapterError, TokbenchError, UsageError, did_you_mean
from tokbench.extractors.specs import EXTRACTORS
from tokbench.io.counts import count_of
from tokbench.io.left_out import describe_left_out
from tokbench.metric_names import EVERY_MODALITY, ITEMS, METRICS, defaults, groups
from tokbench.paths import dataset_folders
from tokbench.protocol.protocol import load_protocol, protocols
from tokbench.results.columns import column_of
from tokbench.results.items import describe_size, noun_of
from tokbench.results.result import Result
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.registry import BUILTIN_SUMMARIES, adapter_files, read_variant
from tokbench.tokenizers.taxonomy import taxonomy_of
from tokbench.weights.registry import KNOWN_WEIGHTS, WeightFile, is_present, locate, search_dirs
from tokbench.weights.shards import shard_paths


@dataclass(frozen=True)
class _Listed:
    """An adapter in the list. trained: whether it is a network with weights on this machine. obstacle: why it cannot
    run here, or ""."""

    name: str
    summary: str
    trained: bool
    obstacle: str


def adapters(root: Path | None, family: str | None = None, trained: bool = False, every: bool = False) -> list[str]:
    """Return one line per adapter that can run here: built-in adapters first, then the variants of all folders.

    family: list only this family (`jpeg`, `kmeans`). trained: list only networks that have trained weights here. every:
    also list adapters that cannot run here, with the reason. Broken adapters are always listed.
    Raises UsageError if no adapter belongs to the family.
    """
    found = _of_family(list(_find_adapters(root)), family)
    if trained:
        found = [one for one in found if one.trained]
    shown = [one for one in found if every or not one.obstacle]
    lines = _columns([(one.name, f"{one.summary}{f' ({one.obstacle})' if one.obstacle else ''}") for one in shown])
    if hidden := len(found) - len(shown):
        lines += ["", f"{count_of(hidden, 'more adapter')} cannot run here, for lack of weights or packages: --all"]
    return lines


def adapter_details(
    root: Path | None, family: str | None = None, trained: bool = False, every: bool = False
) -> list[str]:
    """Return one line per tokenizer: its quantizer, training paradigm and domain.

    Arguments and errors are those of `adapters`. Adapters that are no tokenizers, or broken, are left out.
    """
    files, rows = adapter_files(root), [("tokenizer", "quantizer", "training", "domain")]
    for one in _of_family(list(_find_adapters(root)), family):
        try:
            name = _PLACEHOLDER.sub("", one.name)
            found = taxonomy_of(name, read_variant(files[one.name]) if one.name in files else {})
        except AdapterError:  # the list without details states what is wrong
            continue
        if found.quantizer and (every or not one.obstacle) and (one.trained or not trained):
            rows.append((one.name, found.quantizer, found.training, found.domain or "-"))
    return _columns(rows)


_PLACEHOLDER = re.compile(r"\..*<.*")
"""The argument in the name of a built-in family, as in `jpeg.q<quality>`."""


def _of_family(found: list[_Listed], family: str | None) -> list[_Listed]:
    """Return the adapters of a family, or all without one. Raises UsageError if there are none."""
    families = dict.fromkeys(re.split(r"[.:]", one.name)[0] for one in found)
    if family is not None and family not in families:
        raise UsageError(f"no family '{family}'; {did_you_mean(family, families)}there are: {', '.join(families)}")
    return [one for one in found if family is None or re.split(r"[.:]", one.name)[0] == family]


def _find_adapters(root: Path | None) -> Iterator[_Listed]:
    for name, summary in BUILTIN_SUMMARIES.items():
        lacks = name.startswith("diffusers:") and find_spec("diffusers") is None
        yield _Listed(name, summary, False, "needs pip install 'tokbench[hf]'" if lacks else "")
    for name, toml in adapter_files(root).items():
        try:
            variant = AdapterConfig(name, toml.parent, tomllib.loads(toml.read_text(encoding="utf-8")))
            files = variant.weight_files()
        except (OSError, ValueError, TokbenchError) as error:
            yield _Listed(name, f"broken: {error}", False, "")
            continue
        obstacle = ""
        if "training" in variant.config and not shard_paths(variant.file):
            obstacle = "no trained weights here"
        elif missing := [sources[0].file for sources in files.values() if not is_present(sources)]:
            obstacle = f"weights missing: {', '.join(missing)}"
        learned = "training" in variant.config or bool(files)
        yield _Listed(name, str(variant.config.get("summary", "")), learned and not obstacle, obstacle)


def datasets(root: Path | None) -> list[str]:
    """Return one line per dataset, with the availability of its images on this machine."""
    from tokbench.data.dataset_folder import describe
    from tokbench.data.dataset_folder import locate as locate_data

    found = []
    for name, folder in dataset_folders(root).items():
        try:
            described = describe(folder)
            stored = described.get("folder", name)
            if "recipe" in described:
                availability = "drawn by code"
            elif "manifest" in described:
                availability = "embedded"
            else:
                availability = "found" if locate_data(stored, described) else "not found"
            count = f"{described['count']:,}" if "count" in described else "all"
            noun, unit = ITEMS[described.get("modality", "image")]
            found.append((name, f"{count} {noun}s, {described['size']} {unit}, {availability}: {described['title']}"))
        except TokbenchError as error:
            found.append((name, f"broken: {error}"))
    return _columns(found)


def metrics(root: Path | None) -> list[str]:
    """Return one line per metric and per group; a star marks the default metrics."""
    starred = {name for modality in EVERY_MODALITY for name in defaults("reconstruct", modality)}
    rows = []
    for name, spec in METRICS.items():
        source = "" if METRICS.is_builtin(name) else f" (package {METRICS.package(name)})"
        rows.append((f"{name}{' *' if name in starred else ''}", f"{spec.summary}{source}"))
    rows += [(one.name, f"not available: {one}") for one in (*METRICS.broken, *EXTRACTORS.broken)]
    selected = [f"--metrics {name} selects {', '.join(members)}" for name, members in groups().items()]
    return [*_columns(rows), "", "* computed when --metrics is not given", *selected]


def protocol_lines(root: Path | None) -> list[str]:
    """Return one line per protocol, with its hash."""
    return _columns(
        [(name, f"{load_protocol(name).sha256[:8]}  {load_protocol(name).summary}") for name in protocols()]
    )


LISTS: dict[str, Callable[[Path | None], list[str]]] = {
    "datasets": datasets,
    "metrics": metrics,
    "protocols": protocol_lines,
}
"""The lists without filters."""


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


def weight_table(root: Path | None, only_missing: bool = False) -> tuple[list[str], list[list[str]]]:
    """Return the heading and the rows of `tokbench weights`: one row per weight file, with all that need it.

    only_missing: leave out the files that are found, and their alternatives.
    """
    known = weight_files(root)
    found = {(what, source.file): locate([source])[0] is not None for what, _, source in known}
    complete = {what for (what, _), here in found.items() if here}
    needed: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for what, users, source in known:
        here = found[what, source.file]
        if only_missing and (here or what in complete):
            continue
        state = "found" if here else f"get {source.get}" if not source.url else "--allow-download"
        names, metrics = needed.setdefault((source.file, state), ([], []))
        names.append(what)
        metrics += [] if users == "the adapter" else [users]
    rows = [[file, ", ".join(names), ", ".join(users), state] for (file, state), (names, users) in needed.items()]
    return ["file", "network or adapter", "metrics", "here, or how to get it"], rows


def weight_details(root: Path | None) -> list[str]:
    """Return the lines of `tokbench weights --details`: every weight file with its hash, location and source."""
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
        f"{result.adapter} on {result.group}: {count_of(result.num_images, noun_of(result))} of "
        f"{describe_size(provenance['data'])}",
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
    lines += [f"unreadable {noun_of(result)} {bad['name']}: {bad['reason']}" for bad in result.bad_images]
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
