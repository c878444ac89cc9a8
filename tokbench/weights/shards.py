"""Weights that were trained here, in files small enough for a repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tokbench.errors import AdapterError, MissingWeights
from tokbench.io.atomic import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 4 * 2**20
"""Bytes of one weights file."""
MAX_SHARDS = 3
"""Files of one model."""
_HEADER = 64 * 2**10
"""Bytes left for the names of a file's tensors."""
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")


def write_weights(state: dict[str, Tensor], target: Path) -> None:
    """Tensors as `target`, `<variant>.safetensors`, or where they are too large for one file as parts of it, named
    `<variant>-00001-of-00003.safetensors` as on the Hugging Face hub. Parts of an earlier training go.

    Raises AdapterError where more than MOST files of LARGEST bytes would be needed.
    """
    from safetensors.torch import save_file

    shares = _shared_out(state)
    most = max(map(_bytes_of, state.values()), default=0)
    if len(shares) > MAX_SHARDS or most > LARGEST - _HEADER:
        raise AdapterError(
            f"{target.name} would need {len(shares)} files and one of {most:,} bytes; there may be {MAX_SHARDS}, of "
            f"{LARGEST:,} bytes each: make the model smaller"
        )
    paths = [target]
    if len(shares) > 1:
        names = (f"{target.stem}-{place + 1:05}-of-{len(shares):05}.safetensors" for place in range(len(shares)))
        paths = [target.with_name(name) for name in names]
    for path, share in zip(paths, shares, strict=True):
        with atomic_path(path) as part:
            save_file(share, part)
    for old in {target, *_numbered(target)} - set(paths):
        old.unlink(missing_ok=True)


def _shared_out(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Tensors in their order, each file filled before the next is begun."""
    shares: list[dict[str, Tensor]] = [{}]
    held = 0
    for name, tensor in state.items():
        size = _bytes_of(tensor)
        if shares[-1] and held + size > LARGEST - _HEADER:
            shares.append({})
            held = 0
        shares[-1][name] = tensor
        held += size
    return shares


def _bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def shard_paths(target: Path) -> list[Path]:
    """The files that hold `<variant>.safetensors`: itself, or all of its parts; none where it was not trained.

    Raises MissingWeights where some of the parts are not here.
    """
    if target.is_file():
        return [target]
    parts = _numbered(target)
    counts = {int(found[3]) for part in parts if (found := _PART.fullmatch(part.name))}
    if parts and counts != {len(parts)}:
        raise MissingWeights(
            f"{target.with_suffix('')} has {len(parts)} files of weights, which say that there are "
            f"{' or '.join(map(str, sorted(counts)))}; bring the others, or train it again"
        )
    return parts


def _numbered(target: Path) -> list[Path]:
    return sorted(p for p in target.parent.glob(f"{target.stem}-*.safetensors") if _is_part(p, target.stem))


def _is_part(path: Path, stem: str) -> bool:
    found = _PART.fullmatch(path.name)
    return found is not None and found[1] == stem
