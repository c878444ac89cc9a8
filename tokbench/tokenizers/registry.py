"""Find and load plug-ins: adapter folders, adapters in installed packages, and builtin adapters."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import json
import logging
import sys
import tomllib
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from tokbench.data.reading import DEFAULTS, ReadOptions
from tokbench.errors import AdapterError, NoAdapter, TokbenchError, UsageError
from tokbench.paths import CHECKOUT, find_root, slug
from tokbench.tokenizers.code_identity import ADAPTER, CodeIdentity, identify
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.folder_files import files_of

if TYPE_CHECKING:
    from tokbench.tokenizers.base import ImageModel


_LOG = logging.getLogger("tokbench")

T = TypeVar("T")

BUILTIN = {
    "identity": "identity",
    "resize": "resize",
    "jpeg": "codecs",
    "webp": "codecs",
    "avif": "codecs",
}
"""Builtin families and the module of `tokbench.tokenizers.builtin` that creates them; `resize.2` is family.argument."""

PATH_LIKE = {"images": "images", "diffusers": "diffusers", "torchscript": "torchscript"}
"""Builtin families whose argument, after a colon, is a path or hub id."""

BUILTIN_SUMMARIES = {
    "identity": "the raw image itself: the ceiling of every metric",
    "resize.<factor>": "area down, bicubic up: the baseline for a tokenizer with a latent of this size",
    "jpeg.q<quality>": "JPEG, q0 to q100; bits are those of the file",
    "webp.q<quality>": "WebP, q0 to q100",
    "avif.q<quality>": "AVIF, q0 to q100",
    "images:<dir>": "reconstructions computed by another program, paired by path",
    "diffusers:<dir or id>": "AutoencoderKL, VQModel, AutoencoderTiny or AutoencoderDC",
    "torchscript:<dir>": "encoder.jit and decoder.jit, as NVIDIA ships Cosmos",
}
"""The descriptions of the builtin adapters in `tokbench list adapters`."""


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter that is ready to run.

    name: its key in results. source: the argument that selected it. model: the model. weights: file -> sha256.
    """

    name: str
    source: str
    model: ImageModel
    weights: dict[str, str]
    code: str | None = None
    """The sha256 of an adapter folder's Python files, at the time of their import, and of the variant's TOML."""
    used: CodeIdentity | None = None
    """The code outside that folder. None where it was not determined; a result then names the code of the model's
    classes."""
    unused: dict[str, int] = field(default_factory=dict)
    """The number of tensors in its weight files that are in no network, by declared prefix or by file."""
    in_part: dict[str, Any] = field(default_factory=dict)
    """What calls of `load_state_dict` left out (`tokbench.weights.partial_loads`); empty where all weights fitted."""
    folders: tuple[Path, ...] = ()
    """The adapter folders that it consists of: its own, and those of the adapters that it is built on."""
    files: dict[str, str] = field(default_factory=dict)
    """The sha256 of the files in those folders that are not Python files but affect what it computes, at the time of
    the import."""
    resumable: bool = True
    """Whether an evaluation may continue from an earlier checkpoint. False for an object of this process: it can have
    changed in ways that no hash of its parameters shows."""


def adapter_files(root: Path | None = None) -> dict[str, Path]:
    """Return the variant files of all adapter folders by full name, including those of installed packages.

    `adapters/taef2/default.toml` is `taef2`, `adapters/toy/p8.toml` is `toy.p8`. root: the project folder, or None to
    search for it.
    """
    project = find_root(root)
    folders = [path.parent for path in sorted(project.glob("adapters/*/adapter.py"))] if project else []
    for point in entry_points(group="tokbench.adapters"):
        try:
            spec = importlib.util.find_spec(point.value)
        except (ImportError, ValueError):
            spec = None
        if spec is not None and spec.submodule_search_locations:  # a broken package must not hide the others
            folders.append(Path(spec.submodule_search_locations[0]))
    return {name: toml for folder in folders for name, toml in _variants(folder).items()}


def _variants(folder: Path) -> dict[str, Path]:
    family = folder.resolve().name
    return {
        family if toml.stem == "default" else f"{family}.{toml.stem}": toml for toml in sorted(folder.glob("*.toml"))
    }


