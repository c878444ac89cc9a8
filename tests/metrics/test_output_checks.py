"""Damage that leaves a plausible number: each kind is counted, and what honest codecs do raises no warning."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import evaluate_model
from PIL import Image
from torch import Tensor

from tokbench.cli.listing import show
from tokbench.data.dataset import open_dataset
from tokbench.data.stream import CHUNK
from tokbench.errors import ResultError
from tokbench.evaluation.sample_plan import SamplePlan
from tokbench.evaluation.tasks import Generate, Truncate
from tokbench.protocol.protocol import TOKBENCH
from tokbench.results import leaderboard, markdown
from tokbench.results.result import Result, load
from tokbench.results.warning import ResultWarning
from tokbench.tokenizers.base import ImageModel, Tokenizer
from tokbench.tokenizers.builtin.codecs import load as codec
from tokbench.tokenizers.builtin.images import ImageFolder
from tokbench.tokenizers.decoded import MARGIN, DecodedValues
from tokbench.tokenizers.registry import load_adapter
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

SIDE = 64
COUNT = CHUNK + 12
"""More than one unit, so that there are two batches and two files of a checkpoint."""


def picture(seed: int) -> np.ndarray:
    """A smooth picture of 64 px unlike all others, uint8 (64, 64, 3)."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def write(folder: Path, images: Sequence[np.ndarray]) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{number:03d}.png")
    return folder


def through_jpeg(image: np.ndarray) -> np.ndarray:
    """Return what an honest tokenizer makes of an image: JPEG of quality 30."""
    model = codec("jpeg.q30")
    given = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    made = model.decode(model.encode(given), [0])[0]
    return (made.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def originals() -> list[np.ndarray]:
    return [picture(seed) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def data(originals: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "originals", originals)


@pytest.fixture(scope="module")
def honest(originals: list[np.ndarray]) -> list[np.ndarray]:
    return [through_jpeg(image) for image in originals]


def measure(model: ImageModel, data: Path, cache: Path | None = None, **options: object) -> Result:
    result = evaluate_model(model, open_dataset(str(data), TOKBENCH), ["psnr"], cache=cache, **options)
    assert result.error is None, result.error
    return result


def of_folder(tmp_path: Path, data: Path, images: Sequence[np.ndarray]) -> Result:
    return measure(ImageFolder("images:rec", write(tmp_path / "rec", images)), data)


def warnings_of(result: Result) -> dict[str, tuple[int | None, int | None]]:
    return {warning.kind: (warning.count, warning.of) for warning in result.warnings}


# What is counted in images made elsewhere.


def test_honest_reconstructions_raise_no_warning(tmp_path: Path, data: Path, honest: list[np.ndarray]) -> None:
    result = of_folder(tmp_path, data, honest)
    assert result.warnings == []
    assert "warnings" not in result.to_dict()


def black(images: list[np.ndarray]) -> list[np.ndarray]:
    return [np.zeros_like(image) if i % 10 == 3 else image for i, image in enumerate(images)]


def swapped(images: list[np.ndarray]) -> list[np.ndarray]:
    return [images[i ^ 1] if i < 6 else image for i, image in enumerate(images)]


def repeated(images: list[np.ndarray]) -> list[np.ndarray]:
    return [images[i - i % 2] for i in range(len(images))]


def rotated(images: list[np.ndarray]) -> list[np.ndarray]:
    turned: list[Callable[[np.ndarray], np.ndarray]] = [np.rot90, np.fliplr, np.flipud, lambda x: x.swapaxes(0, 1)]
    return [turned[i](image) if i < 4 else image for i, image in enumerate(images)]


def shifted(images: list[np.ndarray]) -> list[np.ndarray]:
    return [*images[1:], images[0]]


@pytest.mark.parametrize(
    ("damage", "kind", "count", "text"),
    [
        (black, "constant", 5, "5 of 44 images have a single colour, unlike their originals"),
        (repeated, "copies", 22, "22 of 44 reconstructions are copies of others whose originals differ"),
        (rotated, "orientation", 4, "4 of 44 reconstructions fit their originals only after a rotation or a mirroring"),
        (swapped, "pairing", 6, "6 of 44 reconstructions are much nearer to another original than to their own"),
        (shifted, "pairing", COUNT, "44 of 44 reconstructions are much nearer to another original"),
    ],
)
def test_damage_is_counted(
    tmp_path: Path,
    data: Path,
    honest: list[np.ndarray],
    damage: Callable[[list[np.ndarray]], list[np.ndarray]],
    kind: str,
    count: int,
    text: str,
) -> None:
    result = of_folder(tmp_path, data, damage(honest))
    assert warnings_of(result) == {kind: (count, COUNT)}
    assert result.warnings[0].text.startswith(text)
    assert "psnr" in result.metrics  # the number stays


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (lambda x: x + 12, "brightness", "brighter than their originals"),
        (lambda x: x - 12, "brightness", "darker than their originals"),
        (lambda x: x[..., ::-1], "range", "with red and blue exchanged"),
        (lambda x: x * (219 / 255) + 16, "range", "stretched from the video levels 16 to 235"),
        (lambda x: x / 2 + 127.5, "range", "with only the upper half of the range stretched over all of it"),
        (lambda x: 255 * (x / 255) ** 2.2, "range", "with a gamma of 2.2 applied"),
    ],
)
def test_levels_that_are_changed_in_all_images(
    tmp_path: Path, data: Path, originals: list[np.ndarray], change: Callable[[np.ndarray], np.ndarray], kind: str,
    text: str,
) -> None:  # fmt: skip
    made = [change(image.astype(float)).round().clip(0, 255).astype(np.uint8) for image in originals]
    result = of_folder(tmp_path, data, made)
    (warning,) = result.warnings
    assert warning.kind == kind
    assert text in warning.text


