"""Questions about images of the data set `scenes`, with exact one-word answers, derived from the images' captions.

A caption of a scene states all its objects (`tokbench.data.synthetic.scenes`), so the answers are exact. All questions
of one type have the same number of words, and each type is balanced: no answer is much more frequent than the others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tokbench.data.synthetic.raster import Draws
from tokbench.data.synthetic.scenes import COLOURS, COUNTS, HELD_OUT, RELATIONS, SHAPES, WORDS, plural
from tokbench.errors import DataError

Kind = Literal["count", "colour", "relation", "reading", "existence"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The types of questions."""

PADDING, BEGIN, END = 0, 1, 2
"""The numbers of an empty place, of the start of a prompt, and of the end of an answer."""

NONSENSE = ("dax", "wug", "blick", "fep", "toma", "zup", "gazzer", "kiki", "lorp", "mib", "nars", "quim")
"""Arbitrary words that prompts with several images bind to colours."""

_FIXED = "how many what colour is the where from which word written there a large small ? yes no left right above below"
_NUMBERS_OF_COUNTS = {"one": 1} | {word: number for number, word in COUNTS.items()}

# Trained weights depend on the numbers: append new words at the end, and do not sort or delete.
VOCABULARY = (
    *_FIXED.split(), *_NUMBERS_OF_COUNTS, *COLOURS, *SHAPES, *map(plural, SHAPES), *WORDS, *NONSENSE,
)  # fmt: skip
"""The words of questions and answers. A word's number is its position here plus 3."""

SIZE = len(VOCABULARY) + 3
"""Number of different numbers."""

_NUMBERS = {word: number for number, word in enumerate(VOCABULARY, 3)}

_ONE_IN = 16
"""Questions after the number of a single object are asked for one image in this many: scenes with two, three, four or
five alike objects are a twentieth of all scenes each, and scenes without alike objects are sixteen twentieths."""


@dataclass(frozen=True)
class Question:
    """A question with its one-word answer.

    kind: its type. words: without the answer; the last one is `?`.
    """

    kind: Kind
    words: tuple[str, ...]
    answer: str

    @property
    def text(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True)
class StatedObject:
    """An object that a caption states; `shape` is a key of SHAPES, `colour` one of COLOURS."""

    size: str
    colour: str
    shape: str


@dataclass(frozen=True)
class Statement:
    """The content of a caption of a scene.

    objects: the main object first. count: how often the main object occurs. relation: where the first object lies from
    the second one. word: the written word, empty if there is none.
    """

    objects: tuple[StatedObject, ...]
    count: int = 1
    relation: str = ""
    word: str = ""


_OBJECT = r"a (large|small) (\w+) (\w+)"
_SEVERAL = re.compile(rf"({'|'.join(COUNTS.values())}) (small) (\w+) (\w+) on a \w+ background")
_RELATED = re.compile(rf"{_OBJECT} ({'|'.join(RELATIONS)}) {_OBJECT} on a \w+ background")
_WRITTEN = re.compile(rf"the word (\w+) (?:above|below) {_OBJECT} on a \w+ background")
_ALONE = re.compile(rf"{_OBJECT} on a \w+ background")
_SINGULAR = {plural(shape): shape for shape in SHAPES}


def parse(caption: str) -> Statement:
    """Return what the caption of a scene states. Raises DataError if it is not the caption of a scene."""
    try:
        if found := _SEVERAL.fullmatch(caption):
            return Statement((_object(found[2], found[3], _SINGULAR[found[4]]),), _NUMBERS_OF_COUNTS[found[1]])
        if found := _RELATED.fullmatch(caption):
            return Statement((_object(*found.group(1, 2, 3)), _object(*found.group(5, 6, 7))), relation=found[4])
        if (found := _WRITTEN.fullmatch(caption)) and found[1] in WORDS:
            return Statement((_object(*found.group(2, 3, 4)),), word=found[1])
        if found := _ALONE.fullmatch(caption):
            return Statement((_object(*found.group(1, 2, 3)),))
    except KeyError:
        pass
    raise DataError(
        f"questions are derived from captions of scenes, and {caption[:80]!r} is none; use the data sets scenes, "
        "scenes-train or scenes-heldout"
    )


def _object(size: str, colour: str, shape: str) -> StatedObject:
    if colour not in COLOURS or shape not in SHAPES:
        raise KeyError(shape)
    return StatedObject(size, colour, shape)


def questions_of(caption: str, draws: Draws) -> list[Question]:
    """Return the questions about an image, at most one of each type, in the order of KINDS.

    The caption determines which types apply; `draws` determines the objects that are asked about.
    """
    stated = parse(caption)
    main, one = stated.objects[0], draws.one_of(stated.objects)
    asked = []
    if stated.count > 1 or draws.below(_ONE_IN) == 0:
        number = next(word for word, count in _NUMBERS_OF_COUNTS.items() if count == stated.count)
        asked.append(_ask("count", f"how many {main.colour} {plural(main.shape)} ?", number))
    asked.append(_ask("colour", f"what colour is the {one.size} {one.shape} ?", one.colour))
    if stated.relation:
        other = next(each for each in stated.objects if each is not one)
        direction = stated.relation.split()[0]
        where = direction if one is main else _OPPOSITE[direction]
        asked.append(
            _ask("relation", f"where is the {one.colour} {one.shape} from the {other.colour} {other.shape} ?", where)
        )
    if stated.word:
        asked.append(_ask("reading", "which word is written ?", stated.word))
    sought = one
    if answer := draws.below(2):
        present = {(each.colour, each.shape) for each in stated.objects}
        others = [(colour, one.shape) for colour in COLOURS] + [(one.colour, shape) for shape in SHAPES]
        # The training split has no held-out pair: questions after one would teach that there never is one.
        absent = [(c, s) for c, s in others if (c, s) not in present and (s, c) not in HELD_OUT]
        sought = StatedObject(one.size, *draws.one_of(absent))
    asked.append(_ask("existence", f"is there a {sought.colour} {sought.shape} ?", "no" if answer else "yes"))
    return asked


_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def _ask(kind: Kind, text: str, answer: str) -> Question:
    return Question(kind, tuple(text.split()), answer)


def encode_words(words: Iterable[str]) -> list[int]:
    """Return the numbers of words. Raises DataError for a word that is not in VOCABULARY."""
    try:
        return [_NUMBERS[word] for word in words]
    except KeyError as error:
        raise DataError(
            f"the word {error} is not in the vocabulary of the questions: {', '.join(VOCABULARY)}"
        ) from error


def decode_words(numbers: Iterable[int]) -> list[str]:
    """Return the words of numbers; those of PADDING, BEGIN and END are empty."""
    names = ("", "", "", *VOCABULARY)
    return [names[number] for number in numbers]


def majority_shares(answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return the share of the most frequent answer of each type: the accuracy of the best guess without an image.

    answers: the answers of all questions by type; types without questions are left out.
    """
    return {kind: Counter(given).most_common(1)[0][1] / len(given) for kind, given in answers.items() if given}
