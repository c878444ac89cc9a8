"""Write the site: one page with everything, a page for each family of adapters, and pictures beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
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
from tokbench.paths import slug
from tokbench.pruning.result import load_all
from tokbench.report import pruning_tables
from tokbench.report.charts import charts
from tokbench.report.page_table import Cell, PageRow, PageTable
from tokbench.report.pictures import Pictures, pictures
from tokbench.report.tables import tables
from tokbench.results.columns import column_of
from tokbench.results.leaderboard import read_all
from tokbench.results.result import Result
from tokbench.tokenizers.registry import adapter_files, read_variant

LIBRARY = "window.vegaEmbed = vegaEmbed;"
"""What the bundle of Vega, Vega-Lite and Vega-Embed, which comes in vl-convert's wheel, leaves behind on the page."""

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
    """Make the site in `out` from a results folder; the page's path. Raises ResultError where there are no results."""
    found, files = read_all(results), adapter_files(root)
    made = tables(found, files, lambda done, total: progress("tables", done, total))
    made += pruning_tables.tables(load_all(results))
    shown = pictures(found, out, root, progress) if with_pictures else Pictures()
    families = _families(files, {result.adapter.partition(".")[0] for result in found})
    data = {
        "plots": charts(made),
        "tables": [table.to_json() for table in made],
        "pictures": asdict(shown),
        "pages": {family: _page(family) for family in families},
        "published": published(files),
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style = _asset("style.css")
    page = environment.get_template("index.html.j2").render(
        style=style,
        script=_asset("page.js"),
        library=_in_script(vl_convert.javascript_bundle(LIBRARY)),
        data=_json(data),
        pictures=shown,
        families=[_listed(family, names) for family, names in families.items()],
        version=__version__,
        count=len(found),
    )  # fmt: skip
    template = environment.get_template("adapter.html.j2")
    for family in families:
        text = template.render(
            style=style,
            name=family,
            card=markupsafe.Markup(card(files, family)),
            rows=_rows(family, made),
            weights=_weights(family, found),
        )
        write_atomically(out / _page(family), text.encode())
    write_atomically(out / "index.html", page.encode())
    return out / "index.html"


def _asset(name: str) -> markupsafe.Markup:
    return markupsafe.Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _in_script(library: str) -> markupsafe.Markup:
    """A library inside of <script>: only that word's end could close it, and it stands in strings alone."""
    return markupsafe.Markup(re.sub(r"</(?=script)", r"<\\/", library, flags=re.IGNORECASE))


def _json(data: Any) -> markupsafe.Markup:
    """JSON inside of <script>, without a character that HTML could take for markup."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return markupsafe.Markup(text.replace("<", "\\u003c"))


def _families(files: dict[str, Path], measured: set[str]) -> dict[str, list[str]]:
    """Variants by family; builtin ones that were measured have a page, too."""
    found: dict[str, list[str]] = {family: [] for family in sorted(measured)}
    for name in files:
        found.setdefault(name.partition(".")[0], []).append(name)
    return dict(sorted(found.items()))


def _page(family: str) -> str:
    """Where a family's page lies. Families are called by strangers, and this is a path and an address."""
    return f"adapters/{slug(family)}.html"


def _listed(family: str, names: Sequence[str]) -> dict[str, Any]:
    variants = [name.partition(".")[2] or "default" for name in names]
    return {"name": family, "file": _page(family), "variants": variants}


def card(files: dict[str, Path], family: str) -> str:
    """A family's card as HTML. What it holds of HTML itself is shown as text; links stay where they lead to the web or
    to another card, since nothing else of the checkout is beside the page."""
    folder = next((path.parent for name, path in files.items() if name.partition(".")[0] == family), None)
    readme = folder / "README.md" if folder else None
    if readme is None or not readme.is_file():
        return markupsafe.Markup("<h1>{}</h1><p>It has no card.</p>").format(family)
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
    """By family: `[[reported]]` of its variants, each with adapter, number, value, of and source."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, path in files.items():
        try:
            told = read_variant(path).get("reported", [])
        except AdapterError:
            continue
        for one in told:
            if not {"number", "value", "of", "source"} <= one.keys() or not str(one["source"]).startswith("https://"):
                raise AdapterError(f"{path}: each [[reported]] must give number, value, of and source (https://...)")
            title = column_of(one["number"])[1].title
            found.setdefault(name.partition(".")[0], []).append(one | {"adapter": name, "number": title})
    return found


def address(table: PageTable, row: PageRow) -> str:
    """Where a row stands on the page."""
    return "#" + urlencode({"table": table.name, "row": row.adapter})


def _rows(family: str, made: Sequence[PageTable]) -> list[dict[str, str]]:
    """A family's rows in all tables, with the few numbers that the tables show first."""
    found = []
    for table in made:
        for row in table.rows:
            if row.family != family:
                continue
            told = [
                f"{column.title} {_said(cell, column.digits)}"
                for column, cell in zip(table.columns, row.values, strict=True)
                if cell and cell.value is not None and column.first
            ]
            found.append(
                {
                    "adapter": row.adapter,
                    "table": table.name,
                    "href": address(table, row),
                    "told": ", ".join(told),
                }
            )
    return found


def _said(cell: Cell, digits: int) -> str:
    none = cell.low is None or cell.high is None or cell.low == cell.high
    spread = "" if none else f" ± {(cell.high - cell.low) / 2:,.{digits}f}"  # type: ignore[operator]
    return f"{cell.value:,.{digits}f}{spread}"


def _weights(family: str, found: Sequence[Result]) -> list[dict[str, str]]:
    """The weight files that a family's results name."""
    named: dict[str, str] = {}
    for result in found:
        if result.adapter.partition(".")[0] == family:
            told = result.provenance["adapter"]
            named |= told.get("weights", {})
            if sha256 := told.get("parameters_sha256"):
                named[f"{result.adapter}, all parameters"] = sha256
    return [{"name": name, "sha256": sha256} for name, sha256 in sorted(named.items())]
