"""Arguments such as `NAME=diffusers:PATH`: builtin models at a path or on a hub, and the names of their rows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tokbench.errors import UsageError
from tokbench.paths import slug

if TYPE_CHECKING:
    from tokbench.tokenizers.base import ImageModel

PATH_LIKE = {"images": "images", "diffusers": "diffusers", "torchscript": "torchscript"}
"""Builtin families whose argument, after a colon, is a path or hub id."""

_ARGUMENT = re.compile(rf"(?:(?P<name>[^=:]+)=)?(?P<family>{'|'.join(PATH_LIKE)}):(?P<place>.+)", re.DOTALL)


class PlacedModel(NamedTuple):
    """A command-line argument. name: the chosen name of the row, or None. place: a path or hub id, with options."""

    name: str | None
    family: str
    place: str

    @property
    def source(self) -> str:
        """The argument without the name."""
        return f"{self.family}:{self.place}"


def parse_placed(asked: str) -> PlacedModel | None:
    """Return the parts of `[NAME=]FAMILY:PLACE`, or None for other arguments.

    Raises UsageError if the name cannot be a file name.
    """
    match = _ARGUMENT.fullmatch(asked)
    if match is None:
        return None
    if (name := match["name"]) is not None and slug(name) != name:
        raise UsageError(f"'{name}' cannot be the name of a row, since files are named after it; use '{slug(name)}'")
    return PlacedModel(name, match["family"], match["place"])


def named_argument(asked: str, name: str) -> str:
    """Return the argument `NAME=FAMILY:PLACE` for a model and the name of its row.

    Raises UsageError if the model has a name of its own or the name cannot be a file name.
    """
    placed = parse_placed(asked)
    if placed is None or placed.name is not None:
        own = f"already has the name '{placed.name}'" if placed else "has a name of its own"
        raise UsageError(
            f"{asked} {own}; a name can be chosen for {', '.join(f'{family}:' for family in PATH_LIKE)} only"
        )
    named = f"{name}={asked}"
    parse_placed(named)
    return named


def refuse_taken_name(placed: PlacedModel, taken: Collection[str]) -> None:
    """Raise UsageError where a chosen name is that of another adapter, whose results would be replaced."""
    if placed.name is not None and not {placed.name, placed.name.partition(".")[0]}.isdisjoint(taken):
        raise UsageError(f"'{placed.name}' is the name of another adapter; choose a different name")


def row_name(placed: PlacedModel, model: ImageModel) -> tuple[str, str]:
    """Return the name of a model's row, and the sha256 of its parameters ("" where it has none).

    Without a chosen name it consists of the last part of the path and a digest of the weights, so that a checkpoint has
    the same row wherever it lies. Images have no weights; the digest is then that of the path as it was typed.
    """
    from tokbench.weights.hashing import hash_module  # imports torch

    parameters = hash_module(model.module) if model.module is not None else ""
    if placed.name is not None:
        return placed.name, parameters
    if not parameters:
        return f"{placed.family}.{_path_slug(placed.place)}", ""
    sampled = f"-{posterior}" if (posterior := model.recorded.get("posterior")) else ""
    return f"{placed.family}.{last_part(placed)}-{parameters[:_DIGITS]}{sampled}", parameters


_DIGITS = 6


def last_part(placed: PlacedModel) -> str:
    """Return the last part of a path or hub id in a form that is safe as a file name. In the hub's cache it is the name
    of the repository, and of a file it is the name without the suffix."""
    typed = placed.place
    if placed.family == "diffusers":
        from tokbench.tokenizers.builtin.diffusers_files import split_options

        typed = split_options(typed)[0]
    path = Path(typed).expanduser()
    if not path.exists():
        return slug(typed.rstrip("/").rpartition("/")[2])
    path = path.resolve()
    if path.is_file():
        return slug(path.name.removesuffix(".safetensors"))
    if path.parent.name == "snapshots":
        path = path.parent.parent
    return slug(path.name.rpartition("--")[2] if path.name.startswith("models--") else path.name)


def _path_slug(argument: str) -> str:
    typed = argument.rstrip("/")
    if Path(typed).exists():
        return f"{slug(Path(typed).resolve().name)}-{hashlib.sha256(typed.encode()).hexdigest()[:_DIGITS]}"
    return slug(typed.replace("/", "--"))
