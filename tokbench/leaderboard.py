"""Results to sorted CSV and Markdown; the one mapping from JSON fields to column names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tokbench.against import against
from tokbench.cells import CAVEAT, EXTENSIONS, of_one, plain
from tokbench.errors import NoResults
from tokbench.halves import INFINITY
from tokbench.pruning.facts import PREFIX as PRUNED
from tokbench.result import Result, load, settings
from tokbench.source import describe_left_out


@dataclass(frozen=True)
class Column:
    """A number's name in JSON, its title in tables, its digits there, and whether more is better (None: neither)."""

    field: str
    title: str
    digits: int
    more: bool | None = None

    @property
    def arrow(self) -> str:
        return "" if self.more is None else " ↑" if self.more else " ↓"


_READERS = {
    "": "",
    "_easyocr": " EasyOCR",
    "_parseq": " PARSeq",
    "_insightface": " antelopev2",
    "_buffalo_l": " buffalo_l",
}
"""What ends the numbers of words and faces that another reader than the default one has read."""

MARKED = (
    Column("t_acc", "T-ACC", 4, True),
    Column("t_ned", "T-NED", 4, True),
    Column("cer", "CER", 4, False),
    Column("f_sim", "F-Sim", 4, True),
    Column("f_distance", "face distance", 4, False),
    Column("f_detected", "faces found", 4, True),
    Column("f_rank1", "rank-1 identity", 4, True),
)
_VERSIONS = {"": "", "_ceiling": " ceiling", "_ratio": " / ceiling"}
_SPANS = {"": "", "_all": " (all)", "_curve": ""}


def marked() -> Iterator[Column]:
    """The columns of words and faces, by every reader, with their ceilings and ratios to them."""
    for reader, said in _READERS.items():
        for one in MARKED:
            for version, name in _VERSIONS.items():
                for span, of in _SPANS.items():
                    yield Column(f"{one.field}{version}{span}{reader}", f"{one.title}{said}{name}{of}", 4, one.more)
        yield Column(f"words{reader}", f"words{said}", 0)
        yield Column(f"words_filtered{reader}", f"words filtered{said}", 0)
        yield Column(f"faces{reader}", f"faces{said}", 0)


_IMAGES = (
    Column("psnr", "PSNR", 2, True),
    Column("exact", "exact images", 0, True),
    Column("ssim", "SSIM", 4, True),
    Column("ms_ssim", "MS-SSIM", 4, True),
    Column("lpips", "LPIPS", 4, False),
    Column("lpips_vgg", "LPIPS-VGG", 4, False),
    Column("rfid", "rFID", 3, False),
    Column("rfid_768", "rFID-768", 4, False),
    Column("rfid_192", "rFID-192", 4, False),
    Column("rfid_64", "rFID-64", 4, False),
    Column("sfid", "sFID", 3, False),
    Column("fd_efficientnet", "FD-EfficientNet", 3, False),
    Column("kid", "KID", 6, False),
    Column("kid_768", "KID-768", 6, False),
)


def perturbed() -> Iterator[Column]:
    """The columns of perturbed tokens: `pfid_768` is pFID-768, `nfid` (noise on continuous latents) nFID."""
    for kind in EXTENSIONS.values():
        for one in _IMAGES:
            if name := kind.name(one.field):
                said = one.title.removeprefix("r").replace("FD-", "FID-")
                yield Column(name, f"{kind.letter}{said}{kind.title}", one.digits, one.more)


