"""What the training of a variant was: `<variant>.training.json` beside its TOML."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tokbench.errors import AdapterError
from tokbench.io.json import loads_strict
from tokbench.validate import Count, convert


@dataclass
class TrainRecord:
    """What a training was: where the weights that it gave come from.

    curve: means of each term of the loss over equal parts of the training.
    """

    device: str
    seconds: float
    images: Count
    steps: Count
    seed: int
    recipe: dict[str, Any]
    curve: dict[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def read_record(toml: Path) -> dict[str, Any]:
    """The record of a variant's training; empty where it was not trained. Raises AdapterError where the file cannot be
    read or a field is missing or of the wrong type."""
    path = toml.with_suffix(".training.json")
    if not path.is_file():
        return {}
    try:
        told: dict[str, Any] = loads_strict(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path} cannot be read ({error})") from error
    convert(told, TrainRecord, str(path), AdapterError)
    return told
