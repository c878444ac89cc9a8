"""Finds the config and the weights of a diffusers autoencoder: in its own folder, in a pipeline folder, on the hub, or
in a single file. Only safetensors are read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tokbench.errors import AdapterError
from tokbench.tokenizers.builtin.diffusers_classes import CLASSES

CONFIG = "config.json"
STEM = "diffusion_pytorch_model"
SUBFOLDERS = ("", "vae", "vqvae", "movq")
"""The subfolders of a checkpoint or a whole pipeline that usually hold the autoencoder; "" is the folder itself."""

OPTIONS = ("variant", "posterior", "class", "config")
"""The options that may follow the path, as in `diffusers:PATH,variant=fp16`."""

INSTALL = "needs the diffusers library; install it with: pip install 'tokbench[hf]'"

_OPTION = re.compile(rf",({'|'.join(OPTIONS)})=([^,]*)$")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_PICKLED = ("bin", "pt", "pth", "ckpt")
_PIPELINE = "model_index.json"


@dataclass(frozen=True)
class Checkpoint:
    """The files of one autoencoder.

    folder: the folder with the config, or with the single file. file: the weights, or the index of their shards, or the
    single file. variant: the part of the file name that names a variant of the weights, such as "fp16". single: whether
    the file is the only one of its kind and its config has to be found elsewhere.
    """

    folder: Path
    file: Path
    variant: str = ""
    single: bool = False

    def weight_files(self) -> list[Path]:
        """Return the safetensors files that hold the tensors. Raises AdapterError if a shard is missing."""
        if self.file.suffix != ".json":
            return [self.file]
        try:
            shards = sorted(set(json.loads(self.file.read_bytes())["weight_map"].values()))
            paths = [self.folder / PurePosixPath(shard).name for shard in shards]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise AdapterError(f"{self.file} is not an index of shards ({type(error).__name__}: {error})") from error
        if missing := [path.name for path in paths if not path.is_file()]:
            raise AdapterError(
                f"{self.folder} lacks {len(missing)} of the {len(paths)} files that {self.file.name} lists "
                f"({', '.join(missing[:3])}); download the folder again"
            )
        return paths


def split_options(argument: str) -> tuple[str, dict[str, str]]:
    """Return the path or hub id in an argument, and the options behind it. A path that exists is never split."""
    options: dict[str, str] = {}
    while not Path(argument).expanduser().exists() and (found := _OPTION.search(argument)):
        options[found[1]], argument = found[2], argument[: found.start()]
    return argument, options


def locate(argument: str, options: Mapping[str, str], allow_download: bool) -> Checkpoint:
    """Return the files of a local folder, a safetensors file or a hub repository.

    Raises AdapterError that names the place and the remedy where there is no autoencoder or no choice among several.
    """
    path, variant = Path(argument).expanduser(), options.get("variant")
    if path.is_file():
        return _single_file(path)
    if path.is_dir():
        return _inside(_snapshot(path), variant, "point to its folder, or download it again")
    if not _HUB_ID.fullmatch(argument):
        known = f"; the options are {', '.join(f'{name}=' for name in OPTIONS)}" if "," in argument else ""
        raise AdapterError(
            f"no folder or file '{argument}'; give a folder, a .safetensors file, or a hub id such as "
            f"stabilityai/sd-vae-ft-mse{known}"
        )
    remedy = f"get it with 'hf download {argument}', or allow the download with --allow-download"
    found = _from_hub(argument, variant, allow_download, remedy)
    return _inside(found, variant, "its repository does not publish it in this form" if allow_download else remedy)


def _single_file(path: Path) -> Checkpoint:
    if path.suffix.lstrip(".") in _PICKLED:
        raise AdapterError(
            f"{path} is pickled, and reading it can execute any code; provide a safetensors file, or, if you trust the "
            f"author, convert it once: {_CONVERT_FILE.format(path=path)}"
        )
    if path.suffix != ".safetensors":
        raise AdapterError(f"{path} is not a .safetensors file; give one, or the folder of a diffusers autoencoder")
    if (path.parent / CONFIG).is_file() and path.name.startswith(f"{STEM}."):
        return _chosen(path.parent, path)
    return Checkpoint(path.parent, path, single=True)


_CONVERT_FILE = (
    "python -c \"import torch, safetensors.torch as s; d = torch.load('{path}', weights_only=True); "
    "s.save_file({{k: v.contiguous() for k, v in d.get('state_dict', d).items() if hasattr(v, 'numel')}}, "
    "'model.safetensors')\""
)


def _snapshot(folder: Path) -> Path:
    """Return the current snapshot where the folder is a repository in the hub's cache, else the folder itself."""
    refs, snapshots = folder / "refs" / "main", folder / "snapshots"
    if refs.is_file() and (snapshot := snapshots / refs.read_text(encoding="utf-8").strip()).is_dir():
        return snapshot
    return folder