COLUMNS = (
    Column("tokens_per_image", "tokens/image", 0),
    Column("bits_per_image", "bits/image", 0, False),
    Column("bpp", "bpp", 3, False),
    Column("compression_ratio", "compression ratio", 1, True),
    *_IMAGES,
    Column("gfid", "gFID", 3, False),
    Column("gfid_768", "gFID-768", 4, False),
    Column("gfid_192", "gFID-192", 4, False),
    Column("gfid_64", "gFID-64", 4, False),
    Column("inception_score", "IS", 2, True),
    *(
        Column(f"{one}{suffix}", f"{one}{said}", 4, True)
        for suffix, said in (("", ""), ("_768", "-768"), ("_efficientnet", " EfficientNet"))
        for one in ("precision", "recall")
    ),
    *perturbed(),
    *marked(),
    Column("codebook_usage", "codebook usage", 4, True),
    Column("perplexity", "perplexity", 1, True),
    Column("codebook_entropy", "codebook entropy", 3),
    Column("order0_bits_per_image", "order-0 bits/image", 0, False),
    Column("bpe_bits_per_image", "BPE bits/image", 0, False),
    Column("bpe_tokens_per_image", "BPE tokens/image", 1),
    Column("order0_model_bytes", "order-0 model bytes", 0),
    Column("bpe_model_bytes", "BPE model bytes", 0),
    Column("parameters", "parameters", 0),
    Column("network_evaluations", "network evaluations", 0, False),
    Column("gflops_per_image", "GFLOPs/image", 2, False),
    Column("decode_gflops_per_image", "decode GFLOPs/image", 2, False),
    Column("sample_latency_ms", "sample ms", 1, False),
    Column("decode_latency_ms", "decode ms", 1, False),
    Column("saturated_samples_per_second", "samples/s, saturated", 1, True),
    Column("saturated_decodes_per_second", "decodes/s, saturated", 1, True),
    Column("encode_images_per_second", "encode images/s", 1, True),
    Column("sample_images_per_second", "sample images/s", 1, True),
    Column("decode_images_per_second", "decode images/s", 1, True),
    Column("peak_memory_mib", "peak memory MiB", 0, False),
)

_BY_FIELD = {column.field: (rank, column) for rank, column in enumerate(COLUMNS)}


def column_of(number: str) -> tuple[int, Column]:
    """Rank and column of a number; `codebook_usage.sem` follows `codebook_usage`, `rfid_infinity` (extrapolated to
    infinitely many images) `rfid`; unknown numbers come last."""
    base, _, stream = number.partition(".")
    if (finite := base.removesuffix(INFINITY)) != base and finite in _BY_FIELD:
        rank, column = _BY_FIELD[finite]
        return rank, Column(number, f"{column.title} ∞", column.digits, column.more)
    rank, column = _BY_FIELD.get(base, (len(COLUMNS), Column(number, number, 4)))
    if stream and base in _BY_FIELD:
        column = Column(number, f"{column.title} ({stream})", column.digits, column.more)
    return rank, column


def read_all(out: Path) -> list[Result]:
    """Every result below a results folder, sorted by path. Raises ResultError for a broken one, NoResults for none."""
    found = (path for path in out.glob("*/*.json") if path.parent.name != "leaderboard")
    paths = sorted(path for path in found if not path.name.startswith(PRUNED))
    if not paths:
        raise NoResults(f"{out} holds no results; run 'tokbench eval ... --out {out}' first")
    return [result for result in map(load, paths) if result.error is None]


