"""Write the generated tables of README.md and docs/ again; `--check` only compares.

In README.md, from results/. A marker names a leaderboard and, where wanted, numbers to leave out and adapters to show:
    <!-- table: samples-reconstruct -lpips identity jpeg.q50 -->
In docs/protocols.md, from the protocols' own files, between `<!-- protocols -->` markers.
"""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tokbench import leaderboard
from tokbench.halves import INFINITY
from tokbench.protocol import TOKBENCH, load_protocol, protocols

ROOT = Path(__file__).resolve().parent.parent
MARKED = re.compile(r"<!-- table: (\S+)([^\n]*?) -->\n.*?<!-- /table -->", re.DOTALL)
PROTOCOLS = re.compile(r"<!-- protocols -->\n.*?<!-- /protocols -->", re.DOTALL)
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
        hidden += [number for result in tables[name] for number in result.metrics if number.endswith(INFINITY)]
        rows = [result for result in tables[name] if not wanted or result.adapter in wanted]
        head = f"<!-- table: {name}{match[2]} -->\n"
        return f"{head}{leaderboard.markdown(rows, (*LEFT_OUT, *hidden))}\n{leaderboard.legend(rows)}\n<!-- /table -->"

    return MARKED.sub(table, text)


def with_protocols(text: str) -> str:
    """The text with the table of protocols made from today's files."""
    default = _flat(asdict(TOKBENCH))
    rows = []
    for name in protocols():
        protocol = load_protocol(name)
        differ = [f"{key} {value}" for key, value in _flat(asdict(protocol)).items() if value != default[key]]
        published = [f"{protocol.published.size} px"] * bool(protocol.published.size)
        published += [f"N {protocol.published.num_images:,}"] if protocol.published.num_images else []
        sources = "; ".join(dict.fromkeys(source.partition(": ")[0] for source in protocol.source))
        told = [", ".join(differ), ", ".join(published), sources]
        rows.append([f"`{name}`", protocol.sha256[:8], *(text or "-" for text in told)])
    head = ["protocol", "hash", "differs from the default in", "its authors use", "read from"]
    made = leaderboard.table(head, rows, left=range(5), markup=True)
    return PROTOCOLS.sub(lambda _: f"<!-- protocols -->\n{made}<!-- /protocols -->", text)


def _flat(told: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested fields by their dotted names, without those that change no number."""
    found: dict[str, Any] = {}
    for key, value in told.items():
        if isinstance(value, dict) and key != "published":
            found |= _flat(value, f"{before}{key}.")
        elif key not in ("name", "summary", "source", "published"):
            found[f"{before}{key}"] = value
    return found


WRITTEN = {"README.md": filled, "docs/protocols.md": with_protocols}
"""Every file with generated parts, and what makes them."""


def main() -> int:
    stale = 0
    for name, make in WRITTEN.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        made = make(text)
        stale += made != text
        if "--check" not in sys.argv:
            (ROOT / name).write_text(made, encoding="utf-8")
    return int(bool(stale)) if "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
