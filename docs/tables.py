"""Write the tables of README.md again from results/, between their `table:` markers; `--check` only compares.

A marker names a leaderboard and, optionally, numbers to leave out and the adapters to show:
    <!-- table: samples-reconstruct -lpips identity jpeg.q50 -->
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tokbench import leaderboard

ROOT = Path(__file__).resolve().parent.parent
MARKED = re.compile(r"<!-- table: (\S+)([^\n]*?) -->\n.*?<!-- /table -->", re.DOTALL)
# Speeds are one machine's; the rest is in results/leaderboard/.
LEFT_OUT = (
    "bits_per_image", "exact", "rfid_192", "rfid_64", "kid", "kid_768", "perplexity", "codebook_entropy", "parameters",
    "encode_images_per_second", "decode_images_per_second", "peak_memory_mib",
)  # fmt: skip


def filled(text: str) -> str:
    """The text with every marked table made from today's results."""
    tables = leaderboard.groups(leaderboard.read_all(ROOT / "results"))

    def table(match: re.Match[str]) -> str:
        name, words = match[1], match[2].split()
        wanted = [word for word in words if not word.startswith("-")]
        hidden = [word[1:] for word in words if word.startswith("-")]
        rows = [result for result in tables[name] if not wanted or result.adapter in wanted]
        head = f"<!-- table: {name}{match[2]} -->\n"
        return f"{head}{leaderboard.markdown(rows, (*LEFT_OUT, *hidden))}\n{leaderboard.legend(rows)}\n<!-- /table -->"

    return MARKED.sub(table, text)


def main() -> int:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    made = filled(text)
    if "--check" in sys.argv:
        return int(made != text)
    readme.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
