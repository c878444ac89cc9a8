"""ReadOptions: how the images of a path are found and selected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Pairing = Literal["name", "order"]


@dataclass(frozen=True)
class ReadOptions:
    """How the images of a path are found and selected.

    split: the split to read (train, validation, test) if the path contains several. column: the column of a Parquet or
    Arrow file, or the array of an .npz file, that contains the images; None if there is only one. follow_links: also
    follow symbolic links that leave the folder of images. first: a limit selects the first images of class folders in
    sorted order, and not an even sample of all classes. pair: whether the reconstructions of `images:PATH` belong to
    the images of the same name, or to those at the same positions.
    """

    split: str | None = None
    column: str | None = None
    follow_links: bool = False
    first: bool = False
    pair: Pairing = "name"

    def recorded(self, provenance: Mapping[str, Any]) -> ReadOptions:
        """Return the options with the sampling and the pairing that a result records.

        Results of earlier versions record neither: they were measured on the first images, and paired by name.
        """
        even = provenance["data"].get("sampling") == "even"
        return replace(self, first=not even, pair=provenance.get("adapter", {}).get("pair", "name"))


DEFAULTS = ReadOptions()
"""The only split, the only column, no links out of the folder."""
