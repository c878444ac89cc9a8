"""Check: the outcome of one part of a contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokbench.errors import TokbenchError

Outcome = Literal["pass", "fail", "does not apply"]


class Broken(AssertionError):
    """A part of the contract is broken; the message says what was found."""


class Inapplicable(Exception):
    """A part of the contract does not apply; the message says why."""


@dataclass(frozen=True)
class Check:
    """One part of a contract. name: what is required. found: why it failed or does not apply, else empty.
    remedy: what to do where it failed."""

    name: str
    outcome: Outcome
    found: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Requirement:
    """One part of a contract. test: called with the subject; raises Broken where the subject breaks it, Inapplicable
    where it does not apply; any other exception of the subject's code counts as a failure."""

    name: str
    remedy: str
    test: Callable[..., None]


def run_requirements(requirements: Iterable[Requirement], *subject: Any) -> list[Check]:
    """The outcome of every requirement for one subject."""
    found = []
    for one in requirements:
        try:
            one.test(*subject)
        except Inapplicable as reason:
            found.append(Check(one.name, "does not apply", str(reason)))
        except (Broken, TokbenchError) as error:
            found.append(Check(one.name, "fail", str(error), one.remedy))
        except Exception as error:  # other people's code: anything may come
            found.append(Check(one.name, "fail", f"{type(error).__name__}: {str(error)[:300]}", one.remedy))
        else:
            found.append(Check(one.name, "pass"))
    return found


def require(checks: Sequence[Check]) -> None:
    """Raises AssertionError, with every failed check and its remedy, where one failed."""
    failed = [f"{check.name}: {check.found}; {check.remedy}" for check in checks if check.outcome == "fail"]
    if failed:
        raise AssertionError("\n".join(failed))


def expect(holds: object, found: str) -> None:
    """Raises Broken with what was found where something does not hold."""
    if not holds:
        raise Broken(found)