def groups(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results that may stand in one table, by its name: one dataset, size, N, protocol and task, the same pixels.

    Where two results share a name but saw different pixels or protocols, each set gets a table of its own.
    """
    by_name: dict[str, dict[tuple[str, str], list[Result]]] = {}
    for result in results:
        seen = result.provenance["data"]["sha256"], result.provenance["protocol"]["sha256"]
        by_name.setdefault(result.group, {}).setdefault(seen, []).append(result)
    tables = {}
    for name, sets in by_name.items():
        for (data, protocol), members in sets.items():
            tables[name if len(sets) == 1 else f"{name}.{data[:8]}.{protocol[:8]}"] = members
    return dict(sorted(tables.items()))


def by_bits(result: Result) -> tuple[float, str]:
    """The order of rows; those without a rate come last."""
    bpp = result.metrics.get("bpp", {}).get("value")
    return (float("inf") if bpp is None else bpp, result.adapter)


def _labels(results: Sequence[Result]) -> dict[tuple[int, str], str]:
    """For (row, number): a label that tells apart numbers made in different ways, empty where all rows agree."""
    labels = {}
    for number in {number for result in results for number in result.metrics}:
        made = {row: settings(result, number) for row, result in enumerate(results) if number in result.metrics}
        keys = sorted({key for told in made.values() for key in told})
        differ = [key for key in keys if len({told.get(key) for told in made.values()}) > 1]
        for row, told in made.items():
            shown = [str(told.get(key, "unknown")) for key in differ]
            labels[row, number] = ", ".join(text[:8] if len(text) == 64 else text for text in shown)
    return labels


def cells(results: Sequence[Result]) -> tuple[list[tuple[str, Column]], list[dict[tuple[str, str], dict[str, Any]]]]:
    """The columns of a table, as (label, column) in order, and for each result its entries by (label, field).

    Numbers that were made by different networks, weights or devices get columns of their own.
    """
    labels = _labels(results)
    found = {(labels[row, number], number) for row, result in enumerate(results) for number in result.metrics}
    columns = sorted(found, key=lambda item: (column_of(item[1])[0], _span(item[1]), item[1], item[0]))
    rows = [
        {(labels[row, number], number): entry for number, entry in result.metrics.items()}
        for row, result in enumerate(results)
    ]
    return [(label, column_of(number)[1]) for label, number in columns], rows


def _span(number: str) -> float:
    """The place of `t_acc.small` or `t_acc_curve.8 to 10` among its like: by size, not by name."""
    span = number.partition(".")[2]
    sizes = ("", "small", "medium", "large")
    if span in sizes:
        return sizes.index(span)
    edge = re.search(r"[\d.]+", span)
    return float(edge[0]) - span.startswith("below") if edge else 0


def frame(results: Sequence[Result]) -> pd.DataFrame:
    """One row a result, sorted by bits: values under their JSON names, intervals as `<name>_low` and `<name>_high`."""
    results = sorted(results, key=by_bits)
    columns, rows = cells(results)
    records = []
    for result, row in zip(results, rows, strict=True):
        record: dict[str, Any] = {
            "adapter": result.adapter,
            "kind": result.provenance["adapter"]["kind"],
            "num_images": result.num_images,
        }
        for label, column in columns:
            entry = row.get((label, column.field), {})
            name = f"{column.field}[{label}]" if label else column.field
            record[name] = entry.get("value")
            if any(other.get((label, column.field), {}).get("low") is not None for other in rows):
                record[f"{name}_low"], record[f"{name}_high"] = entry.get("low"), entry.get("high")
        if any(other.warnings for other in results):
            record["warnings"] = "; ".join(warning.text for warning in result.warnings)
        records.append(record)
    return pd.DataFrame.from_records(records)


def markdown(results: Sequence[Result], skip: Sequence[str] = ()) -> str:
    """A Markdown table, aligned also as plain text: one row a result, sorted by bits, without the fields in `skip`.
    Warnings of the results stand in a line below it."""
    results = sorted(results, key=by_bits)
    columns, rows = cells(results)
    columns = [
        (label, column)
        for label, column in columns
        if column.field not in skip
        and not detail(column.field)
        and any(_shown(row.get((label, column.field)), column) for row in rows)
    ]
    head = ["adapter"] + [column.title + (f" [{label}]" if label else "") + column.arrow for label, column in columns]
    body = [
        [result.adapter] + [_shown(row.get((label, column.field)), column) or "-" for label, column in columns]
        for result, row in zip(results, rows, strict=True)
    ]
    return table(head, body) + _footnote(results)


def _footnote(results: Sequence[Result]) -> str:
    """A line that lists all warnings; empty where there are none."""
    said = [f"`{result.adapter}`: {warning.text}" for result in results for warning in result.warnings]
    return f"\nWarnings: {'; '.join(said)}\n" if said else ""


def detail(number: str) -> bool:
    """Whether a number is for the CSV alone: curves over size, bins of ceilings and of ratios to them, single cells of
    a grid."""
    base, _, span = number.partition(".")
    return of_one(number) or "_curve" in base or (bool(span) and ("_ceiling" in base or "_ratio" in base))


def table(
    head: Sequence[str], body: Sequence[Sequence[str]], left: Sequence[int] = (0,), *, markup: bool = False
) -> str:
    """A Markdown table, aligned also as plain text; the columns at the positions `left` are set to the left. Cells are
    plain text, such as names of images, which may hold any character; with `markup` they are Markdown already."""
    if not markup:
        head, body = _escaped(head), [_escaped(line) for line in body]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]

    def line(texts: Sequence[str]) -> str:
        cells = zip(texts, widths, strict=True)
        return "| " + " | ".join(t.ljust(w) if i in left else t.rjust(w) for i, (t, w) in enumerate(cells)) + " |"

    rule = "|".join(":" + "-" * (w + 1) if i in left else "-" * (w + 1) + ":" for i, w in enumerate(widths))
    return "\n".join([line(head), f"|{rule}|", *map(line, body)]) + "\n"


def _escaped(texts: Sequence[str]) -> list[str]:
    """Texts that end no cell, row or code of a Markdown table: on one line, with `|`, backticks and backslashes behind
    a backslash."""
    return [re.sub(r"([\\|`])", r"\\\1", " ".join(text.splitlines())) for text in texts]


def _shown(entry: dict[str, Any] | None, column: Column) -> str:
    if entry is None:
        return ""
    if entry["value"] is None:
        return "exact" if column.field == "psnr" else ""
    if column.field == "exact" and not entry["value"]:
        return ""
    text = f"{entry['value']:,.{column.digits}f}"
    low, high = entry.get("low"), entry.get("high")
    if low is None or high is None or high == low:
        return text
    return f"{text} ± {(high - low) / 2:,.{column.digits}f}"


def write(out: Path) -> list[Path]:
    """Rebuild `leaderboard/*.csv` and `*.md` below a results folder from its facts; files of vanished tables go."""
    folder = out / "leaderboard"
    tables = groups(read_all(out))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, results in tables.items():
        csv, md = folder / f"{name}.csv", folder / f"{name}.md"
        csv.write_text(frame(results).to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="\n")
        md.write_text(f"# {name}\n\n{legend(results)}\n\n{markdown(results)}", encoding="utf-8", newline="\n")
        written += [csv, md]
    for stale in {*folder.glob("*-*.csv"), *folder.glob("*-*.md")} - set(written):
        stale.unlink()
    return written


def legend(results: Sequence[Result]) -> str:
    """What a reader of a leaderboard must know."""
    told = results[0].provenance
    numbers = {number for result in results for number in result.metrics}
    said = [context(results), "Sorted by bits."] if "bpp" in numbers else [context(results)]
    if any(map(plain, numbers)):
        said.append(CAVEAT)
    said.append("± is half of the 95 % interval over images.")
    return f"{' '.join(said)}{_fitted(results)}{_published(told)}{_left_out(results)}"


def context(results: Sequence[Result]) -> str:
    """N, size, protocol and hashes of results that belong together, and the reference where it is not their crops."""
    told = results[0].provenance
    counts = " or ".join(f"{count:,}" for count in sorted({result.num_images for result in results}))
    size = f"{told['data']['width']}x{told['data']['height']} px"
    what = f"{counts} images of {size}"
    if results[0].task.startswith("generate"):
        reference = f"{told['data']['available']:,} images of {results[0].dataset}"
        if "reference" in told:
            reference = f"the statistics file {told['reference']['file']}"
        what = f"{counts} samples of {size} against {reference}, unpaired"
    return (
        f"{what}, "
        f"protocol `{told['protocol']['name']}` ({told['protocol']['sha256'][:8]}), "
        f"pixels {told['data']['sha256'][:8]}.{against(results)}"
    )


def _fitted(results: Sequence[Result]) -> str:
    """Which images were padded or cut into tiles, since their tokenizer takes no others."""
    made: dict[str, list[str]] = {}
    for result in results:
        if note := result.provenance["adapter"].get("fitted"):
            made.setdefault(note, []).append(result.adapter)
    return "".join(f" For {', '.join(names)} images were {note}." for note, names in made.items())


def _left_out(results: Sequence[Result]) -> str:
    """Which files beside the images look like images and were not read."""
    counted = (result.provenance["data"].get("left_out") for result in results)
    return next((f" Left out: {describe_left_out(counts)}." for counts in counted if counts), "")


def _published(told: dict[str, Any]) -> str:
    """Where the protocol's authors use another size or N, that."""
    published = told["protocol"].get("published", {})
    size, count = published.get("size"), published.get("num_images")
    stated = []
    if size and size != told["data"]["width"]:
        stated.append(f"{size} px")
    if count and count != (told["data"]["limit"] or told["data"]["available"]):
        stated.append(f"N = {count:,}")
    return f" The protocol's authors use {' and '.join(stated)}." if stated else ""


def to_json(facts: Sequence[dict[str, Any]]) -> str:
    """The facts of several results as a JSON list."""
    return json.dumps(facts, indent=1, allow_nan=False)
