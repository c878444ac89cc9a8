"""Ablations: each claim about a component is tested against a model trained without that component."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokbench.analysis.compare import Difference, difference, refuse_unlike, same_settings
from tokbench.errors import AdapterError
from tokbench.results.columns import column_of
from tokbench.results.floors import Floors
from tokbench.results.result import Result
from tokbench.tokenizers.registry import read_variant

Verdict = Literal["supported", "not supported", "cannot tell", "below floor: no verdict"]

_VERDICTS: dict[str, Verdict] = {"worse": "supported", "better": "not supported"}
"""Verdict on the claim, by how the ablated model compares with the full one."""


@dataclass(frozen=True)
class Ablation:
    """A claim about one component of an adapter, tested with an ablated adapter.

    ablated: the adapter trained without the component. of: the full adapter. without: the component. claim: that the
    component improves `numbers` in `tasks`. margin: set if the component is meant to save computation; the claim is
    then that it worsens `numbers` by at most this fraction.
    """

    ablated: str
    of: str
    without: str
    claim: str
    numbers: tuple[str, ...]
    tasks: tuple[str, ...]
    margin: float | None = None


@dataclass(frozen=True)
class Finding:
    """The difference of one number, ablated minus full adapter, with a paired interval over images.

    Both adapters were trained once, so the interval does not cover the variation between training seeds.
    below_floor: those of the two adapters that are worse than their floors in PSNR and LPIPS
    (`tokbench.results.floors`). If there are any, there is no verdict, whatever the difference: a network that
    reconstructs worse than k-means or PCA with at most its bits says nothing about a component.
    """

    ablation: Ablation
    group: str
    difference: Difference
    below_floor: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        if self.below_floor:
            return "below floor: no verdict"
        gap, margin = self.difference, self.ablation.margin
        if margin is None:
            return _VERDICTS.get(gap.verdict, "cannot tell")
        more = column_of(gap.number)[1].more
        if more is None or gap.second is None or math.isnan(gap.low):
            return "cannot tell"
        # The cost of the component: how much worse the full adapter is than the ablated one.
        cost_low, cost_high = (gap.low, gap.high) if more else (-gap.high, -gap.low)
        allowed = margin * abs(gap.second)
        return "supported" if cost_high <= allowed else "not supported" if cost_low > allowed else "cannot tell"


def ablations(files: dict[str, Path]) -> list[Ablation]:
    """Return the ablations defined in config files (by adapter name), [ablation] or several [[ablation]] in a file.

    Raises AdapterError for an incomplete table.
    """
    found = []
    for name, toml in files.items():
        tables = read_variant(toml).get("ablation", [])
        found += [_read(name, table) for table in (tables if isinstance(tables, list) else [tables])]
    return found


def _read(name: str, table: dict[str, Any]) -> Ablation:
    try:
        return Ablation(
            name, table["of"], table["without"], table["claim"], tuple(table["numbers"]), tuple(table["tasks"]),
            table.get("margin"),
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise AdapterError(f"{name}: [ablation] must give of, without, claim, numbers and tasks") from error


def findings(claims: Iterable[Ablation], results: Iterable[Result]) -> list[Finding]:
    """Return a finding for each ablation, group and number for which both adapters have comparable results.

    results: also those of the floors, and of the tokenizers of generators.
    """
    results = list(results)
    floors, by_name = Floors(results), dict[str, dict[str, Result]]()
    for result in results:
        by_name.setdefault(result.adapter, {})[result.group] = result
    found = []
    for ablation in claims:
        full, ablated = (by_name.get(name, {}) for name in (ablation.of, ablation.ablated))
        for group in sorted(full.keys() & ablated.keys()):
            first, second = full[group], ablated[group]
            if first.task not in ablation.tasks:
                continue
            refuse_unlike(first, second)
            standings = [(one.adapter, floors.standing(one)) for one in (first, second)]
            below = tuple(name for name, standing in standings if standing and standing.below)
            for number in ablation.numbers:
                if number in first.metrics and number in second.metrics and same_settings(number, first, second):
                    found.append(Finding(ablation, group, difference(number, first, second), below))
    return found
