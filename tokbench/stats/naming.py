"""How names of numbers show what was done to them. This module imports nothing, so that reading names stays cheap."""

INFINITY = "_infinity"
"""Ends the name of a number that is extrapolated to infinitely many images."""
