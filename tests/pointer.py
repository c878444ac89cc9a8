"""The pointer in a browser: a plot that is drawn anew just then misses its first visit."""

from __future__ import annotations

from typing import Any

TRIES, WAIT = 10, 2_000
"""Number of visits, and ms to wait after each."""


def hover(page: Any, point: Any, condition: str, arg: object = None) -> None:
    """Move the pointer away and onto `point` until the JavaScript condition holds; the last try raises its error."""
    for attempt in range(TRIES):
        page.mouse.move(0, 0)
        point.hover(force=True)
        try:
            page.wait_for_function(condition, arg=arg, timeout=WAIT)
            return
        except Exception:
            if attempt == TRIES - 1:
                raise
