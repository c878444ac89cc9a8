"""The Fréchet distance, KID and Inception Score: by algebra, and against torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokbench.errors import NotApplicable
from tokbench.metrics.batch import Batch
from tokbench.metrics.distribution import halved
from tokbench.metrics.fid_statistics import FidStatistics
from tokbench.metrics.frechet import SPLITS, Frechet, distance_of_sets, frechet_distance
from tokbench.metrics.kid import KID, squared_mmd
from tokbench.stats.split_half import SplitHalves


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook form, from the covariances alone; it must agree with the form that looks at the vectors."""
    covariances = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b)]
    expected = frechet_distance(a.mean(0), covariances[0], b.mean(0), covariances[1])
    found = distance_of_sets(a, b)
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-6)
    return found


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def spd(rng: np.random.Generator, size: int) -> np.ndarray:
    root = rng.normal(size=(size, size))
    return root @ root.T


def test_equal_covariances_leave_the_squared_mean_gap(rng: np.random.Generator) -> None:
    covariance, one, two = spd(rng, 20), rng.normal(size=20), rng.normal(size=20)
    assert frechet_distance(one, covariance, two, covariance) == pytest.approx(((one - two) ** 2).sum(), rel=1e-10)


def test_commuting_covariances_have_a_closed_form() -> None:
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 16.0])
    zero = np.zeros(3)
    assert frechet_distance(zero, np.diag(a), zero, np.diag(b)) == pytest.approx(((a**0.5 - b**0.5) ** 2).sum())


def test_symmetric_and_rotation_invariant(rng: np.random.Generator) -> None:
    a, b, m, n = spd(rng, 8), spd(rng, 8), rng.normal(size=8), rng.normal(size=8)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    expected = frechet_distance(m, a, n, b)
    assert frechet_distance(n, b, m, a) == pytest.approx(expected, rel=1e-10)
    turned = frechet_distance(turn @ m, turn @ a @ turn.T, turn @ n, turn @ b @ turn.T)
    assert turned == pytest.approx(expected, rel=1e-10)


def test_equals_the_matrix_square_root(rng: np.random.Generator) -> None:
    from scipy.linalg import sqrtm

    a, b, zero = spd(rng, 30), spd(rng, 30), np.zeros(30)
    expected = np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(zero, a, zero, b) == pytest.approx(expected, rel=1e-9)


def test_singular_covariances(rng: np.random.Generator) -> None:
    """Fewer images than dimensions: no NaN, 0 for the same set, and the nuclear norm of the centred Gram matrix."""
    a, b = rng.normal(size=(12, 64)), rng.normal(size=(12, 64)) + 0.3
    assert distance(a, a) == pytest.approx(0, abs=1e-9)
    x, y = (a - a.mean(0)) / 11**0.5, (b - b.mean(0)) / 11**0.5
    overlap = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * overlap
    assert distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_constant_features(rng: np.random.Generator) -> None:
    assert distance(np.ones((5, 4)), np.ones((5, 4))) == pytest.approx(0, abs=1e-12)
    assert distance(np.ones((5, 4)), np.zeros((5, 4))) == pytest.approx(4)


