"""What can go wrong, by who can mend it. Every message names the thing and the remedy."""


class TokbenchError(Exception):
    """Anything tokbench refuses; the command line prints its message and exits with status 1."""


class UsageError(TokbenchError):
    """The command or call asks for something that does not exist or does not fit together (exit status 2)."""


class NoAdapter(UsageError):
    """There is no adapter of that name or at that path."""


class DataError(TokbenchError):
    """A dataset cannot be found, read or used as asked."""


class UnreadableImage(DataError):
    """One image cannot be read; the run lists it and goes on."""


class AdapterError(TokbenchError):
    """An adapter cannot be loaded, or its tokenizer broke its contract (shape, range, index, finite values)."""


class ResultError(TokbenchError):
    """A result file is not what it should be."""


class NoResults(ResultError):
    """A folder of results holds none."""


class CacheError(TokbenchError):
    """What was kept of an unfinished run, or of the references' features, is gone or damaged."""


class MetricUnavailable(TokbenchError):
    """A metric cannot be computed in this run; it is reported as skipped, with this message as the reason.

    `public_reason` is the reason as a result file keeps it: without the paths of one machine.
    """

    def __init__(self, message: str, public_reason: str | None = None) -> None:
        super().__init__(message)
        self.public_reason = public_reason or message


class MissingWeights(MetricUnavailable):
    """A frozen network's weights are not on this machine."""


class MissingField(MetricUnavailable):
    """The stream of batches lacks what a metric eats (tokens, timings, labels ...)."""


class NotApplicable(MetricUnavailable):
    """The metric is not defined on these images (too small, too few ...)."""


class MetricFailure(TokbenchError):
    """A metric raised an error of its own; the message names the metric and what it was computing."""
