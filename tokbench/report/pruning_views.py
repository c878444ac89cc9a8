"""What the page's tables of token reduction show of each kind of model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from tokbench.pruning.clips.table import cameras_of
from tokbench.pruning.detector.table import mean_tokens
from tokbench.pruning.pose.table import mean_frames
from tokbench.pruning.result import Estimate, PruningResult, Speedup
from tokbench.pruning.table import NONE
from tokbench.pruning.vlm.table import types_of
from tokbench.report.page_table import Cell, PageColumn

COSTS = [PageColumn("gflops", "GFLOPs", 3, False), PageColumn("fewer", "FLOPs reduction", 2, True)]


class View(ABC):
    """The columns of one kind of model.

    reference: what differences and speed-ups are relative to. by_batch: whether rows are timed at several batch sizes.
    more_columns: those after the costs and timings.
    """

    reference: ClassVar[str]
    by_batch: ClassVar[bool] = True
    more_columns: ClassVar[list[PageColumn]] = []

    @abstractmethod
    def columns(self, found: Sequence[PruningResult]) -> list[PageColumn]:
        """Return the columns before the costs."""

    @abstractmethod
    def cells(self, row: Any, found: Sequence[PruningResult]) -> list[Cell | None]:
        """Return a cell for each of `columns`."""

    def more_cells(self, row: Any) -> list[Cell | None]:
        """Return a cell for each of `more_columns`."""
        return []

    def size(self, side: int) -> str:
        """Return the size of the inputs as text. side: as results state it."""
        return f"{side}x{side} px"

    def batches_option(self, row: Any) -> str:
        """Return the value of --batches that measures a row again."""
        return ",".join(str(timing.batch) for timing in row.pace) or "0"

    def more_options(self, row: Any) -> list[str]:
        """Return further words of the command that measures a row again."""
        return []

    def settings(self, row: Any) -> dict[str, Any]:
        """Return the parameters of the method."""
        return {}


class ClassifierView(View):
    reference = "the full network on the same images"

    def columns(self, found: Sequence[PruningResult]) -> list[PageColumn]:
        return [
            PageColumn("top1", "top-1 %", 1, True), PageColumn("top1_gap", "top-1 difference %", 1, True),
            PageColumn("agreement", "agreement %", 1, True),
        ]  # fmt: skip

    def cells(self, row: Any, found: Sequence[PruningResult]) -> list[Cell | None]:
        return [percent_cell(one) for one in (row.top1, row.top1_gap, row.agreement)]

    def more_options(self, row: Any) -> list[str]:
        return ["--rates", "FILE"] if row.training_seconds is None else []  # the file itself is not recorded


class DetectorView(View):
    reference = "the full detector on the same images"

    def columns(self, found: Sequence[PruningResult]) -> list[PageColumn]:
        return [
            PageColumn("ap50", "AP50 %", 1, True), PageColumn("ap50_gap", "AP50 difference %", 1, True),
            PageColumn("ap", "AP %", 1, True), PageColumn("ap_gap", "AP difference %", 1, True),
            PageColumn("tokens", "updated tokens", 0, None),
        ]  # fmt: skip

    def cells(self, row: Any, found: Sequence[PruningResult]) -> list[Cell | None]:
        return [*(percent_cell(one) for one in (row.ap50, row.ap50_gap, row.ap, row.ap_gap)), Cell(mean_tokens(row))]


class VlmView(View):
    reference = "the model with all visual tokens on the same questions"
    by_batch = False
    more_columns: ClassVar[list[PageColumn]] = [
        PageColumn("kv", "KV cache KiB", 0, False),
        PageColumn("speedup_total", "speed-up, end to end", 2, True),
        PageColumn("ms_total", "ms, end to end", 2, False),
        PageColumn("speedup_prefill", "speed-up, prefill", 2, True),
        PageColumn("ms_prefill", "ms, prefill", 2, False),
    ]

    def columns(self, found: Sequence[PruningResult]) -> list[PageColumn]:
        return [
            PageColumn("accuracy", "correct %", 1, True), PageColumn("gap", "difference %", 1, True),
            PageColumn("applied", "applied share %", 1, None),
            *(PageColumn(f"accuracy_{kind}", f"{kind} %", 1, True) for kind in types_of(found)),
        ]  # fmt: skip

    def cells(self, row: Any, found: Sequence[PruningResult]) -> list[Cell | None]:
        types = [percent_cell(row.types[kind].accuracy) if kind in row.types else None for kind in types_of(found)]
        return [percent_cell(row.accuracy), percent_cell(row.gap), Cell(100 * row.applied), *types]

    def more_cells(self, row: Any) -> list[Cell | None]:
        kv = Cell(row.kv_bytes / 1024)
        if row.pace is None:
            return [kv, None, None, None, None]
        return [kv, *speedup_cells(row.pace.total), *speedup_cells(row.pace.prefill)]

    def batches_option(self, row: Any) -> str:
        return "0" if row.pace is None else "1"

    def settings(self, row: Any) -> dict[str, Any]:
        return dict(row.parameters)


class ClipView(View):
    reference = "the full network on the same clips"

    def columns(self, found: Sequence[PruningResult]) -> list[PageColumn]:
        return [
            PageColumn("top1", "correct %", 1, True), PageColumn("top1_gap", "difference %", 1, True),
            PageColumn("agreement", "agreement %", 1, True), PageColumn("tokens", "tokens of a clip", 1, None),
            *(PageColumn(f"top1_{camera}", f"{camera} camera %", 1, True) for camera in cameras_of(found)),
        ]  # fmt: skip

    def cells(self, row: Any, found: Sequence[PruningResult]) -> list[Cell | None]:
        shares = [percent_cell(one) for one in (row.top1, row.top1_gap, row.agreement)]
        cameras = (row.cameras.get(camera) for camera in cameras_of(found))
        return [*shares, Cell(row.tokens), *(percent_cell(one) if one else None for one in cameras)]


class PoseView(View):
    reference = "the full network on the same sequences"

    def size(self, side: int) -> str:
        return f"{side} frames"

    def columns(self, found: Sequence[PruningResult]) -> list[PageColumn]:
        return [
            PageColumn("mpjpe", "MPJPE mm", 1, False), PageColumn("mpjpe_gap", "MPJPE difference mm", 1, False),
            PageColumn("frames", "frames in a block", 1, None),
        ]  # fmt: skip

    def cells(self, row: Any, found: Sequence[PruningResult]) -> list[Cell | None]:
        errors = (Cell(one.value, one.low, one.high) for one in (row.mpjpe, row.mpjpe_gap))
        return [*errors, Cell(mean_frames(row))]


VIEWS: dict[str, View] = {
    "classifier": ClassifierView(),
    "detector": DetectorView(),
    "vlm": VlmView(),
    "clip": ClipView(),
    "pose": PoseView(),
}


def percent_cell(found: Estimate) -> Cell:
    """Return the cell of a share, in %."""
    low, high = (None if end is None else 100 * end for end in (found.low, found.high))
    return Cell(100 * found.value, low, high)


def cost_cells(row: Any) -> list[Cell]:
    """Return the cells of COSTS."""
    return [Cell(row.gflops), Cell(row.whole_gflops / row.gflops)]


def timing_cells(row: Any, batch: int) -> tuple[Cell | None, Cell | None]:
    """Return the cells of the speed-up and of the milliseconds at a batch size."""
    timing = row.timing(batch)
    return (None, None) if timing is None else speedup_cells(timing.speedup)


def speedup_cells(found: Speedup) -> tuple[Cell, Cell]:
    """Return the cells of a speed-up and of its milliseconds; a speed-up that is not significant is text."""
    shown = Cell(found.value, found.low, found.high) if found.measured else Cell(None, replacement=NONE)
    return shown, Cell(found.ms)
