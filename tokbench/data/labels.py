"""Class labels of the images of a dataset, for classifiers: from a label column or from class folders.

A column of integers is used unchanged. Folder names (as for torchvision's `ImageFolder`; in a folder, a zip or a tar)
become labels by the first of three rules that applies. The rule is reported wherever the accuracy is:

1. `classes.txt` lists the name of one class folder per line, in the order of the network's outputs. It is searched in
   the folder that contains the class folders and above it, up to the given folder or archive; then beside the archive;
   then, if the given folder is named after a split (`val`), in its parent folder, but no further up;
2. the network's own class names, such as ImageNet's WordNet ids;
3. if there are as many folders as classes, their sorted order, as in `ImageFolder`.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokbench.data.class_folders import class_folders, common_folders, no_labels_error
from tokbench.data.dataset import Dataset
from tokbench.data.sources.base import CLASSES_FILE
from tokbench.data.sources.folder import read_class_list
from tokbench.data.sources.synthetic import SyntheticSource
from tokbench.data.sources.table import Table
from tokbench.data.splits import is_split
from tokbench.data.stream import ImageStream
from tokbench.errors import DataError, NotApplicable

_NUM_EXAMPLES = 3
"""Number of names that a message gives as examples."""

_MIN_IMAGES = 20
"""Minimum number of images for a warning about an accuracy at or below chance."""

_NUM_DRAWS, _MAX_DEVIATIONS = 200, 5
"""Number of random draws, and the number of standard deviations from their mean beyond which the first images of a
dataset are not considered a random sample of its classes."""


@dataclass(frozen=True)
class ClassNames:
    """Class names in the order of a network's outputs. origin: their source, for messages."""

    names: Sequence[str]
    origin: str


