"""Suites: named combinations of datasets, size, protocol and metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """One suite.

    size: side in pixels. protocol: name of the protocol. faithful: name of the protocol that also reproduces steps
    specific to the original code.
    """

    data: tuple[str, ...]
    size: int
    protocol: str
    faithful: str
    metrics: tuple[str, ...]


def _tokbench(size: int) -> Suite:
    """Return TokBench's suite (Wu et al. 2025, arXiv:2505.18142) for text and faces.

    It uses tokbench's default recognition networks and those of the original benchmark.
    """
    return Suite(
        ("tokbench-text", "tokbench-faces"),
        size,
        "tokbench-peer",
        "tokbench-peer-jpeg",
        ("rate", "text", "text_parseq", "faces", "faces_insightface"),
    )


SUITES = {f"tokbench-{size}": _tokbench(size) for size in (256, 512, 1024)}
"""All suites by name."""
