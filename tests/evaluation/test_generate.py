"""Samples: what a generator draws or a folder holds, compared with references that it is not paired with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import loaded, run_eval
from PIL import Image
from torch import Tensor

from tokbench.data.dataset import Dataset, open_dataset
from tokbench.data.sources.folder import Folder
from tokbench.errors import AdapterError, UsageError
from tokbench.evaluation.sample_plan import SamplePlan
from tokbench.evaluation.seeds import image_seeds
from tokbench.evaluation.tasks import RECONSTRUCT, Generate, parse_task
from tokbench.extractors.pool import ExtractorPool
from tokbench.metric_names import METRICS
from tokbench.metrics.frechet import Frechet
from tokbench.metrics.generation_cost import saturated
from tokbench.metrics.precision_recall import PrecisionRecall
from tokbench.metrics.registry import choose_for
from tokbench.protocol.protocol import load_protocol
from tokbench.stats.split_half import Replicates, SplitHalves
from tokbench.tokenizers.base import Generator, Tokenizer
from tokbench.tokenizers.builtin.images import ImageFolder
from tokbench.tokenizers.registry import load_adapter
from tokbench.tokenizers.tokens import Tokens

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
def dataset(tiles: Path) -> Dataset:
    return open_dataset(str(tiles), load_protocol("tokbench"), None, None, None)


def slots(dataset: Dataset, count: int | None = None) -> SamplePlan:
    return SamplePlan(dataset.name, dataset.protocol, count or len(dataset), dataset)


def test_replayed_tokens_have_the_distance_of_reconstructions(
    dataset: Dataset, networks: ExtractorPool, tmp_path: Path
) -> None:
    codec = load_adapter("toy.p8")
    tokenizer = codec.model
    assert isinstance(tokenizer, Tokenizer)
    (rebuilt,) = run_eval([codec], dataset, ["rfid_64", "sfid"], networks=networks)
    replay = loaded(Replay("replay.toy", tokenizer, dataset))
    names = ["gfid_64", "sfid"]
    (made,) = run_eval([replay], slots(dataset), names, task=Generate(), networks=networks, cache=tmp_path / "cache")
    assert made.error is None
    assert made.metrics["gfid_64"]["value"] == pytest.approx(rebuilt.metrics["rfid_64"]["value"], rel=1e-9)
    assert made.metrics["sfid"]["value"] == pytest.approx(rebuilt.metrics["sfid"]["value"], rel=1e-9)
    # Their intervals do not know that each sample has its reference.
    paired, unpaired = (entry["high"] - entry["low"] for entry in (rebuilt.metrics["rfid_64"], made.metrics["gfid_64"]))
    assert unpaired > paired
    assert made.group.endswith("-generate")
    assert made.provenance["adapter"]["guidance"] == 1.0


def test_samples_of_any_number_against_all_references(dataset: Dataset, networks: ExtractorPool) -> None:
    tokenizer = load_adapter("toy.p8").model
    assert isinstance(tokenizer, Tokenizer)
    replay = loaded(Replay("replay.toy", tokenizer, dataset))
    few, all_of_them = (
        run_eval([replay], slots(dataset, count), ["gfid_64", "rate"], task=Generate(), networks=networks)[0]
        for count in (20, 48)
    )
    assert few.num_images == 20
    assert ".n20-generate" in few.group
    assert ".n" not in all_of_them.group
    assert few.metrics["gfid_64"]["value"] != all_of_them.metrics["gfid_64"]["value"]
    assert few.metrics["tokens_per_image"]["value"] == 16


def test_an_interrupted_run_goes_on(dataset: Dataset, networks: ExtractorPool, tmp_path: Path) -> None:
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
        run_eval([loaded(model, "replay.toy")], slots(dataset), ["gfid_64"], **options)
    model.fall, Falls.drawn = False, 0
    (made,) = run_eval([loaded(model, "replay.toy")], slots(dataset), ["gfid_64"], **options)
    assert Falls.drawn < 32
    (whole,) = run_eval([loaded(model, "replay.toy")], slots(dataset), ["gfid_64"], task=Generate(), networks=networks)
    assert made.metrics == whole.metrics


def test_what_a_task_refuses(dataset: Dataset, networks: ExtractorPool) -> None:
    tokenizer = load_adapter("toy.p8").model
    assert isinstance(tokenizer, Tokenizer)
    replay = loaded(Replay("replay.toy", tokenizer, dataset))
    (made,) = run_eval([replay], dataset, ["psnr"], networks=networks)
    assert "give --task generate" in (made.error or "")
    (made,) = run_eval([load_adapter("toy.p8")], slots(dataset), ["gfid_64"], task=Generate(), networks=networks)
    assert "cannot draw samples" in (made.error or "")


def test_samples_of_another_size_are_refused(dataset: Dataset, networks: ExtractorPool, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(tmp_path / "large" / f"{number}.png")
    found = load_adapter(f"images:{tmp_path / 'large'}")
    (made,) = run_eval([found], slots(dataset, 3), ["gfid_64"], task=Generate(), networks=networks)
    assert "40x40, but the references (or, with a statistics file, the first samples) are 32x32" in (made.error or "")


@pytest.mark.parametrize("seeded", [False, True], ids=["no seed", "the first one's seed"])
def test_a_sample_that_depends_on_its_neighbours_is_a_fault(
    dataset: Dataset, networks: ExtractorPool, seeded: bool
) -> None:
    tokenizer = load_adapter("toy.p8").model
    assert isinstance(tokenizer, Tokenizer)

    class Global(Replay):
        def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tokens:
            noise = torch.Generator().manual_seed(seeds[0]) if seeded else None
            return tokenizer.encode(torch.rand(len(labels), 3, 32, 32, generator=noise))

    replay = loaded(Global("replay.toy", tokenizer, dataset))
    (made,) = run_eval([replay], slots(dataset), ["gfid_64"], task=Generate(), networks=networks)
    assert "from its own seed" in (made.error or "")


@pytest.mark.slow
def test_an_interval_covers_what_other_samples_give(dataset: Dataset) -> None:
    """Over many sets of one distribution, the deviation estimated from halves is at least that of the distance."""

    class Bare(Frechet):
        def __init__(self, reference: np.ndarray, image: np.ndarray) -> None:
            self.compares, self._statistics, self._paired, self._name = True, None, False, "gfid"
            self.references = type("R", (), {"__len__": lambda _: len(reference), "fits": lambda *_: True})()  # type: ignore[assignment]
            self.rows = type("R", (), {"__len__": lambda _: len(image), "fits": lambda *_: True})()  # type: ignore[assignment]
            self._layer, self._pair = "x", (reference, image)

        def _all_features(self) -> tuple[np.ndarray, np.ndarray]:
            return self._pair

    draw = np.random.default_rng(3)
    values, deviations = [], []
    for trial in range(40):
        metric = Bare(draw.normal(0, 1, (300, 4)), draw.normal(0.3, 1.2, (100, 4)))
        values.append(metric.compute()["gfid"])
        deviations.append(metric.replicates(SplitHalves(str(trial), 100))["gfid"].deviation)
    spread = float(np.std(values, ddof=1))
    assert 0.75 * spread < float(np.mean(deviations)) < 1.6 * spread


def test_too_few_references_cost_a_metric_and_not_the_result(
    tmp_path: Path, dataset: Dataset, networks: ExtractorPool
) -> None:
    (tmp_path / "few").mkdir()
    for number in range(3):
        Image.new("RGB", (32, 32), (number * 40, 0, 0)).save(tmp_path / "few" / f"{number}.png")
    few = open_dataset(str(tmp_path / "few"), load_protocol("tokbench"), None, None, None)
    tokenizer = load_adapter("toy.p8").model
    assert isinstance(tokenizer, Tokenizer)
    replay = loaded(Replay("replay.toy", tokenizer, dataset))
    names = ["gfid_64", "kid_768", "precision_recall_768", "rate"]
    (made,) = run_eval([replay], SamplePlan("few", few.protocol, 40, few), names, task=Generate(), networks=networks)
    assert made.error is None
    assert made.metrics["tokens_per_image"]["value"] == 16
    assert made.metrics["gfid_64"]["value"] > 0  # three will do, without an interval
    assert made.metrics["gfid_64"]["low"] is None
    assert made.metrics["kid_768"]["value"] is not None
    assert "at least 4 references; there are 3" in made.skipped["precision_recall_768"]


def test_what_a_sample_costs(dataset: Dataset, networks: ExtractorPool) -> None:
    tokenizer = load_adapter("toy.p8").model
    assert isinstance(tokenizer, Tokenizer)

    class Endless(Replay):
        """A generator may be asked for more samples than the run has."""

        def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tokens:
            weights = torch.ones(8, 16)
            (torch.ones(4, 8) @ weights).sum()  # 2 * 4 * 8 * 16 operations
            images = torch.stack([self._images[seed % len(self._images)] for seed in seeds])
            low, high = self.spec.range
            return tokenizer.encode(images * (high - low) + low)

        def num_function_evaluations(self, guidance: float) -> float:
            return 2 * guidance

    names = ["cost", "speed"]
    (made,) = run_eval(
        [loaded(Endless("endless.toy", tokenizer, dataset))],
        slots(dataset),
        names,
        task=Generate(2.0),
        networks=networks,
    )
    assert made.error is None
    values = {name: entry["value"] for name, entry in made.metrics.items()}
    assert values["network_evaluations"] == 4
    assert values["gflops_per_image"] >= 2 * 4 * 8 * 16 / 1e9
    assert min(values["sample_latency_ms"], values["decode_latency_ms"], values["sample_images_per_second"]) > 0
    assert min(values["saturated_samples_per_second"], values["saturated_decodes_per_second"]) > 0
    assert int(made.provenance["metrics"]["saturated_samples_per_second"]["batch size for samples"]) in 2 ** np.arange(
        10
    )
    assert "encode_images_per_second" not in values
    (made,) = run_eval([load_adapter("toy.p8")], dataset, ["cost"], networks=networks)
    assert made.skipped == {"cost": "only a generator can draw tokens"}


def test_saturation_is_where_doubling_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One device takes a second, and more from 64 images on; the memory of the other ends at 32."""
    tried: list[int] = []
    monkeypatch.setattr("tokbench.timing.timed", lambda call, device: (None, call()))

    def taking(batch: int) -> float:
        tried.append(batch)
        return max(1.0, batch / 64)

    assert saturated(taking, "cpu") == (64, 64)
    assert tried[-1] == 128

    def full(batch: int) -> float:
        if batch > 32:
            raise torch.OutOfMemoryError
        return 1.0

    assert saturated(full, "cpu") == (32, 32)