def test_a_few_brighter_images_are_no_property_of_all(tmp_path: Path, data: Path, honest: list[np.ndarray]) -> None:
    made = [np.clip(image.astype(int) + 30, 0, 255).astype(np.uint8) if i % 4 == 0 else image
            for i, image in enumerate(honest)]  # fmt: skip
    assert of_folder(tmp_path, data, made).warnings == []


def test_blank_and_repeated_originals_are_no_damage(tmp_path: Path) -> None:
    """White pages may come out white, equal originals equal, and those that nearly are, too."""
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    nearly = white.copy()
    nearly[::9, ::7] = 245
    images = [white, nearly, picture(1), picture(1), picture(2)]
    rec = [white, white, picture(1), picture(1), picture(2)]
    data = write(tmp_path / "data", images)
    assert warnings_of(of_folder(tmp_path, data, rec)).keys() == {"few_images"}


def test_weak_reconstructions_that_are_shuffled(tmp_path: Path) -> None:
    """Where no reconstruction is near any original, the order of the nearest ones still shows the shuffling."""
    rng = np.random.default_rng(0)
    images = [picture(seed) for seed in range(80)]
    weak = [np.clip(image * 0.5 + rng.normal(64, 25, (8, 8, 1)).repeat(8, 0).repeat(8, 1), 0, 255).astype(np.uint8)
            for image in images]  # fmt: skip
    data = write(tmp_path / "data", images)
    assert "pairing" not in warnings_of(of_folder(tmp_path, data, weak))
    (tmp_path / "rec").rename(tmp_path / "paired")
    order = rng.permutation(80)
    result = of_folder(tmp_path, data, [weak[i] for i in order])
    assert "no nearer to their own originals than to others" in {w.kind: w.text for w in result.warnings}["pairing"]


def test_sizes_that_are_exchanged_name_the_rotation(tmp_path: Path) -> None:
    wide = [picture(seed)[:48] for seed in range(3)]
    data = write(tmp_path / "data", wide)
    model = ImageFolder("images:rec", write(tmp_path / "rec", [np.rot90(wide[0]), *wide[1:]]))
    result = evaluate_model(model, open_dataset(str(data), TOKBENCH), ["psnr"])
    assert "000.png is 48x64; width and height of 1 are exchanged: was an EXIF rotation" in str(result.error)


# Samples.


def samples(folder: Path, data: Path) -> Result:
    stream = SamplePlan("data", TOKBENCH, COUNT, open_dataset(str(data), TOKBENCH))
    result = evaluate_model(ImageFolder("images:samples", folder), stream, ["rate"], task=Generate())
    assert result.error is None, result.error
    return result


