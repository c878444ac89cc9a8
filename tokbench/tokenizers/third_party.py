"""Loading of authors' own checkpoints: their code must be installed by the user, and their weights are read without
executing anything that a file may contain.

A variant of an adapter folder declares with a table in its TOML that it wraps such a checkpoint:

[official]
repository = "owner/name"        # on GitHub
commit = "0123456"               # the commit that the wrapper was written for
pip = "einops omegaconf"         # what the code imports besides torch; or git+https://..., if it is a package

Its weights are listed as `[[weights.<key>]]`. Few authors publish hashes: `sha256 = ""` accepts any file of that name,
and the result records the hash of the file that was used.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from tokbench.errors import MissingWeights
from tokbench.io.hashing import code_of
from tokbench.tokenizers.config import AdapterConfig
from tokbench.weights.registry import LocalWeights, WeightFile


def import_upstream(variant: AdapterConfig, module: str) -> ModuleType:
    """Import a module of the authors' code. The result records a hash over the Python files of its top-level package.

    Raises MissingWeights if the module, or something that it imports, is not on the Python path.
    """
    try:
        with silent():
            imported = importlib.import_module(module)
    except ImportError as error:
        raise _no_code(variant, module, error) from error
    assert imported.__file__ is not None
    file, top = Path(imported.__file__), module.partition(".")[0]
    if file.name == "__init__.py":
        file = file.parent
    folder = [file, *file.parents][module.count(".")]
    inside = WeightFile(f"{variant.config['official']['repository']}: {top}/**/*.py", "", "")
    variant.found[top] = LocalWeights(folder, inside, code_of(folder))
    variant.imported.add(module)
    return imported


def _no_code(variant: AdapterConfig, module: str, error: ImportError) -> MissingWeights:
    given, top = variant.config["official"], module.partition(".")[0]
    if error.name is None or not f"{module}.".startswith(f"{error.name}."):
        reason = f"its import failed ({type(error).__name__}: {str(error)[:200]})"
    elif top in sys.modules:  # several repositories use package names such as `modeling`, `tokenizer` or `models`
        places = ", ".join(getattr(sys.modules[top], "__path__", ["?"]))
        reason = f"another package named '{top}' was imported from {places}; evaluate the two in separate commands"
    else:
        reason = "it is not on the Python path"
    listed = [sources[0] for sources in variant.weight_files().values()]
    files = " and ".join(f"{source.file} (from {source.get})" for source in listed)
    needs = f"{variant.name} needs the authors' code, {module} of {given['repository']} at {given['commit']}"
    clone = f"git clone https://github.com/{given['repository']}, put its folder in PYTHONPATH, and "
    return MissingWeights(
        f"{needs}: {reason}; {'' if given['pip'].startswith('git+') else clone}pip install {given['pip']}; "
        f"it also needs {files}, installed with 'tokbench weights add FILE'",
        public_reason=f"{needs}, which was not installed",
    )


tensors = AdapterConfig.tensors
load_checkpoint = AdapterConfig.load_checkpoint
"""The two methods as functions, as the official adapters call them: `tensors(variant, key)`."""


def silent() -> AbstractContextManager[Any]:
    """Return a context manager that suppresses the standard output of modules and constructors."""
    return redirect_stdout(io.StringIO())


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Set torch's global generators to `seed` and restore them afterwards, for decoders that draw from them."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
