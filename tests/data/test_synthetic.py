"""Synthetic images: their captions and labels are true, splits do not share compositions, pixels never change."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from tokbench.data.colours import NAMES, colour_names, main_colour
from tokbench.data.dataset import open_dataset
from tokbench.data.sources.synthetic import RECIPES, SyntheticSource
from tokbench.data.synthetic import phantoms, scenes, styled
from tokbench.data.synthetic.raster import noise
from tokbench.data.vocabulary import LENGTH, UNKNOWN, WORDS, encode_captions, split_words
from tokbench.errors import DataError
from tokbench.protocol.protocol import load_protocol

TOKBENCH = load_protocol("tokbench")


def digest(pixels: list[np.ndarray]) -> str:
    return hashlib.sha256(np.stack(pixels).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    "recipe, expected",
    [("scenes", "bc2332788243585f"), ("phantoms", "efebdc67f3af4c17"), ("styled", "be7a362afbd1c55f")],
)
def test_the_pixels_never_change(recipe: str, expected: str) -> None:
    """Results name these data sets, so the same name must always mean the same pixels."""
    source = SyntheticSource(recipe, "test", 64)
    assert digest([np.asarray(source.open(position)) for position in range(64)]) == expected


def main_pixels(scene: scenes.Scene) -> np.ndarray:
    """The pixels of a scene that have the colour of the main object."""
    return (scenes.draw(scene) == np.array(scene.main.rgb)).all(axis=2)


def test_captions_of_scenes_state_what_is_drawn() -> None:
    kinds = set()
    for position in range(300):
        scene = scenes.make_scene("test", position)
        caption, drawn = scenes.caption_of(scene), main_pixels(scene)
        rows, columns = np.nonzero(drawn)
        assert 0.2 < np.count_nonzero(drawn) / (2 * scene.main.radius * 64) ** 2 < 1.1
        kind = "several" if scene.alike else ("word" if scene.objects[-1].text else len(scene.objects))
        kinds.add(kind)
        assert scene.background in caption
        if kind == "several":
            assert caption.startswith(scenes.COUNTS[len(scene.objects)])
            assert scenes.plural(scene.main.shape) in caption
        elif kind == "word":
            assert scene.objects[1].text in caption
            ink = (scenes.draw(scene) == np.array(scene.objects[1].rgb)).all(axis=2).nonzero()[0].mean()
            assert ("below" in caption) == (ink > rows.mean())
        elif kind == 2:
            other = scene.objects[1]
            gap = np.array([columns.mean(), rows.mean()]) / 64 - (other.x, other.y)
            where = ("left of", "right of") if abs(gap[0]) > abs(gap[1]) else ("above", "below")
            assert f"{scene.main.phrase} {where[int(gap[np.abs(gap).argmax()] > 0)]} {other.phrase}" in caption
            assert other.radius < scene.main.radius
    assert kinds == {"several", "word", 1, 2}


def test_objects_stay_inside_the_image() -> None:
    for position in range(500):
        for one in scenes.make_scene("train", position).objects:
            if not one.text:
                assert one.x - one.radius > 0 and one.x + one.radius < 1
                assert one.y - one.radius > 0 and one.y + one.radius < 1


def test_only_the_heldout_split_has_heldout_pairs() -> None:
    def pairs(split: scenes.Split, objects: slice) -> set[tuple[str, str]]:
        made = (scenes.make_scene(split, position).objects[objects] for position in range(600))
        return {(one.shape, one.colour) for some in made for one in some if not one.text}

    assert not (pairs("train", slice(None)) | pairs("test", slice(None))) & scenes.HELD_OUT
    assert pairs("heldout", slice(1)) == scenes.HELD_OUT
    assert len(pairs("train", slice(1))) == 48 - 6


def test_splits_do_not_share_images() -> None:
    for recipe in RECIPES.values():
        drawn = [recipe.draw(recipe.make(split, at)).tobytes() for split in recipe.splits for at in range(40)]
        assert len(set(drawn)) == len(drawn)


def test_labels_of_scenes_name_the_main_object() -> None:
    source = SyntheticSource("scenes", "test", 50)
    for position, label in enumerate(source.labels().values()):
        main = source.describe(position).main
        assert scenes.CLASSES[label] == f"{main.colour} {main.shape}"
        assert main_colour(np.full((4, 4, 3), main.rgb, dtype=np.uint8)) == {"cyan": "blue"}.get(
            main.colour, main.colour
        )


def test_phantoms_have_the_lesion_that_their_label_names() -> None:
    for position in range(200):
        phantom = phantoms.make_phantom("test", position)
        caption, label = phantoms.caption_of(phantom), phantoms.label_of(phantom)
        assert (phantoms.LESIONS[label] in caption) if label else ("without" in caption)
        assert phantom.law in split_words(caption)
        if label:
            lesion = phantom.ellipses[-1]
            assert phantoms.TISSUES[lesion.tissue] == phantom.lesion
            assert (lesion.x < 0.5) == (phantom.side == "left")
            drawn = phantoms.draw(phantom)[int(lesion.y * 64), int(lesion.x * 64), 0]
            assert abs(float(drawn) - phantom.levels[lesion.tissue]) < 0.3 * phantom.levels[lesion.tissue] + 18
    assert set(phantoms.LAWS) == {phantoms.make_phantom("test", at).law for at in range(40)}


def test_the_noise_has_unit_variance() -> None:
    drawn = noise(7, 100_000)
    assert abs(drawn.mean()) < 0.02 and abs(drawn.std() - 1) < 0.01


def test_every_word_of_a_caption_is_in_the_vocabulary(root) -> None:
    used = {word for recipe in RECIPES.values() for word in recipe.vocabulary()} | {"photo", "of", "an", "mostly"}
    names = (root / "datasets" / "tiny-imagenet" / "class_names.txt").read_text().split()
    assert used | set(names) | set(NAMES) <= set(WORDS)
    assert len(set(WORDS)) == len(WORDS)
    for recipe in (RECIPES["scenes"], RECIPES["phantoms"]):
        made = {word for at in range(300) for word in split_words(recipe.caption_of(recipe.make("train", at)))}
        assert made <= recipe.vocabulary()


def test_captions_become_numbers() -> None:
    rows = encode_captions(["A red circle.", "a zebra"])
    assert rows.shape == (2, LENGTH)
    assert [WORDS[number - 2] for number in rows[0, :3]] == ["a", "red", "circle"]
    assert rows[0, 3:].eq(0).all() and rows[1, 1] == UNKNOWN
    with pytest.raises(DataError, match="21 words"):
        encode_captions(["a " * 21])
    with pytest.raises(DataError, match="0 words"):
        encode_captions(["..."])


@pytest.mark.parametrize(
    "rgb, name",
    [
        ((10, 10, 10), "black"), ((250, 250, 250), "white"), ((120, 125, 120), "grey"), ((200, 20, 30), "red"),
        ((240, 140, 20), "orange"), ((110, 70, 30), "brown"), ((230, 220, 40), "yellow"), ((30, 160, 60), "green"),
        ((40, 190, 200), "blue"), ((40, 60, 200), "blue"), ((130, 50, 170), "purple"), ((245, 150, 190), "pink"),
        ((250, 160, 160), "pink"),
    ],
)  # fmt: skip
def test_colours_have_their_common_names(rgb: tuple[int, int, int], name: str) -> None:
    assert NAMES[int(colour_names(np.array(rgb, dtype=np.uint8)))] == name


def test_a_named_set_delivers_captions_and_labels() -> None:
    dataset = open_dataset("scenes", TOKBENCH, limit=40)
    dataset.with_labels = True
    first, second = dataset.batches(32)
    assert len(first.captions) == 32 and len(second.captions) == 8
    assert first.captions[0] == scenes.caption_of(scenes.make_scene("test", 0))
    assert second.labels.tolist() == [scenes.label_of(scenes.make_scene("test", at)) for at in range(32, 40)]
    dataset.with_labels = False
    assert next(iter(dataset.batches(32))).labels is None
    assert next(iter(open_dataset("samples", TOKBENCH, limit=2).batches(2))).captions is None


def test_unknown_recipes_are_refused(tmp_path) -> None:
    folder = tmp_path / "datasets" / "mine"
    folder.mkdir(parents=True)
    lines = 'title = "t"\nsize = 64\ncount = 3\nlicence = "l"\nget = "g"\n'
    for entries, message in (
        ('recipe = "cats"\nsplit = "test"', "no recipe 'cats'.*scenes, phantoms"),
        ('recipe = "phantoms"\nsplit = "heldout"', "no split 'heldout'.*train, test"),
        ('recipe = "scenes"', "split must be given"),
    ):
        (folder / "dataset.toml").write_text(lines + entries)
        with pytest.raises(DataError, match=message):
            open_dataset("mine", TOKBENCH, root=tmp_path)


def test_tiny_imagenet_has_captions_of_class_and_colour(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from image_files import encode
    from PIL import Image

    folder = tmp_path / "datasets" / "mine"
    folder.mkdir(parents=True)
    (folder / "names.txt").write_text("goldfish\nacorn\n")
    (folder / "dataset.toml").write_text(
        'title = "t"\nsize = 8\ncount = 2\nlicence = "l"\nget = "g"\nsources = ["a.parquet"]\norder = "listed"\n'
        'captions = "class and colour"\nclass_names = "names.txt"\n'
    )
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("TOKBENCH_DATA", str(tmp_path))
    images = [{"bytes": encode(Image.new("RGB", (8, 8), rgb)), "path": name}
              for name, rgb in (("a.png", (220, 120, 20)), ("b.png", (30, 150, 40)))]  # fmt: skip

    def captions(labels: list[int]) -> list[str] | None:
        pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "mine" / "a.parquet")
        return next(iter(open_dataset("mine", TOKBENCH, root=tmp_path).batches(2))).captions

    assert captions([0, 1]) == ["a photo of a goldfish, mostly orange", "a photo of an acorn, mostly green"]
    with pytest.raises(DataError, match="lists 2 classes, but there is a label 2"):
        captions([0, 2])


def test_styled_images_have_the_content_of_their_caption_and_the_colours_of_their_style() -> None:
    """The caption is that of the content, and images of one style differ less in their mean colour than styles do."""
    count = len(styled.STYLES)
    means = np.zeros((len(styled.CONTENTS), count, 3))
    for label in range(styled.CLASSES):
        image = styled.make_styled("test", label, label)
        shape, size = styled.CONTENTS[label // count]
        assert styled.label_of(image) == label and len(image.places) == (1 if size == "large" else 3)
        assert shape in styled.caption_of(image) and size in styled.caption_of(image)
        assert not set(styled.caption_of(image).split()) & (set(styled.STYLES) | set(scenes.COLOURS))
        means[label // count, label % count] = styled.draw(image).mean((0, 1))
    spread = means.std(axis=0).mean()
    assert means.mean(0).std(0).mean() > 3 * spread


def test_every_style_shows_the_shape() -> None:
    """A pixel in the middle of a large shape differs from the paper's corner in most images of each style."""
    for style in range(len(styled.STYLES)):
        gaps = []
        for position in range(12):
            pixels = styled.draw(styled.make_styled("test", position, style)).astype(float)  # content 0: a large circle
            gaps.append(np.abs(pixels[4:28, 4:28].mean((0, 1)) - pixels[:3, :3].mean((0, 1))).max())
        assert np.median(gaps) > 12, list(styled.STYLES)[style]
