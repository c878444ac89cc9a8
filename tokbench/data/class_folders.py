"""The class folders of a source's images, from which labels follow."""

from __future__ import annotations

from collections.abc import Iterable

from tokbench.data.sources.base import Source
from tokbench.errors import DataError


def class_folders(dataset: str, source: Source) -> dict[str, str]:
    """Return the class folder of each image, by the image's name.

    It is the first folder of the path that is not common to all images, or the innermost folder if all images are in
    the same one. dataset: its name, for messages. Raises DataError if some images are not in a class folder.
    """
    paths = {name: inner.split("/")[:-1] for name, inner in zip(source.names, source.inner_names, strict=True)}
    if not any(paths.values()):
        raise no_labels_error(dataset)
    shared = len(common_folders(paths.values()))
    if all(len(path) == shared for path in paths.values()):
        return {name: path[-1] for name, path in paths.items()}
    for name, path in paths.items():
        if len(path) == shared:
            raise DataError(
                f"{dataset}: {name} is not in a class folder, but other images are; move it into a class folder"
            )
    return {name: path[shared] for name, path in paths.items()}


def common_folders(paths: Iterable[list[str]]) -> list[str]:
    """Return the leading folders that all paths have in common."""
    first, *rest = paths
    shared = 0
    while shared < len(first) and all(path[shared : shared + 1] == [first[shared]] for path in rest):
        shared += 1
    return first[:shared]


def no_labels_error(dataset: str) -> DataError:
    """Return the error that a dataset has no labels."""
    return DataError(
        f"{dataset} has no labels, so its accuracy cannot be computed; provide Parquet files with an integer "
        "column 'label', or a folder, zip or tar with one folder per class"
    )


def labels_of(dataset: str, source: Source) -> dict[str, int] | None:
    """Return a label for each image by its name: the source's own, or the position of its class folder among all
    folders in sorted order; None if there are no labels, or only one.

    Raises DataError if the source's labels cannot be read.
    """
    labels = source.labels()
    if labels is None:
        try:
            folders = class_folders(dataset, source)
        except DataError:
            return None
        order = {folder: place for place, folder in enumerate(sorted(set(folders.values())))}
        labels = {name: order[folder] for name, folder in folders.items()}
    return labels if len(set(labels.values())) > 1 else None
