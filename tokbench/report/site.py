"""Writes the site: a main page, a page per family of adapters, and the pictures beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
import markdown_it
import markupsafe
import vl_convert

from tokbench._version import __version__
from tokbench.errors import AdapterError
from tokbench.io.atomic import write_atomically
from tokbench.metric_names import PRUNING_PREFIX as PRUNED
from tokbench.paths import slug
from tokbench.pruning.kind_names import KINDS
from tokbench.pruning.result import load_all
from tokbench.report import pruning_tables, values
from tokbench.report.charts import charts
from tokbench.report.page_table import Cell, PageRow, PageTable
from tokbench.report.pictures import existing, pictures
from tokbench.report.tables import FIRST, tables
from tokbench.results.columns import column_of
from tokbench.results.leaderboard import read_all
from tokbench.results.result import Result
from tokbench.tokenizers.registry import adapter_files, read_variant

LIBRARY = "window.vegaEmbed = vegaEmbed;"
"""Export of the JavaScript bundle of Vega, Vega-Lite and Vega-Embed, which vl-convert provides."""

SCRIPTS = ("core", "results", "statistics", "table", "drop", "comparison", "plots", "pictures", "start")
"""The files of the page's script in order; names without a file ending."""

_TEMPLATES = Path(__file__).parent / "templates"
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_LINK = re.compile(r'<a href="([^"]*)">(.*?)</a>', re.DOTALL)
_CARD = re.compile(r"\.\./([A-Za-z0-9_]+)/README\.md")

Progress = Callable[[str, int, int], None]


