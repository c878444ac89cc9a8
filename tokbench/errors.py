"""The exceptions of tokbench, and the suggestions in their messages. Every message names the object and the remedy."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(asked: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'? " with the known name that resembles `asked`, or "" if there is none.

    Case is ignored. A name that continues `asked` after a dot (`jpeg.q50` for `jpeg`) is preferred. `asked` itself is
    never suggested.
    """
    import difflib

    spellings: dict[str, str] = {}
    for name in known:
        if name != asked:
            spellings.setdefault(name.lower(), name)
    wanted = asked.lower()
    if wanted in spellings:
        near = [wanted]
    else:
        near = [name for name in spellings if wanted and name.startswith(f"{wanted}.")]
        near = near or difflib.get_close_matches(wanted, spellings, 1)
    return f"did you mean '{spellings[near[0]]}'? " if near else ""


class TokbenchError(Exception):
    """Base class of all errors raised by tokbench. The command line prints the message and exits with status 1."""


class UsageError(TokbenchError):
    """The command or call names something that does not exist, or its options contradict each other (exit status 2)."""


class NoAdapter(UsageError):
    """No adapter has the given name or path."""


class DataError(TokbenchError):
    """A dataset cannot be found, cannot be read, or cannot be used with the given options."""


class UnreadableImage(DataError):
    """One image cannot be read. The run lists the image and continues."""


class AdapterError(TokbenchError):
    """An adapter cannot be loaded, or its tokenizer violates the contract (shape, range, index, finite values).

    place: the line of the adapter's code that the message names, or "".
    """

    def __init__(self, message: str = "", place: str = "") -> None:
        super().__init__(message)
        self.place = place


class ResultError(TokbenchError):
    """A result file is invalid or cannot be written."""


class NoResults(ResultError):
    """A results folder contains no results."""


class CacheError(TokbenchError):
    """Cached data of an unfinished run, or cached reference features, are missing or damaged."""


class MetricUnavailable(TokbenchError):
    """A metric cannot be computed in this run; it is reported as skipped, with this message as the reason.

    public_reason: the reason that is stored in result files, without paths of the local machine.
    """

    def __init__(self, message: str, public_reason: str | None = None) -> None:
        super().__init__(message)
        self.public_reason = public_reason or message


class MissingWeights(MetricUnavailable):
    """The weights of a frozen network are not on this machine."""


class MissingField(MetricUnavailable):
    """The batches lack a field that the metric requires, such as tokens, timings or labels."""


class NotApplicable(MetricUnavailable):
    """The metric is not defined for these images, for example because they are too small or too few."""


class MetricFailure(TokbenchError):
    """The code of a metric raised an unexpected error. The message names the metric and the step that failed."""
