"""Where the source checkout lies."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