@dataclass(frozen=True)
class Labels:
    """The labels of a dataset.

    by_name: label of each image, in [0, classes), by the image's name. classes: number of classes of the network.
    rule: description of the rule that gave the labels. warnings: possible problems.
    """

    by_name: Mapping[str, int]
    classes: int
    rule: str
    warnings: tuple[str, ...] = ()

    def facts(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the entry of a result that describes the labels of the measured images `names`."""
        measured = [self.by_name[name] for name in names]
        digest = hashlib.sha256("".join(f"{label}\n" for label in measured).encode()).hexdigest()
        return {"rule": self.rule, "present": len(set(measured)), "classes": self.classes, "sha256": digest}


def find_labels(
    dataset: Dataset, classes: int, known: ClassNames | None = None, listed: ClassNames | None = None
) -> Labels:
    """Return the labels of all images of a dataset for a network with `classes` classes.

    known: the network's own class names. listed: the names from `listed_classes`.
    Raises DataError, naming the file or image, if there are no labels or if they cannot be those of the network.
    """
    if isinstance(dataset.source, Table):
        labels = _labels_from_column(dataset, dataset.source, classes)
    elif isinstance(dataset.source, SyntheticSource):
        drawn = dataset.source.labels()
        if drawn is None:
            raise DataError(f"{dataset.name}: its drawn images have no labels")
        labels = Labels(drawn, classes, "drawn with the images")
    else:
        labels = _labels_from_folders(dataset, classes, known, listed)
    for image, label in labels.by_name.items():
        if not 0 <= label < classes:
            raise DataError(
                f"{dataset.name}: {image} has the label {label}, but the labels of the network's {classes:,} classes "
                f"are 0 to {classes - 1}; provide the labels of the classes that it was trained on"
            )
    if len(labels.by_name) < len(dataset.source.names):
        repeated = Counter(dataset.source.names).most_common(1)[0][0]
        raise DataError(f"{dataset.name}: two images have the name {repeated}, so their labels are ambiguous")
    if len(dataset.source.names) > 1 and len(set(labels.by_name.values())) == 1:
        raise DataError(
            f"{dataset.name}: all {len(labels.by_name):,} images have the label {min(labels.by_name.values())}; "
            "accuracy on one class is meaningless, and the labels may be placeholders of a test set without labels. "
            "Provide images of several classes"
        )
    if warning := _check_first_images(dataset, labels):
        labels = replace(labels, warnings=(*labels.warnings, warning))
    return labels


def labels_by_position(images: ImageStream, classes: int) -> tuple[np.ndarray, Labels]:
    """Return the label of the image at each position (n,), int64, and the labels of the whole dataset.

    Class folders are numbered by a `classes.txt` among them, or in sorted order. Raises NotApplicable if the images
    have no labels, or none that can be those of a network with `classes` classes.
    """
    if not isinstance(images, Dataset):
        raise NotApplicable(f"{images.name} has no labels of single images")
    try:
        listed = None if isinstance(images.source, Table) else listed_classes(images, None)
        labels = find_labels(images, classes, listed=listed)
    except DataError as error:
        raise NotApplicable(str(error)) from error
    return np.array([labels.by_name[name] for name in images.names], dtype=np.int64), labels


def _check_first_images(dataset: Dataset, labels: Labels) -> str | None:
    """Return a warning if a limit selects images whose classes differ from those of the whole dataset; else None.

    This happens if the images are sorted by class. The total variation distance (half the sum of absolute differences)
    between the class shares of the first images and of all images is compared with that of random draws of the same
    number of images. Raises DataError if the first images have only one class.
    """
    count, whole = len(dataset), len(dataset.source.names)
    if count == whole:
        return None
    remedy = "omit --first, or " if dataset.sampling == "first" and dataset.source.sorted_by_name else ""
    remedy += "provide the images in mixed order, or give a pattern with images of each class instead of --limit"
    values = [labels.by_name[name] for name in dataset.source.names]
    classes, index = np.unique(values, return_inverse=True)
    if count > 1 and len(classes) > 1 and len(set(index[:count].tolist())) == 1:
        raise DataError(
            f"{dataset.name}: its first {count:,} images all have the class {values[0]}, but all {whole:,} images have "
            f"{len(classes):,} classes, so the accuracy would be that of one class; {remedy}"
        )
    totals, first = np.bincount(index), np.bincount(index[:count], minlength=len(classes))
    draws = np.random.default_rng(0).multivariate_hypergeometric(totals, count, size=_NUM_DRAWS, method="marginals")
    random_distances = np.abs(draws / count - totals / whole).sum(1) / 2
    distance = float(np.abs(first / count - totals / whole).sum() / 2)
    if distance <= random_distances.mean() + _MAX_DEVIATIONS * random_distances.std():
        return None
    return (
        f"the first {count:,} of {whole:,} images have {np.count_nonzero(first):,} of {len(classes):,} classes, and "
        f"the shares of the classes differ from those of all images by {100 * distance:.0f} % (random draws: "
        f"{100 * random_distances.mean():.0f} %), so the accuracy does not represent all classes; {remedy}"
    )


def _labels_from_column(dataset: Dataset, source: Table, classes: int) -> Labels:
    columns = source.label_columns()
    if not any(column.kind for column in columns):
        raise no_labels_error(dataset.name)
    for column in columns:
        if not column.kind:
            raise DataError(f"{column.file} has no column 'label', but other files of {dataset.name} have one")
        if not column.kind.startswith(("int", "uint")):
            raise DataError(f"{column.file}: its column 'label' has type {column.kind}; labels must be integers from 0")
        if column.names and len(column.names) != classes:
            raise DataError(
                f"{column.file} states that its labels have {len(column.names):,} classes ({_examples(column.names)}), "
                f"but the network has {classes:,}"
            )
    by_name = source.labels()
    if by_name is None:
        raise DataError(f"{dataset.name}: its column 'label' has empty rows; every image needs a label")
    present = set(by_name.values())
    warnings: tuple[str, ...] = ()
    if 1 < len(present) < classes and present == set(range(len(present))):
        warnings = (
            f"the labels are exactly 0 to {len(present) - 1}, but the network has {classes:,} classes: make sure that "
            "they are labels of the network's classes and not of a smaller set",
        )
    return Labels(by_name, classes, "column 'label'", warnings)


def _labels_from_folders(dataset: Dataset, classes: int, known: ClassNames | None, listed: ClassNames | None) -> Labels:
    folders = class_folders(dataset.name, dataset.source)
    names = sorted(set(folders.values()))
    if listed is not None and len(listed.names) != classes:
        raise DataError(f"{listed.origin} lists {len(listed.names):,} classes, but the network has {classes:,}")
    for given in (listed, known):
        if given is None:
            continue
        index = {name: i for i, name in enumerate(given.names)}
        unknown = [name for name in names if name not in index]
        if not unknown:
            by_name = {image: index[folder] for image, folder in folders.items()}
            return Labels(by_name, classes, f"names of folders, in the order of {given.origin}")
        if given is listed or len(unknown) < len(names):
            raise DataError(
                f"{dataset.name}: {given.origin} has no class named {_examples(unknown)}; rename or move the folder"
            )
    if len(names) != classes:
        raise DataError(
            f"{dataset.name}: its {len(names):,} folders ({_examples(names)}) are not named after the network's "
            f"classes, and their number is not {classes:,}, the number of classes; put a file {CLASSES_FILE} beside "
            "them that lists the folder of each class, one per line, in the order of the network's outputs"
        )
    if all(name.isascii() and name.isdecimal() for name in names) and names != sorted(names, key=int):
        raise DataError(
            f"{dataset.name}: the names of its folders are numbers, whose order as text is different "
            f"({_examples(names)}); put a file {CLASSES_FILE} beside them that lists the folder of each class, one per "
            "line"
        )
    order = {name: i for i, name in enumerate(names)}
    by_name = {image: order[folder] for image, folder in folders.items()}
    return Labels(by_name, classes, f"the {classes:,} folders in sorted order, as ImageFolder counts them")


def listed_classes(dataset: Dataset, place: Path | None) -> ClassNames | None:
    """Return the class names of the nearest `classes.txt` of a dataset with class folders; None if there is no file.

    place: the folder or file that contains the images. Raises DataError if the list cannot be read.
    """
    folders = common_folders([name.split("/")[:-1] for name in dataset.source.inner_names])
    for depth in range(len(folders), -1, -1):
        folder = "/".join(folders[:depth])
        if (content := dataset.source.class_list(folder)) is not None:
            return parse_class_names(content, f"{folder}/{CLASSES_FILE}" if folder else CLASSES_FILE)
    if place is not None and (not place.is_dir() or is_split(os.path.basename(os.path.abspath(place)))):
        file = Path(os.path.abspath(place)).parent / CLASSES_FILE  # for a link, its own folder and not the target's
        if (content := read_class_list(file)) is not None:
            where = "above the split's folder" if place.is_dir() else "beside the archive"
            return parse_class_names(content, f"{CLASSES_FILE} {where}", str(file))
    return None


def parse_class_names(content: bytes, origin: str, file: str | None = None) -> ClassNames:
    """Return the class names in a `classes.txt`: the text of each line, up to a tab.

    Raises DataError, naming file and line, if a class is listed twice or a line is empty.
    """
    file = file or origin
    try:
        lines = content.decode("utf-8-sig").rstrip().split("\n")  # Windows editors add a byte-order mark
    except UnicodeDecodeError as error:
        raise DataError(f"{file} cannot be read ({error}); save it as UTF-8") from error
    lines_of: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = line.partition("\t")[0].strip()
        if not name:
            raise DataError(f"{file}: line {number} names no class; list one class per line")
        if name in lines_of:
            raise DataError(f"{file}: lines {lines_of[name]} and {number} both list {name}")
        lines_of[name] = number
    return ClassNames(list(lines_of), origin)


def at_chance(correct: int, count: int, classes: int) -> str | None:
    """Return a warning if the accuracy of a trained network, correct / count, is not above chance; else None."""
    if count < _MIN_IMAGES or correct * classes > count:
        return None
    return (
        f"{100 * correct / count:.2g} % of {count:,} images are classified correctly, but chance is "
        f"{100 / classes:.2g} %: are the labels those of this network?"
    )


def _examples(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _NUM_EXAMPLES:,} more" if len(names) > _NUM_EXAMPLES else ""
    return ", ".join(names[:_NUM_EXAMPLES]) + rest