def test_equals_torch_fidelity(rng: np.random.Generator) -> None:
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    mix = rng.normal(size=(96, 96))
    a, b = rng.normal(size=(400, 96)) @ mix, rng.normal(size=(400, 96)) @ mix * 1.1 + 0.2
    stats = [fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    expected = fid.fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert distance(a, b) == pytest.approx(expected, rel=1e-7)


def test_the_metric_equals_torch_fidelity(networks, photos: torch.Tensor, damaged: torch.Tensor) -> None:
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    network = networks.get("inception-2015-12-05")
    metric = Frechet("rfid_64", network, "64")
    reference, image = torch.cat([photos, photos.flip(3)]), torch.cat([damaged, damaged.flip(2)])
    metric.update(Batch(torch.arange(12), reference, image))
    stats = [fid.fid_features_to_statistics(network(images)["64"]) for images in (reference, image)]
    expected = fid.fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]
    assert metric.compute()["rfid_64"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_kid_on_more_than_a_subset_equals_torch_fidelity(networks) -> None:
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    metric = KID("kid_768", networks.get("inception-2015-12-05"), "768")
    draw = torch.Generator().manual_seed(0)
    a, b = torch.randn(1200, 8, generator=draw), torch.randn(1200, 8, generator=draw) + 0.1
    for start, end in ((700, 1200), (0, 700)):  # shards in any order
        metric.references.add(torch.arange(start, end), {"768": a[start:end].numpy()})
        metric.rows.add(torch.arange(start, end), {"image": b[start:end].numpy()})
    found = metric.compute()["kid_768"]
    for kind, error in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        given = {"kid_subsets": 100, "kid_subset_size": 1000, "rng_seed": 2020, "verbose": False}
        expected = kid.kid_features_to_metric(a.to(kind), b.to(kind), **given)["kernel_inception_distance_mean"]
        assert found == pytest.approx(expected, abs=error)


@pytest.mark.slow
def test_kid_of_more_than_a_subset_has_an_interval(networks) -> None:
    """About as wide as other sets of so many make it vary; with twice the images, or as many, in each set."""
    draw = torch.Generator().manual_seed(0)
    network = networks.get("inception-2015-12-05")

    def kid(count: int, references: int) -> KID:
        metric = KID("kid_768", network, "768", paired=count == references)
        rows, others = (torch.randn(n, 8, generator=draw) for n in (count, references))
        metric.references.add(torch.arange(references), {"768": others.numpy()})
        metric.rows.add(torch.arange(count), {"image": (rows + 0.3).numpy()})
        return metric

    for count, references in ((1200, 1200), (300, 1100)):
        values = [kid(count, references).compute()["kid_768"] for _ in range(5)]
        made = kid(count, references).replicates(SplitHalves("", count))["kid_768"]
        assert 1 / 3 < made.deviation / np.std(values, ddof=1) < 3


def test_one_image_is_refused(networks, photos: torch.Tensor) -> None:
    metric = Frechet("rfid", networks.get("inception-2015-12-05"), "2048")
    metric.update(Batch(torch.arange(1), photos[:1], photos[:1]))
    with pytest.raises(NotApplicable, match="at least 2 images"):
        metric.compute()


def unbiased(x: np.ndarray, y: np.ndarray) -> float:
    """The kernel distance as its authors write it, in as many digits as NumPy has."""
    x, y = x.astype(np.longdouble), y.astype(np.longdouble)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / x.shape[1] + 1) ** 3

    n = len(x)
    within = sum((kernel(z, z).sum() - np.trace(kernel(z, z))) / (n * (n - 1)) for z in (x, y))
    return float(within - 2 * kernel(x, y).mean())


def test_kid_equals_the_unbiased_estimator(networks, photos: torch.Tensor, damaged: torch.Tensor) -> None:
    network = networks.get("inception-2015-12-05")
    metric = KID("kid_768", network, "768")
    metric.update(Batch(torch.arange(len(photos)), photos, damaged))
    x, y = (network(images)["768"].numpy() for images in (photos, damaged))
    assert metric.compute()["kid_768"] == pytest.approx(unbiased(x, y), rel=0, abs=1e-12)


def test_kid_keeps_the_digits_of_near_equal_sets(rng: np.random.Generator) -> None:
    """The features are like Inception's, the distance is a thousandth of the kernels' mean; float32 errs by 1e-8."""
    x = np.abs(rng.normal(0.4, 0.3, (200, 512))).astype(np.float32)
    y = x + rng.normal(0, 0.02, x.shape).astype(np.float32)
    assert squared_mmd(x, y) == pytest.approx(unbiased(x, y), rel=0, abs=1e-12)
    assert squared_mmd(x[:2], y[:2]) == pytest.approx(unbiased(x[:2], y[:2]), rel=0, abs=1e-12)