def build(
    results: Path,
    out: Path,
    root: Path | None = None,
    with_pictures: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Path:
    """Write the site of a results folder to `out`; return the main page. Raises ResultError if there are no results.

    Without `with_pictures`, the page shows the pictures that are already in `out`.
    """
    found, files = read_all(results), adapter_files(root)
    page_tables = tables(found, files, lambda done, total: progress("tables", done, total))
    page_tables = values.write(page_tables, found, out)
    for kind in KINDS:
        page_tables += pruning_tables.tables(load_all(results, kind))
    shown = pictures(found, out, root, progress) if with_pictures else existing(found, out)
    families = _families(files, {result.adapter.partition(".")[0] for result in found})
    data = {
        "plots": charts(page_tables),
        "tables": [table.to_json() for table in page_tables],
        "pictures": asdict(shown),
        "pages": {family: _page(family) for family in families},
        "published": published(files),
        "rules": values.rules(found) | {"first": FIRST, "pruned": PRUNED},
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style = _asset("style.css")
    page = environment.get_template("index.html.j2").render(
        style=style,
        script=_script(),
        library=_library(),
        data=_json(data),
        pictures=shown,
        checked=with_pictures,
        families=[_family_entry(family, names) for family, names in families.items()],
        version=__version__,
        count=len(found),
    )  # fmt: skip
    template = environment.get_template("adapter.html.j2")
    for family in families:
        text = template.render(
            style=style,
            name=family,
            card=markupsafe.Markup(card(files, family)),
            rows=_rows(family, page_tables),
            weights=_weights(family, found),
        )
        write_atomically(out / _page(family), text.encode())
    write_atomically(out / "index.html", page.encode())
    return out / "index.html"


@cache
def _library() -> markupsafe.Markup:
    """Return the JavaScript of the plots; bundling it takes over a second, and `--serve` builds the site repeatedly."""
    return _in_script(vl_convert.javascript_bundle(LIBRARY))


def _asset(name: str) -> markupsafe.Markup:
    return markupsafe.Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _script() -> markupsafe.Markup:
    """Return the script of the page. Its files share one scope, which is closed to other scripts."""
    parts = [_asset(f"{name}.js") for name in SCRIPTS]
    return markupsafe.Markup("\n".join(['"use strict";\n(() => {', *parts, "})();"]))


def _in_script(library: str) -> markupsafe.Markup:
    """Escape a library for use inside <script>; only '</script' in its strings could end the element."""
    return markupsafe.Markup(re.sub(r"</(?=script)", r"<\\/", library, flags=re.IGNORECASE))


def _json(data: Any) -> markupsafe.Markup:
    """Return JSON for use inside <script>, without characters that HTML could interpret as markup."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return markupsafe.Markup(text.replace("<", "\\u003c"))


def _families(files: dict[str, Path], measured: set[str]) -> dict[str, list[str]]:
    """Return adapter names by family, including built-in families that have results."""
    found: dict[str, list[str]] = {family: [] for family in sorted(measured)}
    for name in files:
        found.setdefault(name.partition(".")[0], []).append(name)
    return dict(sorted(found.items()))


def _page(family: str) -> str:
    """Return the path of a family's page. Family names are untrusted, so they are slugged for paths and links."""
    return f"adapters/{slug(family)}.html"


def _family_entry(family: str, names: Sequence[str]) -> dict[str, Any]:
    variants = [name.partition(".")[2] or "default" for name in names]
    return {"name": family, "file": _page(family), "variants": variants}


def card(files: dict[str, Path], family: str) -> str:
    """Return a family's card as HTML.

    HTML in the card is shown as text. Only links to the web and to other cards are kept, because the site contains no
    other files of the checkout.
    """
    folder = next((path.parent for name, path in files.items() if name.partition(".")[0] == family), None)
    readme = folder / "README.md" if folder else None
    if readme is None or not readme.is_file():
        return markupsafe.Markup("<h1>{}</h1><p>This adapter has no card.</p>").format(family)
    text = _COMMENT.sub("", readme.read_text(encoding="utf-8"))
    html: str = markdown_it.MarkdownIt("commonmark", {"html": False}).enable("table").disable("image").render(text)
    pages = {name.partition(".")[0] for name in files}

    def link(found: re.Match[str]) -> str:
        address, text = found[1], found[2]
        if (other := _CARD.fullmatch(address)) and other[1] in pages:
            address = f"{slug(other[1])}.html"
        elif not address.startswith(("https://", "http://")):
            return text
        return f'<a href="{address}">{text}</a>'

    return _LINK.sub(link, html)


def published(files: dict[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """Return the `[[reported]]` tables by family, each with adapter, number, value, of and source."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, path in files.items():
        try:
            reported = read_variant(path).get("reported", [])
        except AdapterError:
            continue
        for one in reported:
            if not {"number", "value", "of", "source"} <= one.keys() or not str(one["source"]).startswith("https://"):
                raise AdapterError(f"{path}: each [[reported]] must give number, value, of and source (https://...)")
            title = column_of(one["number"])[1].title
            found.setdefault(name.partition(".")[0], []).append(one | {"adapter": name, "number": title})
    return found


def address(table: PageTable, row: PageRow) -> str:
    """Return the link to a row of the main page."""
    return "#" + urlencode({"table": table.name, "row": row.adapter})


def _rows(family: str, tables: Sequence[PageTable]) -> list[dict[str, str]]:
    """Return a family's rows in all tables, with the values of the default columns."""
    found = []
    for table in tables:
        for row in table.rows:
            if row.family != family:
                continue
            values = [
                f"{column.title} {_value_text(cell, column.digits)}"
                for column, cell in zip(table.columns, row.values, strict=True)
                if cell and cell.value is not None and column.first
            ]
            found.append(
                {
                    "adapter": row.adapter,
                    "table": table.name,
                    "href": address(table, row),
                    "summary": ", ".join(values),
                }
            )
    return found


def _value_text(cell: Cell, digits: int) -> str:
    value, low, high = cell.value, cell.low, cell.high
    spread = "" if low is None or high is None or low == high else f" ± {(high - low) / 2:,.{digits}f}"
    return f"{value:,.{digits}f}{spread}"


def _weights(family: str, found: Sequence[Result]) -> list[dict[str, str]]:
    """Return the weight files named in a family's results, with their SHA-256."""
    named: dict[str, str] = {}
    for result in found:
        if result.adapter.partition(".")[0] == family:
            adapter = result.provenance["adapter"]
            named |= adapter.get("weights", {})
            if sha256 := adapter.get("parameters_sha256"):
                named[f"{result.adapter}, all parameters"] = sha256
    return [{"name": name, "sha256": sha256} for name, sha256 in sorted(named.items())]