def test_samples_that_are_copies_or_of_one_colour(tmp_path: Path, data: Path, honest: list[np.ndarray]) -> None:
    assert samples(write(tmp_path / "fine", honest), data).warnings == []
    again = samples(write(tmp_path / "again", [honest[i % 11] for i in range(COUNT)]), data)
    assert [warning.text for warning in again.warnings] == ["33 of 44 samples are copies of others"]
    dark = samples(write(tmp_path / "dark", black(honest)), data)
    assert [warning.text for warning in dark.warnings] == ["5 of 44 samples have a single colour"]


# What a decoder gives before it is clamped.


class Latents(Tokenizer):
    """Keeps the image itself in [-1, 1]; `decode` may return another form than its spec declares."""

    def __init__(self, form: Callable[[Tensor], Tensor], low: float = -1.0) -> None:
        self.spec = TokenizerSpec("latents", "continuous", (low, 1.0), downsample=1, bits_per_token=48.0)
        self._form, self.decoded = form, 0

    def encode(self, images: Tensor) -> Tokens:
        low, high = self.spec.range
        return Tokens.from_latents((images - low) / (high - low), tokens=images[0, 0].numel())

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        self.decoded += len(tokens)
        return self._form(tokens.tensor.float())


@pytest.mark.parametrize(
    ("form", "low", "how"),
    [
        (lambda x: x, -1.0, "read in the range [0, 1]"),
        (lambda x: x - 0.5, 0.0, "read in the range [-0.5, 0.5]"),
        (lambda x: (2 * x - 1).flip(1), -1.0, "with red and blue exchanged"),
    ],
)
def test_a_range_that_does_not_fit(data: Path, form: Callable[[Tensor], Tensor], low: float, how: str) -> None:
    result = measure(Latents(form, low), data)
    found = {warning.kind: warning.text for warning in result.warnings}
    assert f"decoded values of the first {CHUNK} images are much nearer to the originals {how}" in found["range"]
    assert f"declared range [{low:g}, 1]" in found["range"]


def test_the_range_that_fits_raises_no_warning(data: Path) -> None:
    assert measure(Latents(lambda x: 2 * x - 1), data).warnings == []


def test_clamped_values_are_counted_before_they_are_clamped() -> None:
    values = DecodedValues((-1.0, 1.0))
    images = torch.zeros(4, 3, 8, 8)
    images[1, :, :4] = 1 + 2 * MARGIN - 1e-3  # within the margin
    images[2, :, :4] = 1 + 2 * MARGIN + 1e-3
    images[3] = -3
    flat = images.flatten(1)
    values.add(images, (flat.amin(1), flat.amax(1)))
    assert values.columns(1)["outside"].tolist() == [0, 0, 0.5, 1]
    assert values.columns(2)["outside"].tolist() == [0, 0.75]


def test_many_clamped_values(data: Path) -> None:
    found = {w.kind: w for w in measure(Latents(lambda x: (2 * x - 1) * 1.6), data).warnings}
    assert "of the decoded values lie outside the declared range [-1, 1] by more than 2%" in found["clamped"].text
    assert found["clamped"].of == COUNT


def test_first_tokens_are_not_checked(data: Path) -> None:
    """They may decode to anything."""

    class First(Latents):
        def __init__(self) -> None:
            super().__init__(lambda x: x)
            self.spec = TokenizerSpec(
                "first", "discrete", size=SIDE, num_tokens=2, codebook={"codes": 4}, prefixes=True
            )

        def encode(self, images: Tensor) -> Tokens:
            return Tokens.from_indices((images.flatten(1)[:, :2] * 3).round().long(), 4)

        def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
            return tokens.tensor[:, :1, None, None].float().expand(-1, 3, SIDE, SIDE) / 3

    whole = evaluate_model(First(), open_dataset(str(data), TOKBENCH), ["psnr"])
    assert "constant" in warnings_of(whole)
    result = evaluate_model(First(), open_dataset(str(data), TOKBENCH), ["psnr"], task=Truncate((1,)))
    assert result.error is None
    assert result.warnings == []


@pytest.mark.parametrize("name", ["identity", "jpeg.q10", "jpeg.q50", "webp.q10", "resize.2", "resize.4"])
def test_honest_codecs_raise_no_warning(photo_folder: Path, name: str) -> None:
    assert warnings_of(measure(load_adapter(name).model, photo_folder)).keys() == {"few_images"}