def test_a_share_that_was_never_seen_may_still_be_there() -> None:
    """All halves agree that it is none, which so many can: 3.7 of N by the binomial distribution."""
    none = Replicates(np.zeros(20), None, (0.0, 1.0), 1 - 0.025 ** (1 / 1000))
    assert none.interval(0.0, 1000).low == 0
    assert none.interval(0.0, 1000).high == pytest.approx(0.00368, abs=1e-5)
    network = ExtractorPool().get("efficientnet-lite0")
    metric = PrecisionRecall("precision_recall_efficientnet", network, "pooled", paired=False)
    near = np.random.default_rng(0).normal(size=(40, 4))
    metric.rows.add(torch.arange(40), {"image": near + 100})
    metric.references.add(torch.arange(40), {"pooled": near})
    for made in metric.replicates(SplitHalves("", 40)).values():
        assert made.interval(0.0, 40).high == pytest.approx(1 - 0.025 ** (1 / 40))


def test_shares_have_intervals_of_shares(dataset: Dataset, networks: ExtractorPool) -> None:
    tokenizer = load_adapter("toy.p8").model
    assert isinstance(tokenizer, Tokenizer)
    replay = loaded(Replay("replay.toy", tokenizer, dataset))
    (made,) = run_eval([replay], slots(dataset), ["precision_recall_768"], task=Generate(), networks=networks)
    for number in ("precision_768", "recall_768"):
        entry = made.metrics[number]
        assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1


