"""Questions about scenes: exact answers, balanced types, the same for a name, and no word outside the vocabulary."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from tokbench.data.questions import (
    KINDS,
    VOCABULARY,
    Question,
    decode_words,
    encode_words,
    majority_shares,
    parse,
    questions_of,
)
from tokbench.data.synthetic.raster import Draws
from tokbench.data.synthetic.scenes import HELD_OUT, Scene, caption_of, make_scene, plural
from tokbench.errors import DataError


def asked(split: str, count: int) -> list[tuple[Scene, Question]]:
    scenes = [make_scene(split, place) for place in range(count)]  # type: ignore[arg-type]
    return [
        (scene, one)
        for place, scene in enumerate(scenes)
        for one in questions_of(caption_of(scene), Draws(f"{split} {place}"))
    ]


def holds(scene: Scene, one: Question) -> bool:
    """Whether the answer follows from the scene itself, without its caption."""
    drawn = [each for each in scene.objects if not each.text]
    if one.kind == "count":
        named = [each for each in drawn if (each.colour, plural(each.shape)) == one.words[2:4]]
        return {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}[one.answer] == len(named)
    if one.kind == "colour":
        return {each.colour for each in drawn if (each.size, each.shape) == one.words[4:6]} == {one.answer}
    if one.kind == "reading":
        return [each.text for each in scene.objects if each.text] == [one.answer]
    if one.kind == "existence":
        there = any((each.colour, each.shape) == one.words[3:5] for each in drawn)
        return one.answer == ("yes" if there else "no")
    first, second = (
        next(place for place, each in enumerate(drawn) if (each.colour, each.shape) == pair)
        for pair in (one.words[3:5], one.words[7:9])
    )
    return scene.relation(first, second).split()[0] == one.answer


@pytest.mark.parametrize("split", ["test", "heldout"])
def test_answers_are_true_and_balanced(split: str) -> None:
    found, lengths = defaultdict(list), defaultdict(set)
    for scene, one in asked(split, 1500):
        assert holds(scene, one), (caption_of(scene), one)
        found[one.kind].append(one.answer)
        lengths[one.kind].add(len(one.words))
        assert decode_words(encode_words((*one.words, one.answer))) == [*one.words, one.answer]
    assert set(found) == set(KINDS)
    assert all(len(different) == 1 for different in lengths.values())  # types are batched without padding
    floors = majority_shares(found)
    limits = {"count": 0.3, "colour": 0.2, "relation": 0.3, "reading": 0.15, "existence": 0.55}
    assert all(floors[kind] < limit for kind, limit in limits.items()), floors
    assert min(Counter(found["count"]).values()) > 40


def test_questions_about_held_out_pairs_are_asked_only_where_they_are() -> None:
    """Otherwise a model would learn in training that such a pair never is in an image."""
    pairs = {one.words[3:5] for _, one in asked("train", 1500) if one.kind == "existence"}
    assert not pairs & {(colour, shape) for shape, colour in HELD_OUT}
    assert len(pairs) == 42


def test_the_same_name_gives_the_same_questions() -> None:
    caption = caption_of(make_scene("test", 3))
    assert questions_of(caption, Draws("a")) == questions_of(caption, Draws("a"))
    assert len({tuple(questions_of(caption, Draws(str(seed)))) for seed in range(20)}) > 1


def test_other_captions_and_words_are_refused() -> None:
    for caption in ("a photo of a dog, mostly red", "a large red dog on a white background", "two small red box"):
        with pytest.raises(DataError, match="derived from captions of scenes"):
            parse(caption)
    with pytest.raises(DataError, match="'dog food'"):
        encode_words(["dog food"])
    assert len(set(VOCABULARY)) == len(VOCABULARY)
