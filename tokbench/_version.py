"""The version of tokbench."""

__version__ = "0.1.0"
