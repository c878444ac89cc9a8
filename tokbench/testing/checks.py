"""Requirements of a contract, and the outcome of testing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokbench.errors import TokbenchError

Outcome = Literal["pass", "fail", "does not apply"]


class Broken(AssertionError):
    """A requirement is not met. The message is the observation."""


class Inapplicable(Exception):
    """A requirement does not apply. The message is the reason."""


@dataclass(frozen=True)
class Check:
    """The outcome of one requirement.

    name: the requirement. found: why it failed or does not apply, else empty. remedy: how to correct a failure.
    """

    name: str
    outcome: Outcome
    found: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Requirement:
    """One requirement of a contract.

    name: the requirement. remedy: how to correct a failure. test: a function that is called with the subject. It raises
    Broken if the requirement is not met and Inapplicable if it does not apply. Any other exception is a failure, too.
    """

    name: str
    remedy: str
    test: Callable[..., None]


def run_requirements(requirements: Iterable[Requirement], *subject: Any) -> list[Check]:
    """Test one subject and return one Check per requirement."""
    found = []
    for one in requirements:
        try:
            one.test(*subject)
        except Inapplicable as reason:
            found.append(Check(one.name, "does not apply", str(reason)))
        except (Broken, TokbenchError) as error:
            found.append(Check(one.name, "fail", str(error), one.remedy))
        except Exception as error:  # the code of another package may raise any exception
            found.append(Check(one.name, "fail", f"{type(error).__name__}: {str(error)[:300]}", one.remedy))
        else:
            found.append(Check(one.name, "pass"))
    return found


def require(checks: Sequence[Check]) -> None:
    """Raise AssertionError if a check failed. The message lists every failed check and its remedy."""
    failed = [f"{check.name}: {check.found}; {check.remedy}" for check in checks if check.outcome == "fail"]
    if failed:
        raise AssertionError("\n".join(failed))


def expect(holds: object, found: str) -> None:
    """Raise Broken with the observation `found` if a condition does not hold."""
    if not holds:
        raise Broken(found)
