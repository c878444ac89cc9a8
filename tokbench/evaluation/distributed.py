"""Several processes, one result: `torchrun -m tokbench eval ...` starts them, each takes a share of the images.

What a rank finds lies in its journal. In the end rank 0 asks every other rank which files it has, fetches those that it
does not see itself (nodes without a common cache folder), and computes. Only small things and files travel, over gloo.
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

_PATIENCE = timedelta(hours=12)
"""How long one rank waits for another, whose share may take longer. One that dies is noticed at once."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among others."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes the result."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part: every world-th item."""
        return list(items[self.rank :: self.world])

    def send_to_main(self, facts: Any, files: Sequence[Path], root: Path) -> None:
        """Tell rank 0 what this rank found, and give it the files below `root` that it asks for."""
        try:
            names = [file.relative_to(root).as_posix() for file in files]
            dist.send_object_list([(facts, names)], dst=0)
            asked: list[Any] = [None]
            dist.recv_object_list(asked, src=0)
            for name in asked[0]:
                dist.send_object_list([(root / name).read_bytes()], dst=0)
        except RuntimeError as error:
            raise _lost(0, error) from error

    def collect(self, root: Path) -> Iterator[Any]:
        """On rank 0: what each other rank found, its files below `root` brought here. Raises TokbenchError that names
        a rank which ended before."""
        for rank in range(1, self.world):
            try:
                told: list[Any] = [None]
                dist.recv_object_list(told, src=rank)
                facts, names = told[0]
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
"""One process."""


def _inside(root: Path, name: str) -> Path:
    path = root / name
    if ".." in path.parts or not path.is_relative_to(root):
        raise TokbenchError(f"another rank names a file outside the cache: {name}")
    return path


def _lost(rank: int, error: Exception) -> TokbenchError:
    return TokbenchError(
        f"rank {rank} ended before its share was done ({str(error).splitlines()[0][:120]}); what the others found is "
        "kept, so run the same command again"
    )


@contextmanager
def ranks() -> Iterator[ProcessGroup]:
    """The processes that torchrun (or any launcher that sets RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) started.

    Raises UsageError where the environment names several processes and they cannot be joined.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world < 2:
        yield ProcessGroup()
        return
    try:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"WORLD_SIZE is {world}, and the processes do not find each other ({str(error)[:160]}); start with torchrun"
        ) from error
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