def load_adapter(
    asked: str,
    device: str = "cpu",
    root: Path | None = None,
    allow_download: bool = False,
    reading: ReadOptions = DEFAULTS,
) -> LoadedAdapter:
    """Return the adapter that a command-line argument names.

    reading: for `images:PATH`, how the reconstructions are found and paired with the images.

    A folder whose files changed since this process imported them is imported again. Other modules are not imported
    again: their earlier code keeps running, the hashes in results identify that code, and a warning is logged. Raises
    NoAdapter where no adapter has this name, AdapterError (or MissingWeights) where it cannot be loaded.
    """
    loaded = _load(asked, device, root, allow_download, reading)
    if (parts := _PARTS.get()) is not None:
        parts.append(loaded)
    return loaded


_PARTS: ContextVar[list[LoadedAdapter] | None] = ContextVar("parts", default=None)
"""The adapters that were loaded by the adapter that is being loaded."""


def _load(asked: str, device: str, root: Path | None, allow_download: bool, reading: ReadOptions) -> LoadedAdapter:
    family, _, argument = asked.partition(":")
    if family in PATH_LIKE and argument:
        module = importlib.import_module(f"tokbench.tokenizers.builtin.{PATH_LIKE[family]}")
        how = (reading,) if family == "images" else ()
        model = wrap_load_errors(asked, lambda: module.load(argument, device, allow_download, *how))
        return LoadedAdapter(f"{family}.{_path_slug(argument)}", asked, model, {}, used=identify(model=model))
    files = adapter_files(root)
    if asked in files:
        return _load_variant(asked, asked, files[asked], device, allow_download)
    family, _, argument = asked.partition(".")
    if family in BUILTIN and bool(argument) != (family == "identity"):
        module = importlib.import_module(f"tokbench.tokenizers.builtin.{BUILTIN[family]}")
        return LoadedAdapter(asked, asked, module.load(asked), {}, used=CodeIdentity())
    if Path(asked).exists():
        name, toml = _at_path(Path(asked))
        return _load_variant(name, asked, toml, device, allow_download)
    near = difflib.get_close_matches(asked, [*files, *BUILTIN], 1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise NoAdapter(f"no adapter '{asked}'; {hint}run 'tokbench list adapters' to see them")


def load_adapters(
    asked: Sequence[str],
    device: str = "cpu",
    root: Path | None = None,
    allow_download: bool = False,
    reading: ReadOptions = DEFAULTS,
) -> tuple[list[LoadedAdapter], dict[str, str]]:
    """Return the adapters that a command names, and the reasons for those that cannot be loaded, by name.

    Raises UsageError where no adapter has a given name, or where two would write the same result.
    """
    loaded, failed = [], {}
    for name in dict.fromkeys(asked):
        try:
            loaded.append(load_adapter(name, device, root, allow_download, reading))
        except UsageError:
            raise
        except TokbenchError as error:
            failed[name] = str(error)
    names = [adapter.name for adapter in loaded]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two adapters are named {', '.join(sorted(twice))} and would share a result; rename a folder")
    return loaded, failed


def _at_path(path: Path) -> tuple[str, Path]:
    folder = path if path.is_dir() else path.parent
    if not (folder / "adapter.py").is_file():
        raise NoAdapter(f"{path} is not an adapter folder: it has no adapter.py (copy adapters/toy to start one)")
    variants = _variants(folder)
    if path.is_file():
        variants = {name: toml for name, toml in variants.items() if toml.resolve() == path.resolve()}
    if len(variants) != 1:
        listed = ", ".join(str(toml) for toml in variants.values()) or "none"
        raise NoAdapter(f"{path} has not one but {len(variants)} variant files ({listed}); name one of them")
    return next(iter(variants.items()))


def network_files(root: Path | None = None) -> dict[str, Path]:
    """Return the variant files, by full name, of folders with a network.py: networks for training adapters, not
    tokenizers."""
    project = find_root(root)
    folders = [path.parent for path in sorted(project.glob("adapters/*/network.py"))] if project else []
    return {name: toml for folder in folders for name, toml in _variants(folder).items()}


def read_variant(toml: Path) -> dict[str, Any]:
    """Return the content of a variant file. Raises AdapterError where it cannot be read."""
    try:
        return tomllib.loads(toml.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise AdapterError(f"{toml} cannot be read ({error})") from error


def open_variant(name: str, toml: Path, allow_download: bool = False) -> tuple[AdapterConfig, ModuleType]:
    """Return the configuration of a variant and the code of its folder.

    The code is adapter.py (or network.py), or another file in the folder that the TOML names as `code`, without the
    suffix. Raises AdapterError where the configuration or the code cannot be read.
    """
    config, module = read_variant(toml), _import_folder(toml.parent)
    if part := config.get("code"):
        if not isinstance(part, str) or not part.isidentifier() or not (toml.parent / f"{part}.py").is_file():
            raise AdapterError(f"{toml}: code = {part!r} names no Python file in the same folder")
        module = _import(f"{module.__name__}.{part}", toml.parent / f"{part}.py")
    return AdapterConfig(name, toml.parent, config, allow_download), module


def _load_variant(name: str, asked: str, toml: Path, device: str, allow_download: bool) -> LoadedAdapter:
    from tokbench.weights.partial_loads import describe_left_out, observed

    before, parts = set(sys.modules), list[LoadedAdapter]()
    token = _PARTS.set(parts)
    try:
        variant, module = open_variant(name, toml, allow_download)
        if not hasattr(module, "load"):
            raise AdapterError(f"{module.__file__} has no function load(variant, device)")
        identity = identify([module.__name__], covered=[toml.parent])  # hashed first, since a load may take minutes
        with observed(identity.packages) as loading:
            model = wrap_load_errors(name, lambda: module.load(variant, device))
    finally:
        _PARTS.reset(token)
    if model.spec.name != name:
        raise AdapterError(f"{module.__file__}: the spec has the name '{model.spec.name}', not '{name}'")
    imported = imported_folder(module)
    code = imported.code.copy()
    code.update(toml.relative_to(toml.parent).as_posix().encode() + toml.read_bytes())
    for base, base_digest in sorted(variant.built_on.items()):
        code.update(f"{base} {base_digest}".encode())
    weights = {found.source.file: found.sha256 for found in variant.found.values()}
    if in_part := loading.left_out():
        _LOG.warning("%s: its weights fit only in part, which its results record: %s", name, describe_left_out(in_part))
    folders = (toml.parent, *(folder for part in parts for folder in part.folders))
    used = _used(variant, module, model, sys.modules.keys() - before, parts, folders)
    if used.changed:
        _LOG.warning(
            "%s: %s changed after this process had imported it; the code before the change keeps running, and results "
            "identify that code; start a new process to measure the change",
            name,
            ", ".join(used.changed),
        )
    files = {f"adapters/{part.name}/{file}": digest for part in parts for file, digest in part.files.items()}
    unused, files = variant.unused_tensors(), imported.files | files
    return LoadedAdapter(name, asked, model, weights, code.hexdigest(), used, unused, in_part, folders, files)


def _used(
    variant: AdapterConfig,
    module: ModuleType,
    model: ImageModel,
    appeared: set[str],
    parts: Sequence[LoadedAdapter],
    folders: Sequence[Path],
) -> CodeIdentity:
    """Return the code outside an adapter's folder: what it imports itself, and what the adapters that it is built on
    need."""
    found = identify([module.__name__, *variant.imported], model, appeared, folders)
    modules, packages = dict(found.modules), dict(found.packages)
    for part in parts:
        if part.used is not None:
            modules, packages = part.used.modules | modules, part.used.packages | packages
        if part.code and part.name not in variant.built_on:
            modules[f"adapters/{part.name}"] = part.code
    return CodeIdentity(dict(sorted(modules.items())), dict(sorted(packages.items())), found.changed)


def wrap_load_errors(name: str, load: Callable[[], T]) -> T:
    """Return the result of `load`. Any exception of third-party code becomes an AdapterError."""
    try:
        return load()
    except TokbenchError:
        raise
    except Exception as error:
        raise AdapterError(f"{name} failed to load ({type(error).__name__}: {str(error)[:300]})") from error


def _import_folder(folder: Path) -> ModuleType:
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
    module = _import(name, file, folder)
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


def _import(name: str, file: Path, package: Path | None = None) -> ModuleType:
    """Import a file under a name, once. package: the folder of its submodules. Raises AdapterError where the import
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
    except Exception as error:
        del sys.modules[name]
        if isinstance(error, TokbenchError):
            raise
        raise AdapterError(f"{file} cannot be imported ({type(error).__name__}: {error})") from error
    return module


def _path_slug(argument: str) -> str:
    """Return a folder name for a path-like adapter: the last part of the argument, and a digest where a path was
    shortened."""
    typed = argument.rstrip("/")
    if Path(typed).exists():
        digest = hashlib.sha256(typed.encode()).hexdigest()[:6]
        return f"{slug(Path(typed).resolve().name)}-{digest}"
    return slug(typed.replace("/", "--"))


def identity_of(adapter: LoadedAdapter) -> str:
    """Return a hash over everything that determines what an adapter computes, except the parameters of its networks."""
    used = adapter.used or CodeIdentity()
    facts = [adapter.code, adapter.weights, used.modules, used.packages, adapter.files, adapter.model.config]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
