"""The tables of all pruning results in a results folder, as files."""

from __future__ import annotations

from pathlib import Path

from tokbench.pruning.kind_names import KINDS
from tokbench.pruning.kinds import kind_named
from tokbench.pruning.result import load_all
from tokbench.pruning.table import groups


def write(out: Path) -> list[Path]:
    """Write `leaderboard/pruning-<table>.csv` and `.md` of all kinds of models in a results folder; return their
    paths."""
    folder = out / "leaderboard"
    written = []
    for kind in KINDS:
        for name, members in groups(load_all(out, kind)).items():
            shown = kind_named(kind).table
            csv, md = folder / f"{name}.csv", folder / f"{name}.md"
            folder.mkdir(parents=True, exist_ok=True)
            text = f"# {name}\n\n{shown.legend(members)}{shown.markdown(members)}"
            csv.write_text(
                shown.frame(members).to_csv(index=False, lineterminator="\n"), encoding="utf-8", newline="\n"
            )
            md.write_text(text, encoding="utf-8", newline="\n")
            written += [csv, md]
    return written
