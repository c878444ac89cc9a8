"""Descriptions of files that look like images but are not read."""

from __future__ import annotations

from collections.abc import Mapping


def describe_left_out(counts: Mapping[str, int]) -> str:
    """Return a description of `Source.left_out`, with the most frequent suffix first.

    Example: "3 files that look like images: 2 .heic, 1 without a suffix".
    """
    total, ordered = sum(counts.values()), sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = (f"{count:,} {suffix if suffix != NO_SUFFIX else 'without a suffix'}" for suffix, count in ordered)
    noun = "files that look like images" if total > 1 else "file that looks like an image"
    return f"{total:,} {noun}: {', '.join(kinds)}"


def left_out_remedy(counts: Mapping[str, int]) -> str:
    """Return what to do about the files of `Source.left_out`."""
    if any(suffix.startswith((".hei", ".hif")) for suffix in counts):
        return "convert or rename them; pip install pillow-heif reads .heic and .heif"
    return "convert or rename them"


NO_SUFFIX = "(none)"
"""Key of `Source.left_out` for files without an alphabetic suffix, such as `frame.0001`."""
