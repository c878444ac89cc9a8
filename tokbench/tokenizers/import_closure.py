"""The hash of those files of a package that some modules import, directly or indirectly.

Files are parsed, and no module is imported.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tokbench.io.hashing import code_of
from tokbench.tokenizers.imports import imported_names
from tokbench.tokenizers.installed import is_installed, is_standard, is_tokbench


def code_of_imports(modules: Iterable[str], package: str) -> str:
    """Return the SHA-256 of the modules of `package` that `modules` import, directly or indirectly, in hexadecimal.

    modules: names of imported modules; those of `package` count themselves. package: for example "tokbench.nn".
    Imports are followed through tokbench and through all code that is not installed, into functions too, but not
    through `tokbench.training`, which imports parts of `tokbench.nn` that an adapter need not use. The hash depends on
    the names and contents of the modules, but not on the folder that contains them.
    """
    found = _reached(modules)
    digest = hashlib.sha256()
    for name in sorted(name for name in found if f"{name}.".startswith(f"{package}.")):
        digest.update(f"{name} {code_of(found[name].file)}\n".encode())
    return digest.hexdigest()


class _Module(NamedTuple):
    file: Path
    is_package: bool


def _reached(modules: Iterable[str]) -> dict[str, _Module]:
    """Return `modules` and all modules that they import, except modules of Python and of installed packages."""
    pending, seen = list(modules), set[str]()
    reached: dict[str, _Module] = {}
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        module = _locate(name)
        if module is None or name.startswith("tokbench.training") or not _is_followed(str(module.file)):
            continue
        reached[name] = module
        imports = imported_names(name, module.is_package, str(module.file))
        pending += imports.at_once | imports.later
        if parent := name.rpartition(".")[0]:
            pending.append(parent)  # importing a module also runs the packages that contain it
    return reached


def _is_followed(file: str) -> bool:
    return is_tokbench(file) or not (is_standard(file) or is_installed(file))


def _locate(name: str) -> _Module | None:
    """Return the file of an imported module, or of a module in an imported package; None if there is none."""
    top, *rest = name.split(".")
    loaded = sys.modules.get(top)
    if loaded is None:
        return None
    file = getattr(loaded, "__file__", None)
    if not rest:
        return _Module(Path(file), hasattr(loaded, "__path__")) if file else None
    for folder in getattr(loaded, "__path__", ()):
        below = Path(folder, *rest)
        if (below / "__init__.py").is_file():
            return _Module(below / "__init__.py", True)
        if below.with_name(f"{below.name}.py").is_file():
            return _Module(below.with_name(f"{below.name}.py"), False)
    return None
