"""Numbers of things in messages."""

from __future__ import annotations


def count_of(number: int, noun: str) -> str:
    """Return "1 image", "2 images" or "2,000 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