def _from_hub(argument: str, variant: str | None, allow_download: bool, remedy: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError as error:
        raise AdapterError(f"diffusers:{argument} {INSTALL}") from error
    # All variants are wanted only where one was asked for: repositories often hold the same weights twice.
    kinds: tuple[str, ...] = (f"{STEM}.safetensors", f"{STEM}-*.safetensors", f"{STEM}.safetensors.index.json")
    kinds = (f"{STEM}*{variant}*.safetensors", f"{STEM}*{variant}*.json") if variant else kinds
    wanted = [str(PurePosixPath(sub) / file) for sub in SUBFOLDERS for file in (CONFIG, *kinds)]
    try:
        # With `local_files_only` this returns at once; diffusers' own search retries for a minute without a network.
        found = Path(
            snapshot_download(argument, allow_patterns=[*wanted, _PIPELINE], local_files_only=not allow_download)
        )
        if allow_download and not any(found.rglob("*.safetensors")):  # it publishes variants only, or another folder
            anywhere = [f"*{STEM}*.safetensors*", f"*{CONFIG}"]
            found = Path(snapshot_download(argument, allow_patterns=anywhere))
    except LocalEntryNotFoundError as error:
        advice = f"its download failed: {line_of(error)}" if allow_download else remedy
        raise AdapterError(f"'{argument}' is neither a local folder nor in the Hugging Face cache; {advice}") from error
    except Exception as error:  # HTTP, network and cache errors have no common class
        raise AdapterError(f"'{argument}' cannot be read from the Hugging Face hub ({line_of(error)})") from error
    return found


def _inside(root: Path, variant: str | None, remedy: str) -> Checkpoint:
    """Return the autoencoder in a folder or a pipeline folder."""
    folder = _autoencoder_folder(root, remedy)
    return _chosen(folder, _weights(folder, variant, remedy))


def _autoencoder_folder(root: Path, remedy: str) -> Path:
    for sub in SUBFOLDERS:
        if (root / sub / CONFIG).is_file():
            return root / sub
    found = {name: kind for name, kind in _components(root).items() if kind in CLASSES}
    usable = [name for name, kind in found.items() if CLASSES[kind].refused is None] or list(found)
    if len(usable) == 1:
        return root / usable[0]
    if usable:
        raise AdapterError(
            f"{root} holds {len(usable)} autoencoders; name one of them: "
            f"{', '.join(f'diffusers:{root / name}' for name in usable)}"
        )
    lone = [path for path in sorted(root.glob("*.safetensors")) if not path.name.startswith(STEM)]
    if len(lone) == 1:
        raise AdapterError(
            f"{root} has no {CONFIG}; load the file by itself with diffusers:{lone[0]}, or put its {CONFIG} beside it"
        )
    searched = ", ".join(str(PurePosixPath(sub) / CONFIG) for sub in SUBFOLDERS)
    raise AdapterError(
        f"{root} is not a diffusers autoencoder or pipeline: it has none of {searched}, and no other folder with an "
        f"autoencoder; {remedy}"
    )


def _components(root: Path) -> dict[str, str]:
    """Return subfolder -> class of the parts of a pipeline, according to their configs."""
    found = {}
    for path in sorted(root.glob(f"*/{CONFIG}")):
        kind = read_json(path).get("_class_name")
        if isinstance(kind, str):
            found[path.parent.name] = kind
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty one where it cannot be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _chosen(folder: Path, file: Path) -> Checkpoint:
    return Checkpoint(folder, file, variant_of(file.name), single=not file.name.startswith(f"{STEM}."))


def variant_of(name: str) -> str:
    """Return the variant in the name of a weight file or an index, "" where it names none."""
    middle = name.removeprefix(f"{STEM}.").removesuffix(".json").removesuffix(".safetensors")
    parts = [part for part in middle.split(".") if part not in ("safetensors", "index")]
    return "" if not name.startswith(f"{STEM}.") else ".".join(parts)


def _weights(folder: Path, variant: str | None, remedy: str) -> Path:
    """Return the weight file of a folder, or the index of its shards.

    Without a choice, the plain file is preferred to its variants; where there are only variants, the only one is taken.
    """
    whole = [path for path in folder.glob(f"{STEM}.*safetensors") if path.is_file() and not _SHARD.search(path.name)]
    indexes = [path for path in folder.glob(f"{STEM}.*json") if ".index." in path.name]
    files = {variant_of(path.name): path for path in sorted(indexes) + sorted(whole)}  # a whole file is preferred
    if variant is not None:
        if variant in files:
            return files[variant]
        raise AdapterError(f"{folder} has no weights of the variant '{variant}'; it has {_listed(files)}")
    if "" in files or len(files) == 1:
        return files.get("") or next(iter(files.values()))
    if files:
        raise AdapterError(
            f"{folder} has several variants of its weights; choose one, as in "
            f"diffusers:{folder},variant={min(files)}: it has {_listed(files)}"
        )
    others = sorted(path for path in folder.glob("*.safetensors"))
    if len(others) == 1:
        return others[0]
    if others:
        raise AdapterError(
            f"{folder} has {len(others)} .safetensors files and none is named {STEM}.safetensors; name one of them: "
            f"{', '.join(f'diffusers:{path}' for path in others[:4])}"
        )
    raise _no_weights(folder, remedy)


def _listed(variants: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" if name else "plain weights" for name in sorted(variants)) or "none"


def _no_weights(folder: Path, remedy: str) -> AdapterError:
    pickled: Sequence[str] = sorted(path.name for suffix in _PICKLED for path in folder.glob(f"*.{suffix}"))
    if not pickled:
        return AdapterError(f"{folder} has no {STEM}.safetensors; {remedy}")
    return AdapterError(
        f"{folder} holds only pickled weights ({', '.join(pickled)}), which can execute any code when they are read; "
        "provide a safetensors file, or, if you trust the author, convert it once in Python with "
        f"CLASS.from_pretrained('{folder}', use_safetensors=False).save_pretrained('NEW_FOLDER'), CLASS as in {CONFIG}"
    )


def line_of(error: Exception) -> str:
    """Return the first 300 characters of an error's text in one line."""
    return " ".join(str(error).split())[:300]
