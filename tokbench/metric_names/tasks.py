"""TaskName: the grammar of the names of tasks in results."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast, get_args

from tokbench.errors import UsageError
from tokbench.metric_names.perturbation import Anchor
from tokbench.metric_names.spec import TaskKind

_GRAMMAR = re.compile(
    r"reconstruct|truncate(-(?P<tokens>[1-9]\d*))?|perturb(-(?P<anchor>code))?|generate(-cfg(?P<guidance>\d+(\.\d+)?))?"
    r"|decode(-(?P<decoder>\S+))?"
)


@dataclass(frozen=True)
class TaskName:
    """The parsed name of a task: `reconstruct`, `truncate-8`, `perturb-code`, `generate-cfg1.5` or `decode-bf16`.

    `str()` returns the name as text.

    tokens: the number of leading tokens that are decoded. anchor: the point from which the distance to neighbouring
    codes is measured. guidance: the scale of classifier-free guidance; None for the default of each generator. decoder:
    the variant of the decoder (`tokbench.tokenizers.decoder_variant`); empty for the decoder itself.
    """

    kind: TaskKind
    tokens: int | None = None
    anchor: Anchor = "latent"
    guidance: float | None = None
    decoder: str = ""

    @classmethod
    def parse(cls, text: str) -> TaskName:
        """Parse a name. Raises UsageError if there is no such task."""
        found = _GRAMMAR.fullmatch(text)
        if found is None:
            raise UsageError(f"no task '{text}'")
        tokens, anchor, guidance = found["tokens"], found["anchor"], found["guidance"]
        return cls(
            cast(TaskKind, text.partition("-")[0]),
            int(tokens) if tokens else None,
            "code" if anchor else "latent",
            float(guidance) if guidance else None,
            found["decoder"] or "",
        )

    def __str__(self) -> str:
        if self.tokens is not None:
            return f"{self.kind}-{self.tokens}"
        if self.guidance is not None:
            return f"{self.kind}-cfg{self.guidance:g}"
        if self.decoder:
            return f"{self.kind}-{self.decoder}"
        return self.kind if self.anchor == "latent" else f"{self.kind}-{self.anchor}"

    @property
    def is_exact(self) -> bool:
        """Whether the name states the guidance exactly: with at most six digits and without an exponent."""
        return self.guidance is None or bool(
            _GRAMMAR.fullmatch(str(self)) and float(f"{self.guidance:g}") == self.guidance
        )


def kind_of_task(text: str) -> TaskKind | None:
    """Return the kind of the task of this name, or None if there is no such task."""
    kind = text.partition("-")[0]
    return cast(TaskKind, kind) if kind in get_args(TaskKind) else None


def table_of_task(text: str) -> tuple[str, str]:
    """Return the task by which a table of results is named, and what its rows add to the name of the adapter.

    The variants of a decoder are rows of one table: `decode` and `tiles256` for `decode-tiles256`. Every other task has
    its own table.
    """
    kind, _, variant = text.partition("-")
    return (kind, variant) if kind == "decode" else (text, "")
