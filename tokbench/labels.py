"""The class of each image of a data set as a classifier counts it: from a column of labels or from class folders.

Nothing is guessed. A column of integers is taken as it is. Folder names (as for torchvision's `ImageFolder`; in a
folder, a zip or a tar) become labels by one of three rules, the first that applies, and the rule is stated wherever the
accuracy is:

1. `classes.txt` beside the images: the name of one class folder a line, in the order of the network's outputs;
2. the names by which the network itself knows its classes, such as ImageNet's WordNet ids;
3. as many folders as the network has classes: their sorted order, which is `ImageFolder`'s.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokbench.dataset import Dataset
from tokbench.errors import DataError
from tokbench.parquet import Parquet

CLASSES_FILE = "classes.txt"

_SHOWN = 3
"""Names in a message."""

_ENOUGH = 20
"""Images from which on an accuracy at or below chance is worth a warning."""


@dataclass(frozen=True)
class ClassNames:
    """How classes are called, in the order of a network's outputs, and who says so."""

    names: Sequence[str]
    origin: str


@dataclass(frozen=True)
class Labels:
    """by_name: the class of each image of a data set, in [0, classes), by the image's name. classes: those of the
    network. rule: what gave them, in words. warnings: what may be wrong with them."""

    by_name: Mapping[str, int]
    classes: int
    rule: str
    warnings: tuple[str, ...] = ()

    def facts(self, names: Sequence[str]) -> dict[str, Any]:
        """What a result says of the labels of the images that were measured, whose names are given."""
        measured = [self.by_name[name] for name in names]
        digest = hashlib.sha256("".join(f"{label}\n" for label in measured).encode()).hexdigest()
        return {"rule": self.rule, "present": len(set(measured)), "classes": self.classes, "sha256": digest}


def find_labels(
    dataset: Dataset, classes: int, known: ClassNames | None = None, listed: ClassNames | None = None
) -> Labels:
    """The labels of all images of a data set for a network of so many classes.

    known: the network's own names of its classes; listed: those of `read_class_names`.
    Raises DataError, naming file or image, where there are no labels, or they cannot be those of the network.
    """
    if isinstance(dataset.source, Parquet):
        found = _of_column(dataset, dataset.source, classes)
    else:
        found = _of_folders(dataset, classes, known, listed)
    for image, label in found.by_name.items():
        if not 0 <= label < classes:
            raise DataError(
                f"{dataset.name}: {image} has the label {label}, and the network's {classes:,} classes are 0 to "
                f"{classes - 1}; bring the labels of the classes that it was trained on"
            )
    if len(found.by_name) < len(dataset.source.names):
        twice = Counter(dataset.source.names).most_common(1)[0][0]
        raise DataError(f"{dataset.name}: two images are called {twice}, so their labels cannot be told apart")
    if len(dataset.source.names) > 1 and len(set(found.by_name.values())) == 1:
        raise DataError(
            f"{dataset.name}: all {len(found.by_name):,} images have the label {next(iter(found.by_name.values()))}; "
            "accuracy on one class says nothing, and a test set without labels looks like this. Bring several classes"
        )
    return found


def _of_column(dataset: Dataset, source: Parquet, classes: int) -> Labels:
    columns = source.label_columns()
    if not any(column.kind for column in columns):
        raise _without_labels(dataset)
    for column in columns:
        if not column.kind:
            raise DataError(f"{column.file} has no column 'label', and other files of {dataset.name} have one")
        if not column.kind.startswith(("int", "uint")):
            raise DataError(f"{column.file}: its column 'label' holds {column.kind}, and labels are integers from 0")
        if column.names and len(column.names) != classes:
            raise DataError(
                f"{column.file} says that its labels are of {len(column.names):,} classes ({_some(column.names)}), and "
                f"the network has {classes:,}: they do not count the same classes"
            )
    found = source.labels()
    if found is None:
        raise DataError(f"{dataset.name}: its column 'label' has empty rows; give every image its label")
    present = set(found.values())
    warnings: tuple[str, ...] = ()
    if 1 < len(present) < classes and present == set(range(len(present))):
        warnings = (
            f"the labels are 0 to {len(present) - 1}, all of them and no others, and the network has {classes:,} "
            "classes: make sure that they count the network's classes, and not those of a smaller set",
        )
    return Labels(found, classes, "column 'label'", warnings)


