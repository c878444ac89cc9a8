"""Suites: data, size, protocol and metrics that belong together, under one name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """size: pixels a side. protocol: its name; faithful: of the one that also keeps what only its own code does."""

    data: tuple[str, ...]
    size: int
    protocol: str
    faithful: str
    metrics: tuple[str, ...]


def _tokbench(size: int) -> Suite:
    """TokBench (Wu et al. 2025, arXiv:2505.18142): text and faces, by the readers of tokbench and by its own."""
    return Suite(
        ("tokbench-text", "tokbench-faces"),
        size,
        "tokbench-peer",
        "tokbench-peer-jpeg",
        ("rate", "text", "text_parseq", "faces", "faces_insightface"),
    )


SUITES = {f"tokbench-{size}": _tokbench(size) for size in (256, 512, 1024)}
"""Every suite by name."""
