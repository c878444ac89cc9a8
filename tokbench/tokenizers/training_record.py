"""Training records: `<variant>.training.json` next to the TOML of a trained variant."""

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
    """The provenance of trained weights: device, seconds, images seen, steps, seed, hyperparameters and losses.

    device: several, joined by ", then ", if the training was resumed elsewhere. seconds: wall time. cpu_seconds: CPU
    time of the process, which other processes on the machine affect less. Neither contains steps that were repeated
    because of an interruption. precision: of the matrix products. curve: means of each loss term over equal parts of
    the training. Records of earlier versions have neither cpu_seconds nor precision.
    """

    device: str
    seconds: float
    images: Count
    steps: Count
    seed: int
    recipe: dict[str, Any]
    curve: dict[str, list[float]] = field(default_factory=dict)
    cpu_seconds: float | None = None
    precision: str | None = None

    def to_json(self) -> str:
        """Return the content of the file."""
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def read_record(toml: Path) -> dict[str, Any]:
    """Return the training record of a variant; empty if it was not trained.

    toml: the variant's TOML file. Raises AdapterError if the record cannot be read, or if a field is missing or
    has the wrong type.
    """
    path = toml.with_suffix(".training.json")
    if not path.is_file():
        return {}
    try:
        record: dict[str, Any] = loads_strict(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterError(f"{path} cannot be read ({error})") from error
    convert(record, TrainRecord, str(path), AdapterError)
    return record
