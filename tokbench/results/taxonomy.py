"""The columns of tables that state the taxonomy of tokenizers (`tokbench.tokenizers.taxonomy`)."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.results.result import Result

TAXONOMY_COLUMNS = ("quantizer", "codebooks", "causal", "training", "domain")
"""The entries of the taxonomy, in order. Bits and bitrate are metrics."""


def taxonomy_columns(results: Sequence[Result]) -> dict[str, list[str]]:
    """Return the entries of the rows by column, "" where a result records none.

    Columns that are empty or the same in all rows are left out.
    """
    stated = [result.provenance["adapter"].get("taxonomy", {}) for result in results]
    columns = {name: [str(own.get(name, "")) for own in stated] for name in TAXONOMY_COLUMNS}
    return {name: entries for name, entries in columns.items() if len(set(entries)) > 1}
