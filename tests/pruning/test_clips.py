"""`tokbench prune` of classifiers of clips: clusters, controls, the network, rows, claims, and wrong usage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from small_networks import train_networks
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tokbench.cli import main
from tokbench.data.reading import DEFAULTS
from tokbench.errors import DataError, UsageError
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Shape
from tokbench.pruning.clips.cluster import k_medoids, spectral
from tokbench.pruning.clips.kind import KIND
from tokbench.pruning.clips.methods import METHODS, Pooling, Uniform
from tokbench.pruning.clips.network import ClipClassifier
from tokbench.pruning.leaderboards import write
from tokbench.pruning.paired_timing import TRIES, WARM_UP
from tokbench.pruning.request import PruneRequest
from tokbench.pruning.result import load_all
from tokbench.report.pruning_tables import tables

SMALL = Shape(width=16, depth=3, heads=2)


def blobs(count: int = 8, clusters: int = 5) -> Tensor:
    """Two sets of well separated clusters of `count` points each, in random order."""
    generator = torch.Generator().manual_seed(0)
    centres = 20 * torch.eye(clusters).repeat_interleave(count, 0)
    points = centres + torch.randn(2, clusters * count, clusters, generator=generator)
    return points[:, torch.randperm(clusters * count, generator=generator)]


@pytest.mark.parametrize("method", [k_medoids, spectral])
def test_every_separated_cluster_has_one_medoid(method: Callable[[Tensor, int], Tensor]) -> None:
    points = blobs()
    chosen = method(points, 5)
    assert torch.equal(chosen, chosen.sort(1).values)
    for own, places in zip(points, chosen, strict=True):
        assert sorted(own[places].argmax(1).tolist()) == [0, 1, 2, 3, 4]


def test_medoids_are_a_fixed_point_of_the_definition() -> None:
    points = torch.randn(3, 40, 4, generator=torch.Generator().manual_seed(1))
    for own, medoids in zip(points.double().numpy(), k_medoids(points, 6).numpy(), strict=True):
        apart = np.linalg.norm(own[:, None] - own[None], axis=2)
        joined = apart[:, medoids].argmin(1)
        for cluster, medoid in enumerate(medoids):
            members = np.flatnonzero(joined == cluster)
            assert members[apart[np.ix_(members, members)].sum(0).argmin()] == medoid


def test_medoids_do_not_depend_on_the_batch_and_stay_distinct_among_equal_tokens() -> None:
    points = blobs()
    assert torch.equal(k_medoids(points, 7)[1:], k_medoids(points[1:], 7))
    assert k_medoids(torch.ones(1, 6, 3), 4).tolist() == [[0, 1, 2, 3]]
    assert k_medoids(points, 40).tolist() == [list(range(40))] * 2
    with pytest.raises(ValueError, match="41 medoids of 40 tokens"):
        k_medoids(points, 41)


def test_pooling_averages_over_frames_and_rectangles() -> None:
    tokens = torch.arange(2 * 2 * 4 * 4).float().view(1, 4, 4, 4, 1)
    assert torch.equal(Pooling().reduce(tokens, 16)[0], tokens.mean(1).flatten()[:, None])
    assert Pooling().reduce(tokens, 4).flatten().tolist() == pytest.approx([26.5, 28.5, 34.5, 36.5])
    with pytest.raises(UsageError, match="cannot make 5 tokens of a grid of 4x4"):
        Pooling().reduce(tokens, 5)


def test_uniform_sampling_keeps_evenly_spaced_tokens() -> None:
    tokens = torch.arange(64).float().view(1, 4, 4, 4, 1)
    assert Uniform().reduce(tokens, 4).flatten().tolist() == [8, 24, 40, 56]


def made(**options: object) -> ClipClassifier:
    torch.manual_seed(0)
    return ClipClassifier(SMALL, 4, **options).eval()  # type: ignore[arg-type]


def test_the_formula_counts_the_operations_of_the_network() -> None:
    network, clips = made(at=1), torch.rand(1, 8, 3, 64, 64)
    for reducer in (None, Uniform()):
        with torch.no_grad(), network.using(reducer, 0.25), FlopCounterMode(display=False) as counter:
            network(clips)
            assert counter.get_total_flops() == network.flops(8)


def test_without_reduction_frames_are_independent_and_averaged() -> None:
    network, clips = made(), torch.rand(2, 4, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        whole = network(clips)
        alone = torch.stack([network(clips[:, [time]]) for time in range(4)]).mean(0)
    assert torch.allclose(whole, alone, atol=1e-5)


def test_reduction_sees_the_frames_of_its_segment_only() -> None:
    seen: list[Tensor] = []

    class Recording(Uniform):
        def reduce(self, tokens: Tensor, count: int) -> Tensor:
            seen.append(tokens)
            return super().reduce(tokens, count)

    network, clips = made(at=0, segments=2), torch.rand(1, 4, 3, 64, 64)
    changed = clips.clone()
    changed[:, 2:] = 0
    with torch.no_grad(), network.using(Recording(), 0.25):
        network(clips)
        network(changed)
    assert seen[0].shape == (2, 2, 8, 8, 16)
    assert torch.equal(seen[0][0], seen[1][0]) and not torch.equal(seen[0][1], seen[1][1])


def test_wrong_settings_and_data_are_refused() -> None:
    with pytest.raises(ValueError, match="give one of uniform, pooling, k_medoids, spectral"):
        made(method="k_means")
    network = made(method="uniform", keep=0.25)
    with pytest.raises(UsageError, match="6 frames cannot be cut into 4 equal segments"):
        network(torch.zeros(1, 6, 3, 64, 64))
    with network.using(Uniform(), 0.001), pytest.raises(UsageError, match=r"keep 0\.001 leaves no token"):
        network(torch.zeros(1, 4, 3, 64, 64))
    with pytest.raises(DataError, match="clips with labels 0 to 3"):
        network.loss(TrainingBatch(torch.zeros(1, 4, 3, 64, 64), torch.tensor([4])), 0.0)


TOML = """summary = "small"
prune_kind = "clip"
[model]
classes = 4
at = 1
{method}
[model.shape]
width = 8
depth = 2
heads = 2
[training]
data = "sprites-train"
flip = false
images = 8
batch = 8
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a classifier and one that was trained with medoids, both trained for one step."""
    texts = {"base": TOML.format(method=""), "own": TOML.format(method='method = "k_medoids"\nkeep = 0.125')}
    root = tmp_path_factory.mktemp("clips")
    return train_networks(root, "centerclip", texts, "--limit", 8, datasets=("sprites", "sprites-train"))


def prune(root: Path, *words: str, data: str = "sprites") -> Result:
    given = ["--model", "small.base", "--data", data, "--root", str(root), "--limit", "5", "--batches", "0"]
    return CliRunner().invoke(main, ["prune", *given, *words])


def test_rows_of_all_methods_and_of_a_trained_network(root: Path, tmp_path: Path) -> None:
    done = prune(root, "k_medoids", "small.own", "--keep", "0.0625", "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    found = {one.about["method"]: one for one in load_all(tmp_path, "clip")}
    assert found.keys() == {"uniform", "pooling", "k_medoids", "small.own"}
    row = found["k_medoids"].rows["0.0625"]
    assert row.tokens == row.most_tokens == 64 and row.gflops < row.whole_gflops
    assert row.top1.n == 5 and row.training_seconds == 0 and sum(one.n for one in row.cameras.values()) == 5
    assert found["small.own"].rows["0.125"].tokens == 128
    assert found["small.own"].rows["0.125"].network == "small.own"
    assert "Medoids beat temporal pooling." in done.output and "not judged" in done.output
    assert load_all(tmp_path) == []  # classifiers of images
    assert {path.suffix for path in write(tmp_path)} == {".csv", ".md"}


def test_wrong_usage_exits_with_the_remedy(root: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path)]
    assert "at keep 1 there is nothing" in prune(root, "uniform", "--keep", "1", *out).output
    assert "unknown method 'tome'" in prune(root, "tome", "--keep", "0.25", *out).output
    assert "small.base is the model itself" in prune(root, "small.base", "--keep", "0.25", *out).output
    wrong = prune(root, "uniform", "--round-to", "8", *out)
    assert wrong.exit_code != 0 and "--round-to does not apply to classifiers of clips" in str(wrong.output) + str(
        wrong.exception
    )
    listed = CliRunner().invoke(main, ["prune", "--list", "--model", "small.base", "--root", str(root)])
    assert listed.output.split() == [*METHODS, "small.base", "small.own"]


def test_times_include_clustering(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = PruneRequest("small.base", "sprites", "cpu", root, 2, DEFAULTS, (1,), 2, 1, "sdpa", 1, None, False)
    benchmark = KIND.open(request, lambda text: None)
    benchmark.measure_full(lambda what, done, total: None)
    (candidate,) = benchmark.candidates("k_medoids", [0.0625])
    calls = []
    chosen = METHODS["k_medoids"].chosen  # type: ignore[attr-defined]

    def counted(self: Any, tokens: Tensor, count: int) -> Tensor:
        calls.append(count)
        found: Tensor = chosen(self, tokens, count)
        return found

    monkeypatch.setattr(METHODS["k_medoids"], "chosen", counted)
    timing = benchmark.time(candidate, 1)
    rounds = 2  # of two timings of the method each
    assert calls == [16] * (WARM_UP + 2 * rounds + 1 + TRIES)  # one pass for the peak memory
    assert timing.selector_ms > 0 and timing.speedups == (timing.speedup,)


def test_the_page_shows_every_row(root: Path, tmp_path: Path) -> None:
    assert prune(root, "small.own", "--keep", "0.25", "--out", str(tmp_path)).exit_code == 0
    (shown,) = tables(load_all(tmp_path, "clip"))
    assert {row.adapter.split()[0] for row in shown.rows} == {"uniform", "pooling", "small.own"}
    assert all(len(row.values) == len(shown.columns) for row in shown.rows)