def _of_folders(dataset: Dataset, classes: int, known: ClassNames | None, listed: ClassNames | None) -> Labels:
    folders = class_folders(dataset)
    names = sorted(set(folders.values()))
    if listed is not None and len(listed.names) != classes:
        raise DataError(f"{listed.origin} lists {len(listed.names):,} classes, and the network has {classes:,}")
    for given in (listed, known):
        if given is None:
            continue
        index = {name: place for place, name in enumerate(given.names)}
        unknown = [name for name in names if name not in index]
        if not unknown:
            by_name = {image: index[folder] for image, folder in folders.items()}
            return Labels(by_name, classes, f"names of folders, in the order of {given.origin}")
        if given is listed or len(unknown) < len(names):
            raise DataError(f"{dataset.name}: no class of {given.origin} is called {_some(unknown)}; rename or move it")
    if len(names) != classes:
        raise DataError(
            f"{dataset.name}: its {len(names):,} folders ({_some(names)}) are not called as the network's classes are, "
            f"and they are not as many as its {classes:,} classes; put a file {CLASSES_FILE} beside them that names "
            "the folder of each class, one a line, in the order of the network's outputs"
        )
    if all(name.isascii() and name.isdecimal() for name in names) and names != sorted(names, key=int):
        raise DataError(
            f"{dataset.name}: its folders are numbers, and as text they sort in another order ({_some(names)}); put a "
            f"file {CLASSES_FILE} beside them that names the folder of each class, one a line"
        )
    order = {name: place for place, name in enumerate(names)}
    by_name = {image: order[folder] for image, folder in folders.items()}
    return Labels(by_name, classes, f"the {classes:,} folders in sorted order, as ImageFolder counts them")


def class_folders(dataset: Dataset) -> dict[str, str]:
    """The class folder of each image by the image's name: the first folder of its path that not all images share, or
    the innermost where all lie in one. Raises DataError where some or all lie in none."""
    paths = {name: name.split("/")[:-1] for name in dataset.source.names}
    if not any(paths.values()):
        raise _without_labels(dataset)
    first, *rest = paths.values()
    shared = 0
    while shared < len(first) and all(path[shared : shared + 1] == [first[shared]] for path in rest):
        shared += 1
    if all(len(path) == shared for path in paths.values()):
        return {name: path[-1] for name, path in paths.items()}
    for name, path in paths.items():
        if len(path) == shared:
            raise DataError(f"{dataset.name}: {name} lies in no class folder, and other images do; move it into one")
    return {name: path[shared] for name, path in paths.items()}


def read_class_names(path: Path) -> ClassNames:
    """A `classes.txt`: the text of each line, up to a tab. Raises DataError, naming file and line, where a class is
    listed twice or a line is empty."""
    try:
        lines = path.read_text(encoding="utf-8").rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    lines_of: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = line.partition("\t")[0].strip()
        if not name:
            raise DataError(f"{path}: line {number} names no class; list one class a line")
        if name in lines_of:
            raise DataError(f"{path}: lines {lines_of[name]} and {number} both list {name}")
        lines_of[name] = number
    return ClassNames(list(lines_of), path.name)


def at_chance(right: int, count: int, classes: int) -> str | None:
    """A warning where a trained network names no more of `count` images right than chance would; else None."""
    if count < _ENOUGH or right * classes > count:
        return None
    return (
        f"{100 * right / count:.2g} % of {count:,} images are classified correctly, and chance is "
        f"{100 / classes:.2g} %: are the labels those of this network?"
    )


def _without_labels(dataset: Dataset) -> DataError:
    return DataError(
        f"{dataset.name} has no labels, so there is no accuracy; bring Parquet with a column 'label' of integers, or a "
        "folder, zip or tar with a folder for each class"
    )


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
