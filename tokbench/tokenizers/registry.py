"""Find and load plug-ins: adapter folders, adapters in installed packages, and builtin adapters."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
import sys
import tomllib
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from tokbench.data.reading import DEFAULTS, ReadOptions
from tokbench.errors import AdapterError, NoAdapter, TokbenchError, UsageError
from tokbench.paths import find_root
from tokbench.tokenizers.checkpoint_names import PATH_LIKE, parse_placed, refuse_taken_name, row_name
from tokbench.tokenizers.code_identity import CodeIdentity, identify
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.folder_import import import_file, import_folder
from tokbench.tokenizers.folder_import import imported_folder as imported_folder
from tokbench.tokenizers.suggestions import prefixed, suggested
from tokbench.tokenizers.taxonomy import Taxonomy, taxonomy_of
from tokbench.tokenizers.user_code import check_model, line_of_definition
from tokbench.tokenizers.user_code import wrap_load_errors as wrap_load_errors

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
    "h264": "video_codecs",
    "opus": "sound_codecs",
    "mp3": "sound_codecs",
    "pcm": "sound_codecs",
    "voxels": "shape_codecs",
    "octree": "shape_codecs",
    "jpeg2000": "codecs",
    "jxl": "codecs",
}
"""Builtin families and the module of `tokbench.tokenizers.builtin` that creates them; `resize.2` is family.argument."""

_EXAMPLES = (
    "identity",
    "resize.2",
    "jpeg.q50",
    "webp.q50",
    "avif.q50",
    "h264.q23",
    "opus.k12",
    "mp3.k16",
    "pcm.b8",
    "voxels.zlib",
    "octree.c4",
    "jpeg2000.db36",
    "jxl.q50",
    "images:DIR",
    "diffusers:PLACE",
    "torchscript:DIR",
)
"""Complete names of builtin adapters, which are suggested for an unknown name."""

BUILTIN_SUMMARIES = {
    "identity": "the raw image itself: the ceiling of every metric",
    "resize.<factor>": "area down, bicubic up: the baseline for a tokenizer with a latent of this size",
    "jpeg.q<quality>": "JPEG, q0 to q100; bits are those of the file",
    "webp.q<quality>": "WebP, q0 to q100",
    "avif.q<quality>": "AVIF, q0 to q100",
    "h264.q<quality>": "H.264 by libx264, q0 to q51, for clips",
    "opus.k<kbit/s>": "Opus at a constant bitrate, for sound",
    "mp3.k<kbit/s>": "MP3 at a constant bitrate, for sound",
    "pcm.b<bits>": "samples of 2 to 16 bits, for sound",
    "voxels.zlib": "8-bit voxels compressed by zlib, for shapes",
    "octree.c<bits>": "an octree with colours of 1 to 8 bits per channel, for shapes",
    "jpeg2000.db<PSNR>": "JPEG 2000 at a target PSNR, db10 to db60",
    "jxl.q<quality>": "JPEG XL, q0 to q100; needs pillow-jxl-plugin",
    "images:<dir>": "reconstructions computed by another program, paired by path",
    "diffusers:<dir, file or id>": "an autoencoder of the diffusers library, or a pipeline that holds one",
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
    """The code outside that folder. None if it was not determined; a result then names the code of the model's
    classes."""
    unused: dict[str, int] = field(default_factory=dict)
    """The number of tensors in its weight files that are in no network, by declared prefix or by file."""
    in_part: dict[str, Any] = field(default_factory=dict)
    """What calls of `load_state_dict` left out (`tokbench.weights.partial_loads`); empty if all weights fitted."""
    folders: tuple[Path, ...] = ()
    """The adapter folders that it consists of: its own, and those of the adapters that it is built on."""
    files: dict[str, str] = field(default_factory=dict)
    """The sha256 of the files in those folders that are not Python files but affect what it computes, at the time of
    the import."""
    parameters: str = ""
    """The sha256 of the parameters, where it was computed for the name; else a result computes it."""
    floor: bool = False
    """Whether its TOML declares it to be a floor (`floor = true`), with which trained tokenizers are compared."""
    taxonomy: Taxonomy = field(default_factory=Taxonomy)
    """Its quantizer, training paradigm and domain, from its TOML or the table of `tokbench.tokenizers.taxonomy`."""
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
    NoAdapter if no adapter has this name, AdapterError (or MissingWeights) if it cannot be loaded.
    """
    loaded = _load(asked, device, root, allow_download, reading)
    if (parts := _PARTS.get()) is not None:
        parts.append(loaded)
    return loaded


