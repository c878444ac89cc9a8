"""EvalConfig and Context: what an evaluation computes, and where it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tokbench.evaluation.distributed import ALONE, ProcessGroup
from tokbench.evaluation.restore import Restorer
from tokbench.evaluation.tasks import RECONSTRUCT, Task
from tokbench.extractors.backend import Precision
from tokbench.extractors.pool import ExtractorPool
from tokbench.metrics.fid_statistics import FidStatistics

Progress = Callable[[str, int, int], None]
"""Called with the current stage ("images", or the items of another modality, "references" or "intervals"), the number
of finished items, and their total."""


@dataclass(frozen=True)
class EvalConfig:
    """Everything that the numbers depend on besides the adapter and the images.

    metrics: names of metrics (`tokbench list metrics`). task: what is done with the tokens. batch_size: images per
    model call, halved where memory is exhausted. seed: the seed of bootstrap intervals and of decoders that sample.
    device: `cpu`, `cuda` or `cuda:N`. precision: of the networks that metrics read. statistics: the statistics that
    distributions are compared with instead of those of the references. restorer: restores degraded images before the
    adapters get them; None for none.
    """

    metrics: tuple[str, ...]
    task: Task = RECONSTRUCT
    batch_size: int = 16
    seed: int = 0
    device: str = "cpu"
    precision: Precision = "float32"
    statistics: FidStatistics | None = None
    restorer: Restorer | None = None


@dataclass
class Context:
    """Where an evaluation runs. No number depends on it.

    cache: a folder in which all values are saved during the run, so that the same call resumes after an interruption
    and needs little memory; it also holds the references' features for later runs. Call `discard` of each result's
    checkpoint (`Result.checkpoint`) once the result is saved. ranks: this process in a group that shares the images;
    only the first process gets results, the others an empty list. networks: those of an earlier call, which are then
    not loaded again; they must be on the configuration's device and in its precision. warn: called with each warning.
    """

    cache: Path | None = None
    ranks: ProcessGroup = ALONE
    networks: ExtractorPool | None = None
    allow_download: bool = False
    warn: Callable[[str], None] = field(default=lambda text: None)
    progress: Progress = field(default=lambda what, done, total: None)

    def networks_for(self, config: EvalConfig) -> ExtractorPool:
        """Return the frozen networks that metrics read."""
        networks = self.networks or ExtractorPool(config.device, self.allow_download, config.precision)
        assert (networks.device, networks.precision) == (config.device, config.precision), (
            "the networks belong to another configuration"
        )
        return networks