@pytest.mark.parametrize("count", [14, 200], ids=["fewer images than dimensions", "more"])
@pytest.mark.parametrize("references", ["paired", "of another number", "statistics"])
def test_each_half_has_the_distance_of_its_images(
    networks, rng: np.random.Generator, count: int, references: str
) -> None:
    """Halves are computed many at once. Two columns are equal, so that no covariance has a Cholesky factor, and the
    first image is exact."""
    paired, other = references == "paired", count if references == "paired" else count + 20
    image, reference = (rng.normal(size=(n, 24)) for n in (count, other))
    image[0] = reference[0]
    image[:, 1], reference[:, 1] = image[:, 0], reference[:, 0]
    network, statistics = networks.get("inception-2015-12-05"), None
    if references == "statistics":
        moments = {"64": (reference.mean(0), np.cov(reference, rowvar=False))}
        statistics = FidStatistics(moments, network.name, network.input, "float32", network.sha256)
    metric = Frechet("rfid_64", network, "64", statistics=statistics, paired=paired)
    metric.references.add(torch.arange(other), {"64": reference})
    metric.rows.add(torch.arange(count), {"image": image})
    halves = SplitHalves("data", count)
    found = metric.replicates(halves)["rfid_64"]
    theirs = list(halves if paired else SplitHalves("data/reference", other, len(halves) // 2))
    for at, half in list(enumerate(halves))[:6]:
        pairs = [(theirs[at], half), *zip(halved(theirs[at]), halved(half), strict=True)]
        expected = [metric.statistic(reference[one], image[two]) for one, two in pairs]
        # Square roots of the rounding errors of singular covariances differ by about 1e-8.
        assert found.halves[at] == pytest.approx(expected[0], rel=1e-7)
        assert found.quarters[at] == pytest.approx((expected[1] + expected[2]) / 2, rel=1e-7)


def test_equal_halves_have_a_distance_of_zero(networks, rng: np.random.Generator) -> None:
    for count in (14, 200):
        metric = Frechet("rfid_64", networks.get("inception-2015-12-05"), "64")
        rows = rng.normal(size=(count, 24))
        metric.references.add(torch.arange(count), {"64": rows})
        metric.rows.add(torch.arange(count), {"image": rows.copy()})
        found = metric.replicates(SplitHalves("data", count))["rfid_64"]
        assert not found.halves.any() and not found.quarters.any()


def test_independent_sets_are_halved_independently(networks, photos: torch.Tensor, damaged: torch.Tensor) -> None:
    """The reference's halves are not those of the images, its own split is N/2 against N/2, and exact sets differ."""
    network = networks.get("inception-2015-12-05")
    reference, image = torch.cat([photos, photos.flip(3)]), torch.cat([damaged, damaged.flip(2)])
    made = []
    for paired in (True, False):
        metric = Frechet("rfid_64", network, "64", paired=paired)
        if not paired:
            metric.update_reference(Batch(torch.arange(12), reference))
        metric.update(Batch(torch.arange(12), reference if paired else None, image))
        made.append(metric)
    halves = SplitHalves("data", 12)
    together, apart = (metric.replicates(halves)["rfid_64"] for metric in made)
    assert (together.halves != apart.halves).all()
    assert made[0].compute() == made[1].compute()
    rows = network(reference)["64"].numpy()
    drawn = list(SplitHalves("reference", 12))[: 2 * SPLITS]
    first = distance_of_sets(rows[drawn[0]], rows[drawn[1]])
    split = made[1].split_half()
    assert 0 < split < 3 * first
    assert f"12, {split:.4g} between halves of them" in made[1].provenance()["references"]
    assert "references" not in made[0].provenance()
    assert split == pytest.approx(
        np.mean([distance_of_sets(rows[a], rows[b]) for a, b in zip(drawn[::2], drawn[1::2], strict=True)])
    )
