"""Merging, by property: however images are dealt to shards, in whatever order shards are joined, the state is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from factories import some_labels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokbench.data.stream import AnnotatedImage
from tokbench.metric_names import METRICS, metrics_for
from tokbench.metrics.batch import Batch, Timing
from tokbench.metrics.registry import create_metric
from tokbench.metrics.sample_store import SampleStore
from tokbench.stats.moments import RunningMoments
from tokbench.stats.split_half import SplitHalves
from tokbench.testing.metrics import ExampleTokenizer, example_context, example_model
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.tiled_decode import Seams
from tokbench.tokenizers.tokens import Tokens

COUNT = 24
SETTINGS = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def deals(draw) -> list[list[list[int]]]:
    """Shards of batches of positions: a permutation of all images, cut at random twice over."""
    order = draw(st.permutations(range(COUNT)))
    shards = draw(st.integers(1, 4))
    cuts = sorted(draw(st.lists(st.integers(0, COUNT), min_size=shards - 1, max_size=shards - 1)))
    parts = [order[a:b] for a, b in zip([0, *cuts], [*cuts, COUNT], strict=True)]
    size = draw(st.integers(1, 9))
    return [[part[i : i + size] for i in range(0, len(part), size)] for part in parts]


def batch_of(
    positions: list[int], images: tuple[torch.Tensor, torch.Tensor, list[AnnotatedImage]], model: Tokenizer
) -> Batch:
    reference, image = (side[positions] for side in images[:2])
    marked = images[2]
    codes = Tokens.from_indices((image[:, 0, ::8, ::8] * 15).long(), 16)
    tokens = codes if isinstance(model, ExampleTokenizer) else model.encode(image)
    count = len(positions)
    return Batch(
        torch.tensor(positions), reference, image, tokens, Timing(0.5 * count, 0.25 * count),
        marked=[marked[position] for position in positions],
        captions=[f"a photo of {position % 7} cats, mostly grey" for position in positions],
        labels=torch.tensor(positions) % 3,
        baseline=(reference + image) / 2,
        degraded=(reference + image) / 2,
        seams=Seams((16,), (8, 24)),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _few_images_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("compressibility", "probe", "code_prediction"):
        monkeypatch.setattr(f"tokbench.metrics.{module}.FEWEST", 2)
    monkeypatch.setattr("tokbench.metrics.code_prediction.STEPS", 2)


@pytest.fixture(scope="module")
def images(mark) -> tuple[torch.Tensor, torch.Tensor, list[AnnotatedImage]]:
    draw = torch.Generator().manual_seed(0)
    reference = torch.rand(COUNT, 3, 32, 32, generator=draw)
    return reference, (reference + 0.1 * torch.randn(reference.shape, generator=draw)).clamp(0, 1), mark(reference)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name for name in metrics_for("image") if name not in ("cost", "speed", "swap", "ms_ssim", "generated_classes")],
)
def test_every_deal_of_images_gives_the_same_numbers(name: str, networks, images) -> None:
    model = example_model(METRICS[name])
    every = batch_of(list(range(COUNT)), images, model)
    context = example_context(networks, model, every, labels=some_labels)
    whole = create_metric(name, context)
    whole.update(every)
    halves, near = (
        SplitHalves("x", COUNT),
        {"rel": 1e-9, "abs": 1e-9} if METRICS[name].network else {"rel": 0, "abs": 0},
    )
    values, replicates = whole.compute(), whole.replicates(halves)

    @SETTINGS
    @given(dealt=deals(), data=st.data())
    def dealt_out(dealt, data) -> None:
        shards = []
        for batches in dealt:
            shard = create_metric(name, context)
            for positions in batches:
                shard.update(batch_of(positions, images, model))
            shards.append(shard)
        order = data.draw(st.permutations(range(len(shards))))
        merged = shards[order[0]]
        for position in order[1:]:
            merged.merge(shards[position])
        found, made = merged.compute(), merged.replicates(halves)
        for number, value in values.items():
            assert found[number] == pytest.approx(value, nan_ok=True, **near), number
        for number, expected in replicates.items():
            np.testing.assert_allclose(
                made[number].as_array(), expected.as_array(), rtol=1e-7, atol=1e-9, err_msg=number
            )

    dealt_out()


@SETTINGS
@given(dealt=deals(), small=st.booleans())
def test_rows_come_back_in_order_from_memory_and_files(dealt, small: bool, tmp_path_factory) -> None:
    folder: Path = tmp_path_factory.mktemp("rows")
    values = np.arange(COUNT * 3, dtype=np.float32).reshape(COUNT, 3)
    joined = SampleStore()
    for number, batches in enumerate(dealt):
        shard = SampleStore()
        for positions in batches:
            shard.add(positions, {"v": values[positions]})
        if number % 2:  # every other shard goes to a file
            index, columns = shard.pop_in_memory()
            if len(index):
                np.savez(folder / f"{number}.npz", **{f"m/{name}": column for name, column in columns.items()})
                shard.add_file(index, ["v"], folder / f"{number}.npz", "m/")
        joined.merge(shard)
    assert joined.index().tolist() == list(range(COUNT))
    np.testing.assert_array_equal(joined.column("v"), values)
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        if small:
            patched.setattr("tokbench.metrics.sample_store.MAX_IN_MEMORY", 0)
        again = np.full_like(values, np.nan)
        for ranks, block in joined.blocks("v"):
            again[ranks] = block
    np.testing.assert_array_equal(again, values)


@SETTINGS
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(0, 1e6))
def test_sums_of_parts_are_the_moments_of_the_whole(count: int, width: int, seed: int, far: float) -> None:
    """Far from the origin, too, where the difference of two large sums would lose everything."""
    rows = np.random.default_rng(seed).normal(size=(count, width)) + far
    cut = count // 2
    first, second = RunningMoments(rows[0]), RunningMoments(rows[0])
    first.add(rows[:cut])
    second.add(rows[cut:])
    both = first + second if first.count and second.count else first if first.count else second
    mean, covariance = both.moments()
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(covariance, np.atleast_2d(np.cov(rows, rowvar=False)), rtol=1e-6, atol=1e-8)
