"""Suites: named combinations of datasets, size, protocol and metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """One suite.

    size: side in pixels. protocol: name of the protocol. faithful: name of the protocol that also reproduces steps
    specific to the original code, if it has any.
    """

    data: tuple[str, ...]
    size: int
    protocol: str
    metrics: tuple[str, ...]
    faithful: str = ""


def _tokbench(size: int) -> Suite:
    """Return TokBench's suite (Wu et al. 2025, arXiv:2505.18142) for text and faces.

    It uses tokbench's default recognition networks and those of the original benchmark.
    """
    return Suite(
        ("tokbench-text", "tokbench-faces"),
        size,
        "tokbench-peer",
        ("rate", "text", "text_parseq", "faces", "faces_insightface"),
        "tokbench-peer-jpeg",
    )


def _photos(data: str, size: int) -> Suite:
    """Return a suite for quality, speed and memory on large photos."""
    return Suite((data,), size, "tokbench", ("rate", "psnr", "ssim", "ms_ssim", "lpips", "speed"))


SUITES = {
    **{f"tokbench-{size}": _tokbench(size) for size in (256, 512, 1024)},
    "photos-512": _photos("photos-512", 512),
    "photos-1024": _photos("clic-2020", 1024),
    "documents-256": Suite(("documents",), 256, "tokbench", ("rate", "psnr", "ssim", "lpips", "text_pages")),
}
"""All suites by name."""
