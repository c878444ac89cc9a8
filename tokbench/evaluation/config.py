"""EvalConfig and Context: what an evaluation measures, and where it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tokbench.evaluation.distributed import ALONE, ProcessGroup
from tokbench.evaluation.tasks import RECONSTRUCT, Task
from tokbench.extractors.backend import Precision
from tokbench.extractors.pool import ExtractorPool
from tokbench.metrics.fid_statistics import FidStatistics

Progress = Callable[[str, int, int], None]
"""Called with what is being done ("images", "references" or "intervals"), how many are done, and of how many."""


@dataclass(frozen=True)
class EvalConfig:
    """All that numbers depend on beside the adapter and the images.

    metrics: names of metrics (`tokbench list metrics`). batch_size: images that a model takes at once, halved where
    memory runs out. seed: of bootstrap intervals and of decoders that sample. device: `cpu`, `cuda` or `cuda:N`.
    precision: of the networks that metrics read. statistics: what distributions are compared with in place of the
    references' own.
    """

    metrics: tuple[str, ...]
    task: Task = RECONSTRUCT
    batch_size: int = 16
    seed: int = 0
    device: str = "cpu"
    precision: Precision = "float32"
    statistics: FidStatistics | None = None


@dataclass
class Context:
    """Where an evaluation runs. No number depends on it.

    cache: a folder where everything is kept as soon as it is found, so that the same call goes on from there after an
    interruption and needs little memory; it also holds the references' features for later runs. Call `discard` of each
    result's journal once the result is saved. ranks: this process among others that share the images; only the first
    one gets results, the others an empty list. networks: those of an earlier call, so that they are not loaded again;
    they must be on the configuration's device and in its precision.
    """

    cache: Path | None = None
    ranks: ProcessGroup = ALONE
    networks: ExtractorPool | None = None
    allow_download: bool = False
    warn: Callable[[str], None] = field(default=lambda text: None)
    progress: Progress = field(default=lambda what, done, total: None)

    def networks_for(self, config: EvalConfig) -> ExtractorPool:
        """The frozen networks that metrics read."""
        made = self.networks or ExtractorPool(config.device, self.allow_download, config.precision)
        assert (made.device, made.precision) == (config.device, config.precision), "networks of another configuration"
        return made
