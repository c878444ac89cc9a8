"""Files of trained weights, split into shards that are small enough for a Git repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tokbench.errors import AdapterError, MissingWeights
from tokbench.io.atomic import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 4 * 2**20
"""Maximum size in bytes of one weight file."""
MAX_SHARDS = 3
"""Maximum number of weight files of one model."""
_HEADER = 64 * 2**10
"""Bytes reserved in each file for its header with the names of the tensors."""
_SHARD_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")


def write_weights(state: dict[str, Tensor], target: Path) -> None:
    """Write tensors to `target`, `<variant>.safetensors`, or to several shards if they do not fit into one file.

    Shards are named `<variant>-00001-of-00003.safetensors`, as on the Hugging Face hub. Files of an earlier training
    are deleted.

    Raises AdapterError if more than MAX_SHARDS files of LARGEST bytes would be needed.
    """
    from safetensors.torch import save_file

    shards = _split_into_shards(state)
    largest = max(map(_bytes_of, state.values()), default=0)
    if len(shards) > MAX_SHARDS or largest > LARGEST - _HEADER:
        raise AdapterError(
            f"{target.name} would need {len(shards)} files, with a largest tensor of {largest:,} bytes; the limit is "
            f"{MAX_SHARDS} files of {LARGEST:,} bytes each: make the model smaller"
        )
    paths = [target]
    if len(shards) > 1:
        names = (f"{target.stem}-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards)))
        paths = [target.with_name(name) for name in names]
    for path, shard in zip(paths, shards, strict=True):
        with atomic_path(path) as temporary:
            save_file(shard, temporary)
    for old in {target, *_existing_shards(target)} - set(paths):
        old.unlink(missing_ok=True)


def _split_into_shards(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Split tensors into shards in their order. Each shard is filled before the next one begins."""
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, tensor in state.items():
        size = _bytes_of(tensor)
        if shards[-1] and used + size > LARGEST - _HEADER:
            shards.append({})
            used = 0
        shards[-1][name] = tensor
        used += size
    return shards


def _bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def shard_paths(target: Path) -> list[Path]:
    """Return the files that contain the weights `<variant>.safetensors`: the file itself, or all of its shards.

    The list is empty if the model was not trained. Raises MissingWeights if some of the shards are missing.
    """
    if target.is_file():
        return [target]
    shards = _existing_shards(target)
    totals = {int(match[3]) for path in shards if (match := _SHARD_NAME.fullmatch(path.name))}
    if shards and totals != {len(shards)}:
        raise MissingWeights(
            f"{target.with_suffix('')} has {len(shards)} weight files, but their names state a total of "
            f"{' or '.join(map(str, sorted(totals)))}; add the missing files, or train the model again"
        )
    return shards


def _existing_shards(target: Path) -> list[Path]:
    return sorted(p for p in target.parent.glob(f"{target.stem}-*.safetensors") if _is_shard(p, target.stem))


def _is_shard(path: Path, stem: str) -> bool:
    match = _SHARD_NAME.fullmatch(path.name)
    return match is not None and match[1] == stem
