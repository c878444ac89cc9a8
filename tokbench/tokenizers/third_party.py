"""Loading of authors' own checkpoints: their code must be installed by the user, and their weights are read without
executing anything that a file may contain.

A variant of an adapter folder declares with a table in its TOML that it wraps such a checkpoint:

[official]
repository = "owner/name"        # on GitHub
commit = "0123456"               # the commit that the wrapper was written for
pip = "einops omegaconf"         # what the code imports besides torch; or git+https://..., where it is a package

Its weights are listed as `[[weights.<key>]]`. Few authors publish hashes: `sha256 = ""` accepts any file of that name,
and the result records the hash of the file that was used.
"""

from __future__ import annotations

import argparse
import importlib
import io
import pickle
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tokbench.errors import MissingWeights
from tokbench.io.hashing import code_of
from tokbench.tokenizers.config import AdapterConfig
from tokbench.weights.registry import LocalWeights, WeightFile
from tokbench.weights.state_dict import load_strict

M = TypeVar("M", bound=nn.Module)


def import_upstream(variant: AdapterConfig, module: str) -> ModuleType:
    """Import a module of the authors' code. The result records a hash over the Python files of its top-level package.

    Raises MissingWeights where the module, or something that it imports, is not on the Python path.
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


def tensors(variant: AdapterConfig, key: str, within: Sequence[str] = ()) -> tuple[dict[str, Tensor], LocalWeights]:
    """Return the tensors of the file `[[weights.<key>]]`, on the CPU, and the file.

    within: possible entries of a training checkpoint; the first one that exists holds the tensors, else the file itself
    does. Only tensors, plain containers and argparse's Namespace are unpickled. Raises MissingWeights where the file is
    not on this machine, is damaged or holds anything else.
    """
    found = variant.weights(key)
    path, get = found.path, f"replace it with the published file ({found.source.get})"
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            # Training scripts save their options with the weights; a Namespace only stores them.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        forms = [source.file for source in variant.weight_files()[key] if source.file.endswith(".safetensors")]
        convert = f"; if you trust it, convert it to {forms[0]} as the adapter's README.md describes" if forms else ""
        raise MissingWeights(
            f"{variant.name}: {path} is damaged or contains objects other than tensors, which could execute code when "
            f"they are read ({_line(error)}){convert}"
        ) from error
    except Exception as error:  # zip readers and safetensors raise many classes
        raise MissingWeights(f"{variant.name}: {path} cannot be read ({_line(error)}); {get}") from error
    if isinstance(content, Mapping):
        content = next((content[name] for name in within if isinstance(content.get(name), Mapping)), content)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        places = f", nor in its {' or '.join(within)}" if within else ""
        raise MissingWeights(f"{variant.name}: {path} holds no state dict of named tensors{places}; {get}")
    variant.unplaced[found.source.file] = {
        name: id(tensor) for name, tensor in content.items() if not name.endswith("num_batches_tracked")
    }
    return dict(content), found


def _line(error: Exception) -> str:
    """Return an error's text in one line, without the unpickler's advice to trust the file."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return f"{type(error).__name__}: {' '.join(text.split())[:120]}"


def load_checkpoint(
    variant: AdapterConfig, module: M, state: Mapping[str, Tensor], found: LocalWeights, unused: Sequence[str] = ()
) -> M:
    """Copy tensors into the authors' module, and freeze it for evaluation.

    unused: name prefixes of tensors that only training needs; the result records the number of tensors per prefix.
    Raises MissingWeights unless all other tensors agree with the module's in name, shape and kind.
    """
    selected: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        if prefix := next((start for start in unused if name.startswith(start)), None):
            variant.unused[prefix] = variant.unused.get(prefix, 0) + 1
        else:
            selected[name] = tensor
    load_strict(variant.name, module, selected, found, assign=False)
    for unplaced in variant.unplaced.values():
        names = {identity: name for name, identity in unplaced.items()}
        for name, tensor in state.items():  # adapters may have renamed or converted tensors
            unplaced.pop(names.get(id(tensor), name), None)
    return module


def silent() -> AbstractContextManager[Any]:
    """Return a context manager that suppresses the standard output of modules and constructors."""
    return redirect_stdout(io.StringIO())


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Set torch's global generators to `seed` and restore them afterwards, for decoders that draw from them."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
