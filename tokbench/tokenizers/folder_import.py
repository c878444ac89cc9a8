"""Imports the code of adapter folders, each as a package of its own, and again where its files changed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from tokbench.errors import AdapterError, TokbenchError
from tokbench.paths import CHECKOUT
from tokbench.tokenizers.code_identity import ADAPTER
from tokbench.tokenizers.folder_files import files_of
from tokbench.tokenizers.user_code import place_of, with_place

_LOG = logging.getLogger("tokbench")


def import_folder(folder: Path) -> ModuleType:
    """Import adapter.py (or network.py) as a package of its own, so that `from .model import Model` works and names do
    not clash."""
    file = next(
        (folder / name for name in ("adapter.py", "network.py") if (folder / name).is_file()), folder / "adapter.py"
    )
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    name = f"{ADAPTER}{folder.resolve().name.replace('-', '_').replace('.', '_')}_{digest}"
    code, sources = hashlib.sha256(), sorted(folder.rglob("*.py"))
    for path in sources:
        code.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    content = Folder(code, files_of(folder))
    loaded = sys.modules.get(name)
    if loaded is not None:
        imported = _IMPORTED.setdefault(loaded, content)
        if (imported.code.digest(), imported.files) == (code.digest(), content.files):
            return loaded
        _forget(name, sources)
    elif not folder.resolve().is_relative_to(CHECKOUT / "adapters"):
        _LOG.warning(
            "%s is third-party code and runs with your permissions; read it if you do not trust its author",
            file,
        )
    module = import_file(name, file, folder)
    _IMPORTED[module] = content
    return module


class Folder(NamedTuple):
    """The sha256 over the Python files of an adapter folder, and the hashes of its other files that affect what it
    computes."""

    code: Any
    files: dict[str, str]


_IMPORTED: WeakKeyDictionary[ModuleType, Folder] = WeakKeyDictionary()
"""The content of each adapter folder at the time of its import."""


def imported_folder(module: ModuleType) -> Folder:
    """Return the content of the adapter folder that a module belongs to, at the time of its import."""
    return _IMPORTED[sys.modules[module.__name__.partition(".")[0]]]


def _forget(package: str, sources: Sequence[Path]) -> None:
    """Make the next import of a package read its files again."""
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]:
        del sys.modules[name]
    for path in sources:  # Python compares only the size and the time, in seconds, of a file's last change
        with contextlib.suppress(OSError):
            Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
    importlib.invalidate_caches()


def import_file(name: str, file: Path, package: Path | None = None) -> ModuleType:
    """Import a file under a name, once. package: the folder of its submodules. Raises AdapterError if the import
    fails."""
    if name in sys.modules:
        return sys.modules[name]
    places = None if package is None else [str(package)]
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=places)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if isinstance(error, TokbenchError) and type(error) is not AdapterError:
            raise
        folders = [package or file.parent]
        text = f"{file} cannot be imported ({type(error).__name__}: {error})"
        text = str(error) if isinstance(error, AdapterError) else text
        raise AdapterError(with_place(text, error, folders), place_of(error, folders)) from error
    return module
