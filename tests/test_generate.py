"""Samples: what a generator draws or a folder holds, compared with references that it is not paired with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tokbench.builtin.images import ImageFolder
from tokbench.dataset import Dataset, open_dataset
from tokbench.errors import AdapterError, UsageError
from tokbench.evaluate import evaluate
from tokbench.halves import Halves
from tokbench.metrics import ONLY_OF_SAMPLES, choose_for
from tokbench.metrics.frechet import Frechet, Subsets, distance_of_sets
from tokbench.metrics.precision_recall import PrecisionRecall
from tokbench.plugins import Loaded, load_adapter
from tokbench.protocol import TOKBENCH, load_protocol
from tokbench.readers import Networks
from tokbench.reconstruction import image_seeds
from tokbench.result import load
from tokbench.slots import Slots
from tokbench.sources import Folder
from tokbench.statistics import Statistics
from tokbench.tasks import RECONSTRUCT, Generate, task_of
from tokbench.tokenizer import Generator, Tokenizer
from tokbench.tokens import Tokens
from tokbench.weights import INCEPTION

CLASSES = 3


class Replay(Generator):
    """A generator that knows the images by heart: the tokens of the one at the place that its seed stands for."""

    classes = CLASSES

    def __init__(self, name: str, tokenizer: Tokenizer, dataset: Dataset, seed: int = 0) -> None:
        self.tokenizer, self.module = tokenizer, tokenizer.module
        self.spec = replace(tokenizer.spec, name=name)
        self._images = torch.cat([images.reference for images in dataset.batches(32)])
        self._place = {s: at for at, s in enumerate(image_seeds(seed, range(len(dataset)), 1))}

    def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tokens:
        places = [self._place[seed] for seed in seeds]
        assert labels.tolist() == [place % CLASSES for place in places]
        low, high = self.spec.range
        return self.tokenizer.encode(self._images[places] * (high - low) + low)


@pytest.fixture
def folder(tmp_path: Path, photos: Tensor) -> Path:
    """48 images of 32 px."""
    (tmp_path / "data").mkdir()
    tiles = photos.unfold(2, 32, 64).unfold(3, 32, 64).permute(0, 2, 3, 4, 5, 1).reshape(-1, 32, 32, 3)
    for number, tile in enumerate((tiles[:48] * 255).round().to(torch.uint8)):
        Image.fromarray(tile.numpy()).save(tmp_path / "data" / f"{number:02d}.png")
    return tmp_path / "data"


@pytest.fixture
def dataset(folder: Path) -> Dataset:
    return open_dataset(str(folder), load_protocol("tokbench"), None, None, None)


def of(model: Any, name: str) -> Loaded:
    return Loaded(name, name, model, {})


def slots(dataset: Dataset, count: int | None = None) -> Slots:
    return Slots(dataset.name, dataset.protocol, count or len(dataset), dataset)


def test_replayed_tokens_have_the_distance_of_reconstructions(
    dataset: Dataset, networks: Networks, tmp_path: Path
) -> None:
    codec = load_adapter("toy.p8")
    tokenizer = codec.model
    assert isinstance(tokenizer, Tokenizer)
    (rebuilt,) = evaluate([codec], dataset, ["rfid_64", "sfid"], networks=networks)
    replay = of(Replay("replay.toy", tokenizer, dataset), "replay.toy")
    names = ["gfid_64", "sfid"]
    (made,) = evaluate([replay], slots(dataset), names, task=Generate(), networks=networks, cache=tmp_path / "cache")
    assert made.error is None
    assert made.metrics["gfid_64"]["value"] == pytest.approx(rebuilt.metrics["rfid_64"]["value"], rel=1e-9)
    assert made.metrics["sfid"]["value"] == pytest.approx(rebuilt.metrics["sfid"]["value"], rel=1e-9)
    # Their intervals do not know that each sample has its reference.
    paired, unpaired = (entry["high"] - entry["low"] for entry in (rebuilt.metrics["rfid_64"], made.metrics["gfid_64"]))
    assert unpaired > paired
    assert made.group.endswith("-generate")
    assert made.provenance["adapter"]["guidance"] == 1.0


def test_samples_of_any_number_against_all_references(dataset: Dataset, networks: Networks) -> None:
    tokenizer = load_adapter("toy.p8").model
    assert isinstance(tokenizer, Tokenizer)
    replay = of(Replay("replay.toy", tokenizer, dataset), "replay.toy")
    few, all_of_them = (
        evaluate([replay], slots(dataset, count), ["gfid_64", "rate"], task=Generate(), networks=networks)[0]
        for count in (20, 48)
    )
    assert few.num_images == 20
    assert ".n20-generate" in few.group
    assert ".n" not in all_of_them.group
    assert few.metrics["gfid_64"]["value"] != all_of_them.metrics["gfid_64"]["value"]
    assert few.metrics["tokens_per_image"]["value"] == 16


def test_an_interrupted_run_goes_on(dataset: Dataset, networks: Networks, tmp_path: Path) -> None:
    tokenizer = load_adapter("toy.p8").model
    assert isinstance(tokenizer, Tokenizer)

    class Falls(Replay):
        drawn = 0
        fall = True

        def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tokens:
            if self.fall and Falls.drawn >= 32 and len(seeds) > 2:
                raise KeyboardInterrupt
            Falls.drawn += len(seeds)
            return super().sample(labels, seeds, guidance)

    model = Falls("replay.toy", tokenizer, dataset)
    options: dict[str, Any] = {"task": Generate(), "networks": networks, "cache": tmp_path / "cache"}
    with pytest.raises(KeyboardInterrupt):
        evaluate([of(model, "replay.toy")], slots(dataset), ["gfid_64"], **options)
    model.fall, Falls.drawn = False, 0
    (made,) = evaluate([of(model, "replay.toy")], slots(dataset), ["gfid_64"], **options)
    assert Falls.drawn < 32
    (whole,) = evaluate([of(model, "replay.toy")], slots(dataset), ["gfid_64"], task=Generate(), networks=networks)
    assert made.metrics == whole.metrics


def test_what_a_task_refuses(dataset: Dataset, networks: Networks) -> None:
    tokenizer = load_adapter("toy.p8").model
    assert isinstance(tokenizer, Tokenizer)
    replay = of(Replay("replay.toy", tokenizer, dataset), "replay.toy")
    (made,) = evaluate([replay], dataset, ["psnr"], networks=networks)
    assert "give --task generate" in (made.error or "")
    (made,) = evaluate([load_adapter("toy.p8")], slots(dataset), ["gfid_64"], task=Generate(), networks=networks)
    assert "draws no tokens of its own" in (made.error or "")


def test_samples_of_another_size_are_refused(dataset: Dataset, networks: Networks, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / "large" / f"{number}.png")
    found = load_adapter(f"images:{tmp_path / 'large'}")
    (made,) = evaluate([found], slots(dataset, 3), ["gfid_64"], task=Generate(), networks=networks)
    assert "samples are 40x40, the references 32x32" in (made.error or "")


@pytest.mark.parametrize("seeded", [False, True], ids=["no seed", "the first one's seed"])
def test_a_sample_that_depends_on_its_neighbours_is_a_fault(dataset: Dataset, networks: Networks, seeded: bool) -> None:
    tokenizer = load_adapter("toy.p8").model
    assert isinstance(tokenizer, Tokenizer)

    class Global(Replay):
        def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tokens:
            noise = torch.Generator().manual_seed(seeds[0]) if seeded else None
            return tokenizer.encode(torch.rand(len(labels), 3, 32, 32, generator=noise))

    replay = of(Global("replay.toy", tokenizer, dataset), "replay.toy")
    (made,) = evaluate([replay], slots(dataset), ["gfid_64"], task=Generate(), networks=networks)
    assert "from its own seed" in (made.error or "")


def test_precision_is_of_samples_and_recall_of_references() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.normal(0, 1, (200, 8)), draw.normal(50, 1, (200, 8))
    both = np.concatenate([one, other]).astype(np.float32)
    again = draw.normal(0, 1, (200, 8)).astype(np.float32)
    measure = PrecisionRecall.both
    precision, recall = measure(None, both, again)  # type: ignore[arg-type]
    assert precision > 0.8  # samples that cover one of two clusters are good,
    assert 0.4 < recall <= 0.5  # and miss the other
    precision, recall = measure(None, again, both)  # type: ignore[arg-type]
    assert 0.4 < precision <= 0.5
    assert recall > 0.8


def test_precision_by_brute_force() -> None:
    draw = np.random.default_rng(1)
    reference, image = draw.normal(0, 1, (60, 4)), draw.normal(0.5, 1.2, (50, 4))

    def within(of_these: np.ndarray, balls: np.ndarray) -> float:
        radii = [sorted(np.linalg.norm(balls - centre, axis=1))[3] for centre in balls]  # the nearest is itself
        inside = [(np.linalg.norm(balls - point, axis=1) <= radii).any() for point in of_these]
        return float(np.mean(inside))

    found = PrecisionRecall.both(None, reference.astype(np.float32), image.astype(np.float32))  # type: ignore[arg-type]
    assert found == pytest.approx((within(image, reference), within(reference, image)))


def test_subsets_of_unequal_numbers() -> None:
    draw = np.random.default_rng(2)
    first, second = draw.normal(0, 1, (30, 64)), draw.normal(0.2, 1.1, (44, 64))
    one, other = draw.permutation(30)[:15], draw.permutation(44)[:22]
    expected = distance_of_sets(first[one], second[other])
    assert Subsets(first, second).distance(one, other) == pytest.approx(expected, rel=1e-9)


def test_an_interval_covers_what_other_samples_give(dataset: Dataset) -> None:
    """Over many sets drawn alike, the deviation that halves tell is that of the distance itself, or wider."""

    class Bare(Frechet):
        def __init__(self, reference: np.ndarray, image: np.ndarray) -> None:
            self.compares, self._statistics, self._paired, self._name = True, None, False, "gfid"
            self.references = type("R", (), {"__len__": lambda _: len(reference), "fits": lambda *_: True})()  # type: ignore[assignment]
            self.rows = type("R", (), {"__len__": lambda _: len(image), "fits": lambda *_: True})()  # type: ignore[assignment]
            self._layer, self._pair = "x", (reference, image)

        def _whole(self) -> tuple[np.ndarray, np.ndarray]:
            return self._pair

    draw = np.random.default_rng(3)
    values, told = [], []
    for trial in range(40):
        metric = Bare(draw.normal(0, 1, (300, 4)), draw.normal(0.3, 1.2, (100, 4)))
        values.append(metric.compute()["gfid"])
        told.append(metric.replicates(Halves(str(trial), 100))["gfid"].deviation)
    spread = float(np.std(values, ddof=1))
    assert 0.75 * spread < float(np.mean(told)) < 1.6 * spread


def test_too_few_references_cost_a_metric_and_not_the_result(
    tmp_path: Path, dataset: Dataset, networks: Networks
) -> None:
    (tmp_path / "few").mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), (number * 40, 0, 0)).save(tmp_path / "few" / f"{number}.png")
    few = open_dataset(str(tmp_path / "few"), load_protocol("tokbench"), None, None, None)
    tokenizer = load_adapter("toy.p8").model
    assert isinstance(tokenizer, Tokenizer)
    replay = of(Replay("replay.toy", tokenizer, dataset), "replay.toy")
    names = ["gfid_64", "kid_768", "precision_recall_768", "rate"]
    (made,) = evaluate([replay], Slots("few", few.protocol, 40, few), names, task=Generate(), networks=networks)
    assert made.error is None
    assert made.metrics["tokens_per_image"]["value"] == 16
    assert made.metrics["gfid_64"]["value"] > 0  # three will do, without an interval
    assert made.metrics["gfid_64"]["low"] is None
    assert made.metrics["kid_768"]["value"] is not None
    assert "at least 4 references; there are 3" in made.skipped["precision_recall_768"]


def test_shares_have_intervals_of_shares(dataset: Dataset, networks: Networks) -> None:
    tokenizer = load_adapter("toy.p8").model
    assert isinstance(tokenizer, Tokenizer)
    replay = of(Replay("replay.toy", tokenizer, dataset), "replay.toy")
    (made,) = evaluate([replay], slots(dataset), ["precision_recall_768"], task=Generate(), networks=networks)
    for number in ("precision_768", "recall_768"):
        entry = made.metrics[number]
        assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1


def test_names_of_tasks() -> None:
    for task in (Generate(), Generate(1.5), Generate(1.0)):
        assert task_of(task.name) == task
    assert Generate(1.0).name == "generate-cfg1"
    assert RECONSTRUCT.paired
    assert not Generate().paired


def test_metrics_for_a_task() -> None:
    assert "gfid" in choose_for(True, None)
    with pytest.raises(UsageError, match="paired with nothing"):
        choose_for(True, "psnr")
    with pytest.raises(UsageError, match="--task generate"):
        choose_for(False, "gfid")
    assert not set(choose_for(False, "all")) & set(ONLY_OF_SAMPLES)


def moments(folder: Path, networks: Networks) -> tuple[np.ndarray, np.ndarray]:
    """Of the 64-d layer of the images in a folder."""
    network = networks.get(INCEPTION, TOKBENCH.features.input)
    network.want("64")
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])
    found = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)["64"].double().numpy()
    return found.mean(0), np.cov(found, rowvar=False)


class TestCommand:
    @pytest.fixture(autouse=True)
    def stand_ins(self, networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tokbench.readers.Networks", lambda *_: networks)

    def test_a_folder_against_a_folder(self, cli: Any, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "samples").mkdir()
        for number in range(10):
            (tmp_path / "samples" / f"s{number}.png").write_bytes((folder / f"{number:02d}.png").read_bytes())
        out, metrics = tmp_path / "out", "gfid_64,precision_recall_efficientnet"
        told = cli(
            "eval", f"images:{tmp_path / 'samples'}", "--task", "generate", "--data", folder, "--metrics", metrics,
            "--out", out,
        )  # fmt: skip
        assert told.exit_code == 0, told.output
        assert "10 samples of 32x32 px against 48 images" in told.stdout
        (path,) = out.glob("*/*generate.json")
        made = load(path)
        assert made.num_images == 10
        assert made.metrics["precision_efficientnet"]["value"] == 1.0
        assert 0 < made.metrics["recall_efficientnet"]["value"] < 1
        assert cli("leaderboard", "--out", out).exit_code == 0
        (table,) = (out / "leaderboard").glob("*generate.md")
        assert "gFID-64" in table.read_text()

    def test_a_statistics_file_as_data(self, cli: Any, folder: Path, tmp_path: Path, networks: Networks) -> None:
        mean, covariance = moments(folder, networks)
        made = Statistics({"64": (mean, covariance)}, INCEPTION, TOKBENCH.features.input, "float32", "0" * 64)
        made.save(tmp_path / "ref.npz")
        data = ("--data", tmp_path / "ref.npz", "--out", tmp_path / "out")
        told = cli("eval", f"images:{folder}", "--task", "generate", "--metrics", "gfid_64", *data)
        assert told.exit_code == 0, told.output
        (path,) = (tmp_path / "out").glob("*/*generate.json")
        assert ".ref-" in path.name
        assert load(path).metrics["gfid_64"]["value"] == pytest.approx(0, abs=1e-6)
        told = cli("eval", "toy.p8", "--task", "generate", *data)
        assert "how many samples?" in told.output

    def test_a_reference_batch_of_images_and_statistics(
        self, cli: Any, folder: Path, tmp_path: Path, networks: Networks
    ) -> None:
        """ADM's: statistics for the distances, images for what needs neighbours."""
        mean, covariance = moments(folder, networks)
        pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])
        np.savez(tmp_path / "adm.npz", arr_0=pixels, mu=2 * mean, sigma=covariance)  # not those of the images
        told = cli(
            "eval", f"images:{folder}", "--task", "generate", "--data", tmp_path / "adm.npz", "--out", tmp_path / "out",
            "--reference-is", f"{INCEPTION}:{TOKBENCH.features.input}:float32",
            "--metrics", "gfid_64,precision_recall_768",
        )  # fmt: skip
        assert told.exit_code == 0, told.output
        (path,) = (tmp_path / "out").glob("*/*generate.json")
        made = load(path)
        assert made.metrics["gfid_64"]["value"] == pytest.approx(float((mean**2).sum()), rel=1e-6)
        assert made.metrics["precision_768"]["value"] == made.metrics["recall_768"]["value"] == 1

    def test_samples_must_be_there(self, cli: Any, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for samples, options, why in (
            (tmp_path / "empty", (), "no images found"),
            (folder, ("--limit", 100), "holds 48 images, fewer than --limit 100"),
        ):
            told = cli("eval", f"images:{samples}", "--task", "generate", "--data", folder, *options)
            assert told.exit_code == 2
            assert why in told.output

    @pytest.mark.parametrize("broken", [b"", b"PK", b"no zip at all"])
    def test_a_broken_file_is_named(self, cli: Any, folder: Path, tmp_path: Path, broken: bytes) -> None:
        (tmp_path / "x.NPZ").write_bytes(broken)
        told = cli("eval", f"images:{folder}", "--task", "generate", "--data", tmp_path / "x.NPZ")
        assert told.exit_code == 1
        assert "x.NPZ" in told.output
        assert "Traceback" not in told.output

    def test_wrong_usage(self, cli: Any, folder: Path, tmp_path: Path) -> None:
        stats = tmp_path / "stats.npz"
        np.savez(stats, mu=np.zeros(4), sigma=np.eye(4))
        for arguments, why in (
            (("--cfg", 2), "--cfg is for --task generate"),
            (("--task", "generate", "--metrics", "lpips"), "paired with nothing"),
            (("--task", "generate", "--suite", "tokbench-256"), "is of reconstructions"),
            (("--task", "generate", "--cfg", "nan"), "--cfg nan: give a scale"),
            (("--task", "generate", "--cfg", "1e-7"), "give a scale of at most six digits"),
            (("--task", "generate", "--cfg", "1.23456789"), "give a scale of at most six digits"),
            (("--task", "generate", "--reference", stats), "give one"),
            (("--reference-is", "a:b:c"), "give that with --reference"),
        ):
            told = cli("eval", "toy.p8", "--data", folder, *arguments)
            assert told.exit_code == 2
            assert why in told.output


def test_a_folder_of_samples_has_as_many_as_it_holds(folder: Path) -> None:
    found = ImageFolder("images:x", folder)
    assert found.count == len(Folder(folder).names)
    assert found.drawn([0, 5]).shape == (2, 3, 32, 32)
    with pytest.raises(AdapterError, match="more are asked for"):
        found.drawn([48])