def test_a_few_of_a_folder_sorted_by_class_are_of_all_classes(tmp_path: Path) -> None:
    for name in range(40):
        (tmp_path / f"class{name // 10}").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (name // 10 * 60, 0, 0)).save(tmp_path / f"class{name // 10}" / f"{name:02}.png")
    found = ImageFolder("images:x", tmp_path).samples(range(20))
    assert len(found[:, 0, 0, 0].unique()) == 4


def test_decoders_do_not_draw_the_numbers_of_their_tokens(dataset: Dataset, networks: ExtractorPool) -> None:
    tokenizer = load_adapter("toy.p8").model
    assert isinstance(tokenizer, Tokenizer)
    decoded: list[int] = []

    class Noisy(type(tokenizer)):  # type: ignore[misc]
        def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
            decoded.extend(seeds)
            return super().decode(tokens, seeds)

    drawn: list[int] = []

    class Noted(Replay):
        def sample(self, labels: Tensor, seeds: Sequence[int], guidance: float) -> Tokens:
            drawn.extend(seeds)
            return super().sample(labels, seeds, guidance)

    tokenizer.__class__ = Noisy
    model = Noted("replay.toy", tokenizer, dataset)
    (made,) = run_eval([loaded(model, "replay.toy")], slots(dataset), ["rate"], task=Generate(), networks=networks)
    assert made.error is None
    assert len(set(decoded)) == len(dataset) and not set(decoded) & set(drawn)


def test_names_of_tasks() -> None:
    for task in (Generate(), Generate(1.5), Generate(1.0)):
        assert parse_task(task.name) == task
    assert Generate(1.0).name == "generate-cfg1"
    assert RECONSTRUCT.paired
    assert not Generate().paired


def test_metrics_for_a_task() -> None:
    assert "gfid" in choose_for("generate", None)
    with pytest.raises(UsageError, match="samples have no references"):
        choose_for("generate", "psnr")
    with pytest.raises(UsageError, match="--task generate"):
        choose_for("reconstruct", "gfid")
    assert not set(choose_for("reconstruct", "all")) & {name for name, spec in METRICS.items() if spec.paired is False}


def test_a_folder_of_samples_has_as_many_as_it_holds(tiles: Path) -> None:
    found = ImageFolder("images:x", tiles)
    assert found.count == len(Folder(tiles).names)
    assert found.samples([0, 5]).shape == (2, 3, 32, 32)
    everything = found.samples(range(48))
    assert torch.equal(found.samples([5]), everything[5:6])
    with pytest.raises(AdapterError, match="fewer than requested"):
        found.samples([48])
