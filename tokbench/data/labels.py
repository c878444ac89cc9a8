"""The class of each image of a data set as a classifier counts it: from a column of labels or from class folders.

Nothing is guessed. A column of integers is taken as it is. Folder names (as for torchvision's `ImageFolder`; in a
folder, a zip or a tar) become labels by one of three rules, the first that applies, and the rule is stated wherever the
accuracy is:

1. `classes.txt`: the name of one class folder a line, in the order of the network's outputs. It lies in the folder that
   holds the class folders or above that, up to the folder or archive that was given; else beside the archive; else, of
   a folder that is called as a split (`val`), in the folder that holds it, and no further up;
2. the names by which the network itself knows its classes, such as ImageNet's WordNet ids;
3. as many folders as the network has classes: their sorted order, which is `ImageFolder`'s.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.data.dataset import Dataset
from tokbench.data.sources.base import CLASSES_FILE
from tokbench.data.sources.folder import read_class_list
from tokbench.data.sources.parquet import Parquet
from tokbench.data.splits import is_split
from tokbench.errors import DataError

_SHOWN = 3
"""Names in a message."""

_ENOUGH = 20
"""Images from which on an accuracy at or below chance is worth a warning."""


_DRAWS, _FAR = 200, 5
"""Random draws of as many images, and the standard deviations of their distance from the whole set's shares of classes
beyond which the first images are no such draw."""


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

    known: the network's own names of its classes; listed: those of `listed_classes`.
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
    if uneven := _of_the_first(dataset, found):
        found = replace(found, warnings=(*found.warnings, uneven))
    return found


def _of_the_first(dataset: Dataset, found: Labels) -> str | None:
    """What is wrong with the classes of the first images, where only so many are measured and they are sorted by class
    or nearly so: a warning, or None. Raises DataError where they are all of one class.

    The share of images that are of other classes than in the whole set (half the sum of absolute differences of shares)
    is held against that of as many images drawn at random.
    """
    count, whole = len(dataset), len(dataset.source.names)
    if count == whole:
        return None
    several = "bring the images in mixed order, or give a pattern that takes some of each class instead of --limit"
    labels = [found.by_name[name] for name in dataset.source.names]
    classes, index = np.unique(labels, return_inverse=True)
    if count > 1 and len(classes) > 1 and len(set(index[:count].tolist())) == 1:
        raise DataError(
            f"{dataset.name}: its first {count:,} images are all of the class {labels[0]}, and all {whole:,} are of "
            f"{len(classes):,} classes, so their accuracy says nothing of these; {several}"
        )
    totals, first = np.bincount(index), np.bincount(index[:count], minlength=len(classes))
    drawn = np.random.default_rng(0).multivariate_hypergeometric(totals, count, size=_DRAWS, method="marginals")
    chance = np.abs(drawn / count - totals / whole).sum(1) / 2
    apart = float(np.abs(first / count - totals / whole).sum() / 2)
    if apart <= chance.mean() + _FAR * chance.std():
        return None
    return (
        f"the first {count:,} of {whole:,} images are of {np.count_nonzero(first):,} of {len(classes):,} classes, in "
        f"other shares than all of them, {100 * apart:.0f} % apart ({100 * chance.mean():.0f} % of as many drawn at "
        f"random): accuracy is of these classes alone; {several}"
    )


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
    shared = len(_shared(paths.values()))
    if all(len(path) == shared for path in paths.values()):
        return {name: path[-1] for name, path in paths.items()}
    for name, path in paths.items():
        if len(path) == shared:
            raise DataError(f"{dataset.name}: {name} lies in no class folder, and other images do; move it into one")
    return {name: path[shared] for name, path in paths.items()}


def _shared(paths: Iterable[list[str]]) -> list[str]:
    """The folders that all paths begin with."""
    first, *rest = paths
    shared = 0
    while shared < len(first) and all(path[shared : shared + 1] == [first[shared]] for path in rest):
        shared += 1
    return first[:shared]


def listed_classes(dataset: Dataset, place: Path | None) -> ClassNames | None:
    """What the nearest `classes.txt` of a data set of class folders lists; None where there is none.

    place: the folder or file that holds the images. Raises DataError where the list cannot be read.
    """
    folders = _shared([name.split("/")[:-1] for name in dataset.source.names])
    for depth in range(len(folders), -1, -1):
        folder = "/".join(folders[:depth])
        if (told := dataset.source.class_list(folder)) is not None:
            return parse_class_names(told, f"{folder}/{CLASSES_FILE}" if folder else CLASSES_FILE)
    if place is not None and (not place.is_dir() or is_split(os.path.basename(os.path.abspath(place)))):
        file = Path(os.path.abspath(place)).parent / CLASSES_FILE  # a link counts as where it lies, not where it leads
        if (told := read_class_list(file)) is not None:
            where = "above the split's folder" if place.is_dir() else "beside the archive"
            return parse_class_names(told, f"{CLASSES_FILE} {where}", str(file))
    return None


def parse_class_names(told: bytes, origin: str, file: str | None = None) -> ClassNames:
    """A `classes.txt`: the text of each line, up to a tab. Raises DataError, naming file and line, where a class is
    listed twice or a line is empty."""
    file = file or origin
    try:
        lines = told.decode("utf-8-sig").rstrip().split("\n")  # Windows editors begin with a byte-order mark
    except UnicodeDecodeError as error:
        raise DataError(f"{file} cannot be read ({error}); save it as UTF-8") from error
    lines_of: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = line.partition("\t")[0].strip()
        if not name:
            raise DataError(f"{file}: line {number} names no class; list one class a line")
        if name in lines_of:
            raise DataError(f"{file}: lines {lines_of[name]} and {number} both list {name}")
        lines_of[name] = number
    return ClassNames(list(lines_of), origin)


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
