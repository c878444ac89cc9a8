"""Authors' own checkpoints: their code where users have it, their weights read without running what a file may hold.

A variant of an adapter folder says with a table in its TOML that it wraps one:

    [official]
    repository = "owner/name"        # on GitHub
    commit = "0123456"               # the one that the wrapper was written against
    pip = "einops omegaconf"         # what its code imports beside torch; or git+https://..., where it is a package

Its weights are listed as `[[weights.<key>]]`. Few authors publish hashes: `sha256 = ""` takes any file of that name,
and the result says which it was.
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
    """A module of the authors' code; the result records a hash over the Python files of its top-level package.

    Raises MissingWeights where it is not on the Python path, or something that it imports is not.
    """
    try:
        with silent():
            found = importlib.import_module(module)
    except ImportError as error:
        raise _no_code(variant, module, error) from error
    assert found.__file__ is not None
    file, top = Path(found.__file__), module.partition(".")[0]
    if file.name == "__init__.py":
        file = file.parent
    folder = [file, *file.parents][module.count(".")]
    inside = WeightFile(f"{variant.config['official']['repository']}: {top}/**/*.py", "", "")
    variant.found[top] = LocalWeights(folder, inside, code_of(folder))
    variant.imported.add(module)
    return found


def _no_code(variant: AdapterConfig, module: str, error: ImportError) -> MissingWeights:
    given, top = variant.config["official"], module.partition(".")[0]
    if error.name is None or not f"{module}.".startswith(f"{error.name}."):
        reason = f"its import failed ({type(error).__name__}: {str(error)[:200]})"
    elif top in sys.modules:  # `modeling`, `tokenizer`, `models`: several repositories call their packages so
        places = ", ".join(getattr(sys.modules[top], "__path__", ["?"]))
        reason = f"the package '{top}' in {places} is another one; give each of the two a run of its own"
    else:
        reason = "it is not on the Python path"
    listed = [sources[0] for sources in variant.weight_files().values()]
    files = " and ".join(f"{source.file} (from {source.get})" for source in listed)
    needs = f"{variant.name} needs the authors' code, {module} of {given['repository']} at {given['commit']}"
    clone = f"git clone https://github.com/{given['repository']}, put its folder in PYTHONPATH, and "
    return MissingWeights(
        f"{needs}: {reason}; {'' if given['pip'].startswith('git+') else clone}pip install {given['pip']}; "
        f"it needs {files}, too, put in place with 'tokbench weights add FILE'",
        public_reason=f"{needs}, which was not there",
    )


def tensors(variant: AdapterConfig, key: str, within: Sequence[str] = ()) -> tuple[dict[str, Tensor], LocalWeights]:
    """The tensors of the file `[[weights.<key>]]`, on the CPU, and the file.

    within: entries of a training checkpoint, of which the first that is there holds them; without any the file does.
    Nothing is unpickled but tensors, plain containers and argparse's Namespace. Raises MissingWeights where the file is
    not here, is damaged or holds anything else.
    """
    found = variant.weights(key)
    path, get = found.path, f"replace it by the published file ({found.source.get})"
    try:
        if path.suffix == ".safetensors":
            held: Any = load_file(path)
        else:
            # Training scripts save their options beside the weights; a Namespace does nothing but hold them.
            with torch.serialization.safe_globals([argparse.Namespace]):
                held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        forms = [source.file for source in variant.weight_files()[key] if source.file.endswith(".safetensors")]
        convert = f"; if you trust it, convert it once to {forms[0]}, as the adapter's README.md says" if forms else ""
        raise MissingWeights(
            f"{variant.name}: {path} holds more than tensors, which could run any code when it is read, or is damaged "
            f"({_line(error)}){convert}"
        ) from error
    except Exception as error:  # zip readers and safetensors raise many classes
        raise MissingWeights(f"{variant.name}: {path} cannot be read ({_line(error)}); {get}") from error
    if isinstance(held, Mapping):
        held = next((held[name] for name in within if isinstance(held.get(name), Mapping)), held)
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        places = f", nor in its {' or '.join(within)}" if within else ""
        raise MissingWeights(f"{variant.name}: {path} holds no state dict of named tensors{places}; {get}")
    variant.unplaced[found.source.file] = {
        name: id(tensor) for name, tensor in held.items() if not name.endswith("num_batches_tracked")
    }
    return dict(held), found


def _line(error: Exception) -> str:
    """What an error says, in a line: an unpickler's advice to trust the file is left out."""
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return f"{type(error).__name__}: {' '.join(text.split())[:120]}"


def load_checkpoint(
    variant: AdapterConfig, module: M, state: Mapping[str, Tensor], found: LocalWeights, unused: Sequence[str] = ()
) -> M:
    """Copy tensors into the authors' module, and freeze it for evaluation.

    unused: beginnings of the names of tensors that only training needs; the result records how many there are of each.
    Raises MissingWeights unless all others agree with the module's in name, shape and kind.
    """
    kept: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        if beginning := next((start for start in unused if name.startswith(start)), None):
            variant.unused[beginning] = variant.unused.get(beginning, 0) + 1
        else:
            kept[name] = tensor
    load_strict(variant.name, module, kept, found, assign=False)
    for waiting in variant.unplaced.values():
        names = {identity: name for name, identity in waiting.items()}
        for name, tensor in state.items():  # adapters rename tensors, or convert them
            waiting.pop(names.get(id(tensor), name), None)
    return module


def silent() -> AbstractContextManager[Any]:
    """Around modules and constructors that print what they build."""
    return redirect_stdout(io.StringIO())


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's global generators at `seed`, and as they were afterwards: for decoders that draw from them."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
