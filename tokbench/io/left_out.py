"""Files that look like images and are not read, in words."""

from __future__ import annotations

from collections.abc import Mapping


def describe_left_out(counts: Mapping[str, int]) -> str:
    """`Source.left_out` in words, the most frequent first: "3 files that look like images: 2 .heic, 1 without a
    suffix"."""
    total, ordered = sum(counts.values()), sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = (f"{count:,} {suffix if suffix != NO_SUFFIX else 'without a suffix'}" for suffix, count in ordered)
    what = "files that look like images" if total > 1 else "file that looks like an image"
    return f"{total:,} {what}: {', '.join(kinds)}"


NO_SUFFIX = "(none)"
"""The key of `Source.left_out` for files without a suffix of letters: `frame.0001` has none."""