_PARTS: ContextVar[list[LoadedAdapter] | None] = ContextVar("parts", default=None)
"""The adapters that were loaded by the adapter that is being loaded."""


def _load(asked: str, device: str, root: Path | None, allow_download: bool, reading: ReadOptions) -> LoadedAdapter:
    files = adapter_files(root)
    if (placed := parse_placed(asked)) is not None:
        refuse_taken_name(placed, [*files, *BUILTIN])
        module = importlib.import_module(f"tokbench.tokenizers.builtin.{PATH_LIKE[placed.family]}")
        how = (reading,) if placed.family == "images" else ()
        model = wrap_load_errors(asked, lambda: module.load(placed.place, device, allow_download, *how))
        name, parameters = row_name(placed, model)
        return LoadedAdapter(name, asked, model, {}, used=identify(model=model), parameters=parameters)
    if asked in files:
        return _load_variant(asked, asked, files[asked], device, allow_download)
    family, _, argument = asked.partition(".")
    if family in BUILTIN and bool(argument) != (family == "identity"):
        module = importlib.import_module(f"tokbench.tokenizers.builtin.{BUILTIN[family]}")
        builtin = module.load(asked)
        return LoadedAdapter(asked, asked, builtin, {}, used=CodeIdentity(), taxonomy=taxonomy_of(asked, {}))
    if Path(asked).exists():
        name, toml = _at_path(Path(asked))
        return _load_variant(name, asked, toml, device, allow_download)
    hint = suggested(asked, [*files, *_EXAMPLES])
    raise NoAdapter(f"no adapter '{asked}'; {hint}run 'tokbench list adapters' to see them")


def load_adapters(
    asked: Sequence[str],
    device: str = "cpu",
    root: Path | None = None,
    allow_download: bool = False,
    reading: ReadOptions = DEFAULTS,
) -> tuple[list[LoadedAdapter], dict[str, str]]:
    """Return the adapters that a command names, and the reasons for those that cannot be loaded, by name.

    Raises UsageError if no adapter has a given name, or if two would write the same result.
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
        raise UsageError(
            f"two adapters are named {', '.join(sorted(twice))} and would share a result; rename a folder, or choose "
            "a name, as in NAME=diffusers:PATH"
        )
    return loaded, failed


def _at_path(path: Path) -> tuple[str, Path]:
    folder = path if path.is_dir() else path.parent
    if not (folder / "adapter.py").is_file():
        if checkpoint := prefixed(path):
            raise NoAdapter(
                f"{path} is not an adapter folder, but holds a published checkpoint; write its prefix: {checkpoint}"
            )
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
    """Return the content of a variant file. Raises AdapterError if it cannot be read."""
    try:
        return tomllib.loads(toml.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise AdapterError(f"{toml} cannot be read ({error})") from error


def open_variant(name: str, toml: Path, allow_download: bool = False) -> tuple[AdapterConfig, ModuleType]:
    """Return the configuration of a variant and the code of its folder.

    The code is adapter.py (or network.py), or another file in the folder that the TOML names as `code`, without the
    suffix. Raises AdapterError if the configuration or the code cannot be read.
    """
    config, module = read_variant(toml), import_folder(toml.parent)
    if part := config.get("code"):
        if not isinstance(part, str) or not part.isidentifier() or not (toml.parent / f"{part}.py").is_file():
            raise AdapterError(f"{toml}: code = {part!r} names no Python file in the same folder")
        module = import_file(f"{module.__name__}.{part}", toml.parent / f"{part}.py")
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
            fallback = line_of_definition(module.load)
            model = wrap_load_errors(name, lambda: module.load(variant, device), [toml.parent], fallback)
            model = wrap_load_errors(name, lambda: check_model(model, module, name), [toml.parent])
    finally:
        _PARTS.reset(token)
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
    floor = variant.config.get("floor", False)
    if not isinstance(floor, bool):
        raise AdapterError(f"{toml}: floor = {floor!r} must be true or false")
    return LoadedAdapter(
        name, asked, model, weights, code.hexdigest(), used, unused, in_part, folders, files, floor=floor,
        taxonomy=taxonomy_of(name, variant.config),
    )  # fmt: skip


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


def identity_of(adapter: LoadedAdapter) -> str:
    """Return a hash over everything that determines what an adapter computes, except the parameters of its networks."""
    used = adapter.used or CodeIdentity()
    facts = [adapter.code, adapter.weights, used.modules, used.packages, adapter.files, adapter.model.config]
    if adapter.model.recorded:
        facts.append(dict(adapter.model.recorded))
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
