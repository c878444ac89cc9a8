"""MkDocs hooks: links that leave docs/ work on the site as they do in the repository.

A page of docs/ may link to an adapter's card, a table of results or a source file by its relative path. The site gets
a copy of every such file under repository/, Markdown as a page, anything else as a file; links are rewritten to it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

COPIES = "repository"
"""The folder of the site that holds the files from outside docs/."""
LINK = re.compile(r"""(?<=\]\()(?P<inline>[^)\s]+)|(?<=src=")(?P<source>[^"]+)""")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file outside docs/ that a page links to, directly or through another added page."""
    docs = Path(config.docs_dir)
    pending = [docs.name + "/" + file.src_uri for file in files.documentation_pages()]
    while pending:
        page = pending.pop()
        for path, _ in _targets(docs.parent, page, (docs.parent / page).read_text(encoding="utf-8")):
            uri = _site_uri(path, docs.name)
            if not (docs.parent / path).is_file() or files.get_file_from_path(uri):
                continue  # a target that does not exist stays a broken link, which a strict build reports
            files.append(File.generated(config, uri, abs_src_path=str(docs.parent / path)))
            if path.endswith(".md"):
                pending.append(path)
    return files


def on_page_markdown(markdown: str, /, *, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links between pages of docs/ and files outside it."""
    docs, uri = Path(config.docs_dir), page.file.src_uri
    source = uri.removeprefix(f"{COPIES}/") if uri.startswith(f"{COPIES}/") else f"{docs.name}/{uri}"
    replaced: dict[str, str] = {}
    for path, link in _targets(docs.parent, source, markdown):
        target = _site_uri(path, docs.name)
        if files.get_file_from_path(target) and not (uri.startswith(COPIES) and target.startswith(COPIES)):
            anchor = f"#{link.partition('#')[2]}" if "#" in link else ""
            replaced[link] = os.path.relpath(target, PurePosixPath(uri).parent) + anchor
    return LINK.sub(lambda match: replaced.get(match[0], match[0]), markdown)


def _targets(root: Path, page: str, markdown: str) -> list[tuple[str, str]]:
    """The (path in the repository, link as written) of each relative link of a page; a folder stands for its card."""
    found = []
    for match in LINK.finditer(markdown):
        target = unquote(match[0].partition("#")[0])
        if not target or ":" in target or target.startswith("/"):
            continue
        path = os.path.normpath(PurePosixPath(page).parent / target)
        if (root / path).is_dir():
            path = f"{path}/README.md"
        found.append((path, match[0]))
    return found


def _site_uri(path: str, docs: str) -> str:
    return path.removeprefix(f"{docs}/") if path.startswith(f"{docs}/") else f"{COPIES}/{path}"
