"""Evaluation in several processes: `torchrun -m tokbench eval ...` starts them, and each one processes a share of the
images.

Each rank writes its values to its checkpoint. At the end rank 0 asks every other rank for its list of files, fetches
those that it cannot see itself (nodes without a common cache folder), and computes the result. Only small objects and
files are sent, over gloo.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from tokbench.errors import TokbenchError, UsageError
from tokbench.io.atomic import write_atomically

T = TypeVar("T")

_TIMEOUT = timedelta(hours=12)
"""How long one rank waits for another, which may have more work. A rank that dies is detected at once."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process in a group of processes: its rank, the number of processes `world`, and the rank `local` on its
    node."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes the result."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Return this process's items: every world-th one."""
        return list(items[self.rank :: self.world])

    def send_to_main(self, facts: Any, files: Sequence[Path], root: Path) -> None:
        """Send rank 0 this rank's facts, and the files below `root` that rank 0 requests. Raises TokbenchError where
        rank 0 ended."""
        try:
            names = [file.relative_to(root).as_posix() for file in files]
            dist.send_object_list([(facts, names)], dst=0)
            requested: list[Any] = [None]
            dist.recv_object_list(requested, src=0)
            for name in requested[0]:
                dist.send_object_list([(root / name).read_bytes()], dst=0)
        except RuntimeError as error:
            raise _lost(0, error) from error

    def collect(self, root: Path) -> Iterator[Any]:
        """Yield, on rank 0, the facts of each other rank after its files were copied below `root`.

        Raises TokbenchError that names a rank that ended early.
        """
        for rank in range(1, self.world):
            try:
                message: list[Any] = [None]
                dist.recv_object_list(message, src=rank)
                facts, names = message[0]
                missing = [name for name in names if not _inside(root, name).exists()]
                dist.send_object_list([missing], dst=rank)
                for name in missing:
                    data: list[Any] = [None]
                    dist.recv_object_list(data, src=rank)
                    write_atomically(_inside(root, name), data[0])
            except RuntimeError as error:
                raise _lost(rank, error) from error
            yield facts


ALONE = ProcessGroup()
"""The group of a single process."""


def _inside(root: Path, name: str) -> Path:
    path = root / name
    if ".." in path.parts or not path.is_relative_to(root):
        raise TokbenchError(f"another rank sent the name of a file outside the cache: {name}")
    return path


def _lost(rank: int, error: Exception) -> TokbenchError:
    return TokbenchError(
        f"rank {rank} ended before its share was finished ({str(error).splitlines()[0][:120]}); the values of the "
        "other ranks are saved, so run the same command again"
    )


@contextmanager
def ranks() -> Iterator[ProcessGroup]:
    """Context manager for the process group that torchrun (or any launcher that sets RANK, WORLD_SIZE, MASTER_ADDR and
    MASTER_PORT) started.

    Raises UsageError where the environment names several processes but they cannot connect.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world < 2:
        yield ProcessGroup()
        return
    try:
        dist.init_process_group("gloo", timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"WORLD_SIZE is {world}, but the processes cannot connect ({str(error)[:160]}); start them with torchrun"
        ) from error
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