# Warnings in checkpoints, files and tables.


def test_a_resumed_run_warns_as_one_in_one_piece(tmp_path: Path, data: Path) -> None:
    whole = measure(Latents(lambda x: x), data)
    first = measure(Latents(lambda x: x), data, cache=tmp_path)
    again = Latents(lambda x: x)
    resumed = measure(again, data, cache=tmp_path)
    assert again.decoded == 0
    assert [w.kind for w in whole.warnings] == ["range"]
    assert resumed.warnings == first.warnings == whole.warnings


def test_a_checkpoint_without_the_checks_is_measured_again(tmp_path: Path, data: Path, monkeypatch) -> None:
    monkeypatch.setattr("tokbench.evaluation.steps.TokenTransform.checked", False)
    assert measure(Latents(lambda x: x), data, cache=tmp_path).warnings == []
    monkeypatch.undo()
    assert [w.kind for w in measure(Latents(lambda x: x), data, cache=tmp_path).warnings] == ["range"]


def test_warnings_do_not_depend_on_the_batch_size(data: Path) -> None:
    one, other = (measure(Latents(lambda x: x), data, batch_size=size) for size in (5, 64))
    assert [w.kind for w in one.warnings] == [w.kind for w in other.warnings] == ["range"]


def test_warnings_are_written_shown_and_joined(tmp_path: Path, data: Path, honest: list[np.ndarray]) -> None:
    result = of_folder(tmp_path, data, black(honest))
    other = replace(result, warnings=[ResultWarning("few", "from 2 images")])
    result.save(tmp_path / "out")
    path, _ = other.save(tmp_path / "out")
    saved = load(path)
    text = "5 of 44 images have a single colour, unlike their originals"
    assert saved.warnings == [ResultWarning("constant", text, 5, 44), ResultWarning("few", "from 2 images")]
    assert f"warning: {text}\n" in show(saved)
    footnote = markdown.markdown([saved]).splitlines()[-1]
    assert footnote == f"Warnings: `images:rec`: {text}; `images:rec`: from 2 images"
    assert leaderboard.frame([saved])["warnings"].tolist() == [f"{text}; from 2 images"]
    fine = replace(result, warnings=[])
    assert "Warnings" not in markdown.markdown([fine])
    assert "warnings" not in leaderboard.frame([fine])


@pytest.mark.parametrize(
    ("warnings", "complaint"),
    [
        ({}, "warnings must be a list, but it is {}"),
        (["text"], r"warnings\[0\] must be an object, but it is 'text'"),
        ([{"kind": "range"}], r"warnings\[0\]\.text is missing"),
        ([{"kind": "range", "text": ""}], r"warnings\[0\]\.text must be text of length >= 1"),
        (
            [{"kind": "range", "text": "x", "count": "4"}],
            r"warnings\[0\]\.count must be an integer or null, but it is '4'",
        ),
        ([{"kind": "range", "text": "x", "of": -1}], r"warnings\[0\]\.of must be an integer >= 0, but it is -1"),
    ],
)
def test_warnings_of_a_wrong_type_are_refused(tmp_path: Path, data: Path, warnings: object, complaint: str) -> None:
    path, _ = measure(load_adapter("identity").model, data).save(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"warnings": warnings}))
    with pytest.raises(ResultError, match=complaint):
        load(path)


@pytest.mark.slow
def test_warnings_are_printed_once_on_stderr(cli, tmp_path: Path, data: Path, honest: list[np.ndarray]) -> None:
    rec = write(tmp_path / "rec", black(honest))
    command = ("eval", f"images:{rec}", "identity", "--data", data, "--metrics", "psnr", "--out", tmp_path / "out")
    done = cli(*command)
    text = "5 of 44 images have a single colour, unlike their originals"
    assert done.exit_code == 0
    assert [line for line in done.stderr.splitlines() if text in line] == [
        line for line in done.stderr.splitlines() if line.startswith("warning images.rec")
    ]
    assert done.stderr.count(text) == 1
    assert done.stdout.count(text) == 1
    warnings = {one["adapter"]: one.get("warnings") for one in json.loads(cli(*command, "--json").stdout)}
    assert warnings.pop("identity") is None
    assert list(warnings.values()) == [[{"kind": "constant", "text": text, "count": 5, "of": 44}]]


# The parts.
