"""The latent report on tokenizers and latents for which every number is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import evaluate_model
from torch import Tensor

from tokbench.data.dataset import open_dataset
from tokbench.errors import NotApplicable, UsageError
from tokbench.metric_names import METRICS, groups
from tokbench.metrics import registry
from tokbench.metrics.batch import Batch
from tokbench.metrics.code_entropy import CodeEntropy
from tokbench.metrics.equivariance import Equivariance
from tokbench.metrics.latent_statistics import LatentStatistics
from tokbench.metrics.locality import Locality, local_minus_distant
from tokbench.metrics.probe import FirstTokensProbe
from tokbench.metrics.spectrum import LowPassFrechet, SpectralMatch, low_pass, spectrum
from tokbench.protocol.protocol import TOKBENCH
from tokbench.stats.split_half import SplitHalves
from tokbench.testing.metrics import ExampleLatents, ExampleTokenizer
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

SIDE = 32


class Pixels(Tokenizer):
    """Latents are 4 x 4 means of the image; decoding repeats them, plus `ramp` times the position from left to
    right, which no transformation of the latents moves."""

    def __init__(self, ramp: float = 0.0, size: int | None = None) -> None:
        self.ramp = ramp
        self.spec = TokenizerSpec("pixels", "continuous", multiple=4, downsample=4, size=size)

    def encode(self, images: Tensor) -> Tokens:
        small = torch.nn.functional.avg_pool2d(images, 4)
        return Tokens.from_latents(small, small[0, 0].numel())

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        image = tokens.tensor.float().repeat_interleave(4, 2).repeat_interleave(4, 3)
        return image + self.ramp * torch.linspace(0, 1, image.shape[3])


class Same(Tokenizer):
    """Latents are the pixels."""

    spec = TokenizerSpec("same", "continuous", downsample=1)

    def encode(self, images: Tensor) -> Tokens:
        return Tokens.from_latents(images, images[0, 0].numel())

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return tokens.tensor.float()


class Means(torch.nn.Module):
    """A stand-in network whose features are mean colours and the colours of four quarters."""

    name, sha256, key, precision, stays = "means", "0" * 64, "means", "float32", False

    def request_layer(self, layer: str) -> None:
        pass

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"pooled": torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)}

    def describe(self) -> dict[str, str]:
        return {"network": self.name}


def photos(count: int = 6) -> Tensor:
    """Random images in 0.2 to 0.8, of random 4 x 4 blocks, so that `Pixels` reconstructs them exactly."""
    blocks = torch.rand(count, 3, SIDE // 4, SIDE // 4, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    return (blocks * 256).round().div(256).repeat_interleave(4, 2).repeat_interleave(4, 3)


def batch_of(model: Tokenizer, images: Tensor, first: int = 0) -> Batch:
    tokens = model.encode(images)
    index = torch.arange(first, first + len(images))
    return Batch(index, images, model.decode(tokens, index.tolist()).clamp(0, 1), tokens)


def test_an_equivariant_decoder_has_no_error() -> None:
    metric = Equivariance(Pixels(), 4)
    metric.update(batch_of(Pixels(), photos()))
    numbers = metric.compute()
    names = {f"equivariance_{one}{end}" for one in ("rotate", "flip", "shift", "scale") for end in ("", "_own")}
    assert set(numbers) == names
    scaled = {name for name in names if "scale" in name}
    assert [numbers[name] for name in names - scaled] == pytest.approx([0.0] * 6, abs=0.05)  # latents are float16
    assert numbers["equivariance_flip_own"] == 0
    assert all(numbers[name] > 10 for name in scaled)  # blocks of 4 x 4 of half the number of latents are coarser
    metric = Equivariance(Same(), 4)
    metric.update(batch_of(Same(), photos()))
    assert list(metric.compute().values()) == pytest.approx([0.0] * 8, abs=0.05)


def test_a_ramp_that_stays_in_place_is_the_error() -> None:
    """A flip moves the ramp r(x) of the reconstruction to r(1 - x), while the decoder draws it at r(x) again."""
    ramp = 0.2
    model = Pixels(ramp)
    metric = Equivariance(model, 4)
    metric.update(batch_of(model, photos()))
    numbers, places = metric.compute(), np.linspace(0, 1, SIDE)
    assert numbers["equivariance_flip_own"] == pytest.approx(
        255 * ramp * math.sqrt(((1 - 2 * places) ** 2).mean()), rel=1e-3
    )
    assert numbers["equivariance_flip"] == pytest.approx(255 * ramp * math.sqrt((places**2).mean()), rel=1e-3)
    assert numbers["equivariance_shift_own"] == pytest.approx(255 * ramp * 4 / (SIDE - 1), rel=1e-3)
    interval = metric.intervals(0)["equivariance_flip_own"]
    assert interval.low <= numbers["equivariance_flip_own"] <= interval.high


def test_a_tokenizer_of_one_size_has_no_scaled_latents() -> None:
    model = Pixels(size=SIDE)
    metric = Equivariance(model, 4)
    metric.update(batch_of(model, photos()))
    assert "equivariance_scale" not in metric.compute()


def test_padded_images_are_refused() -> None:
    model = Pixels()
    images = torch.rand(2, 3, SIDE, SIDE - 2)
    with pytest.raises(NotApplicable, match="images of 30x32 px are padded"):
        Equivariance(model, 4).update(Batch(torch.arange(2), images, images, model.encode(photos(2))))


def test_statistics_of_channels_with_known_moments() -> None:
    """Two independent channels of +-1 and +-2 about means 3 and 4: a two-point distribution has kurtosis 1."""
    signs = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]]).float()
    latents = (signs * torch.tensor([1.0, 2.0]) + torch.tensor([3.0, 4.0])).T.reshape(1, 2, 4, 1)
    model = Pixels()
    metric = LatentStatistics(model)
    images = torch.zeros(1, 3, 8, 8)
    for index in range(4):
        metric.update(Batch(torch.tensor([index]), images, images, Tokens.from_latents(latents, 4)))
    shares = np.array([0.2, 0.8])
    rank = math.exp(-(shares * np.log(shares)).sum())
    assert metric.compute() == pytest.approx(
        {
            "latent_mean": math.sqrt(12.5), "latent_std": math.sqrt(2.5), "latent_std_ratio": 0.5,
            "latent_kurtosis": -2.0, "effective_rank": rank, "effective_rank_share": rank / 2,
        }
    )  # fmt: skip
    spread = metric.replicates(SplitHalves("a" * 64, 4))["effective_rank"]
    assert spread.deviation == pytest.approx(0, abs=1e-9)  # all images are equal


def test_equal_channels_have_the_rank_of_one() -> None:
    channel = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    tokens = Tokens.from_latents(channel.expand(-1, 5, -1, -1), 4)
    metric = LatentStatistics(Pixels())
    metric.update(Batch(torch.arange(3), image=torch.zeros(3, 3, 8, 8), tokens=tokens))
    assert metric.compute()["effective_rank"] == pytest.approx(1, abs=1e-6)


def test_latents_with_the_image_as_channels_match_its_spectrum() -> None:
    """Latents that are the reduced image in [-1, 1] have its spectrum; noise of the same power has another."""
    images = torch.nn.functional.interpolate(
        torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)), (SIDE, SIDE), mode="bicubic"
    ).clamp(0, 1)
    small = torch.nn.functional.interpolate(images * 2 - 1, (8, 8), mode="bicubic", antialias=True)
    noise = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    values = {}
    for name, latents in (("same", small), ("noise", noise)):
        metric = SpectralMatch(Pixels())
        metric.update(Batch(torch.arange(3), images, tokens=Tokens.from_latents(latents, 64)))
        values[name] = metric.compute()["spectral_match"]
    assert values["same"] == pytest.approx(0, abs=1e-6)
    assert values["noise"] > 0.005


def test_a_cosine_of_the_transform_is_in_its_own_bin() -> None:
    places = (torch.arange(16) + 0.5) * math.pi / 16
    wave = torch.cos(3 * places)[None, None, None].expand(1, 2, 16, 16)
    shares = spectrum(wave)[0]
    assert int(shares.argmax()) == int(3 / math.hypot(15, 15) * 16)
    assert shares.max() == pytest.approx(1)
    assert low_pass(wave) == pytest.approx(wave, abs=1e-5)
    high = torch.cos(9 * places)[None, :] * torch.cos(9 * places)[:, None]
    assert low_pass(high) == pytest.approx(torch.zeros(16, 16), abs=1e-5)


def test_a_bin_is_the_mean_power_without_the_constant() -> None:
    """The first bin of 16 x 16 has the frequencies (0, 0), (0, 1) and (1, 0), of which the first does not count."""
    places = (torch.arange(16) + 0.5) * math.pi / 16
    low, high = torch.cos(places).expand(16, 16), torch.cos(15 * places)[:, None] * torch.cos(15 * places)
    shares = spectrum((3 + 0.1 * low + 2 * high)[None, None])[0]
    band = np.hypot(*np.indices((16, 16))) / math.hypot(15, 15) * 16
    last = int((band.astype(int).clip(max=15) == 15).sum())
    powers = 0.1**2 * 128 / 2, 2**2 * 64 / last  # a cosine has the mean square 1/2
    assert shares[0] / shares[15] == pytest.approx(np.log1p(powers[0]) / np.log1p(powers[1]), rel=1e-4)


def test_an_image_of_one_colour_has_no_spectrum_and_is_left_out() -> None:
    images = photos(3)
    images[1] = 0.3
    metric = SpectralMatch(Pixels())
    metric.update(batch_of(Pixels(), images))
    assert np.isnan(metric.per_image()["spectral_match"][1]).tolist() == [False, True, False]
    assert metric.compute()["spectral_match"] > 0


def test_a_grid_of_a_few_tokens_has_no_spectrum() -> None:
    images = torch.zeros(1, 3, 8, 8)
    with pytest.raises(NotApplicable, match="2x2"):
        SpectralMatch(Pixels()).update(Batch(torch.tensor([0]), images, tokens=Pixels().encode(images)))


def low_pass_metric(model: Tokenizer, images: Tensor, parts: int = 1) -> LowPassFrechet:
    metric = LowPassFrechet("lowpass_fd", Means(), "pooled", model=model, batch_size=4)
    for some in torch.arange(len(images)).chunk(parts):
        metric.update(batch_of(model, images[some], int(some[0])))
    return metric


def test_the_low_pass_distance_is_that_of_filtered_latents() -> None:
    """A tokenizer whose latents are the pixels commutes with the filter, one that halves the contrast does not."""

    class Flat(Same):
        def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
            return tokens.tensor.float() / 2

    images = photos(8)
    assert low_pass_metric(Same(), images).compute()["lowpass_fd"] == pytest.approx(0, abs=1e-5)
    flat = low_pass_metric(Flat(), images)
    expected = (low_pass(images) / 2).mean() - low_pass(images).mean()
    assert flat.compute()["lowpass_fd"] > float(expected) ** 2 * 12 * 0.9
    assert low_pass_metric(Flat(), images, 3).compute() == pytest.approx(flat.compute())


def test_codes_cannot_be_filtered() -> None:
    images, tokens = photos(2), Tokens.from_indices(torch.zeros(2, 8, 8, dtype=torch.int64), 4)
    metric = LowPassFrechet("lowpass_fd", Means(), "pooled", model=Pixels(), batch_size=4)
    with pytest.raises(NotApplicable, match="not one stream of continuous values"):
        metric.update(Batch(torch.arange(2), images, images, tokens))


def test_lds_of_two_halves() -> None:
    """On a grid of two constant, orthogonal halves, neighbours across the border are the only unlike ones."""
    vectors = torch.zeros(1, 16, 16, 2)
    vectors[:, :, :8, 0], vectors[:, :, 8:, 1] = 3.0, 1.0
    near = 1 - 16 / (2 * 16 * 15)
    far = brute_force(vectors[0])[1]
    assert float(local_minus_distant(vectors)) == pytest.approx(near - far)


def brute_force(vectors: Tensor) -> tuple[float, float]:
    places = [(y, x) for y in range(vectors.shape[0]) for x in range(vectors.shape[1])]
    near, far = [], []
    for at, (y, x) in enumerate(places):
        for v, u in places[at + 1 :]:
            distance = abs(y - v) + abs(x - u)
            cosine = float(torch.nn.functional.cosine_similarity(vectors[y, x], vectors[v, u], 0))
            if distance == 1:
                near.append(cosine)
            if distance >= 6 / 16 * max(vectors.shape[:2]):
                far.append(cosine)
    return float(np.mean(near)), float(np.mean(far))


def test_neighbours_are_not_distant_on_the_smallest_grid() -> None:
    """Of 2 x 2 tokens only the diagonal ones are distant; these are equal here, and neighbours are orthogonal."""
    vectors = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]])[None]
    assert float(local_minus_distant(vectors)) == pytest.approx(-1)


def test_lds_equals_the_sum_over_all_pairs() -> None:
    vectors = torch.randn(1, 5, 6, 3, generator=torch.Generator().manual_seed(0))
    near, far = brute_force(vectors[0])
    assert float(local_minus_distant(vectors)) == pytest.approx(near - far, abs=1e-6)
    metric = Locality(Pixels())
    tokens = Tokens.from_latents(vectors.movedim(-1, 1), 30)
    metric.update(Batch(torch.tensor([0]), image=torch.zeros(1, 3, 20, 24), tokens=tokens))
    assert metric.compute()["lds"] == pytest.approx(near - far, abs=2e-3)


def codes(*rows: Sequence[int], size: int = 4, groups: int = 1) -> CodeEntropy:
    metric = CodeEntropy()
    data = torch.tensor(rows)
    if groups > 1:
        data = data.unflatten(1, (-1, groups))
    metric.update(Batch(torch.arange(len(rows)), tokens=Tokens.from_indices(data, size, groups)))
    return metric


def test_conditional_entropies_of_sixteen_images() -> None:
    """Two evenly used codes of 2 bits tell 16 images apart; the third token then has no entropy."""
    numbers = codes(*[(n // 4, n % 4, n % 3, 0, 1) for n in range(16)]).compute()
    assert numbers == pytest.approx(
        {
            "entropy_cliff": 2, "conditional_entropy.1": 2, "conditional_entropy.2": 2, "conditional_entropy.3": 0,
            "conditional_entropy.4": 0, "entropy_cliff_measured": 1 + (0.99 * 4 - 2) / 2,
        }
    )  # fmt: skip


def test_useless_first_codes_delay_the_measured_cliff() -> None:
    metric = codes(*[(1, 1, n // 4, n % 4, n % 2) for n in range(16)])
    numbers = metric.compute()
    assert [numbers[f"conditional_entropy.{t}"] for t in (1, 2, 3, 4)] == pytest.approx([0, 0, 2, 2])
    assert numbers["entropy_cliff"] == 2
    assert numbers["entropy_cliff_measured"] == pytest.approx(3.98)
    uneven = codes(*[(n % 3 * (n % 2), n % 4) for n in range(16)])
    spreads = uneven.replicates(SplitHalves("a" * 64, 16))
    assert "entropy_cliff" not in spreads  # it depends on N and K only
    assert spreads["conditional_entropy.1"].deviation > 0


def test_indices_of_one_token_are_one_symbol() -> None:
    numbers = codes(*[(n // 4, n % 4, 0, 0) for n in range(16)], groups=2).compute()
    assert numbers["entropy_cliff"] == 1
    assert numbers["conditional_entropy.1"] == pytest.approx(4)
    assert "conditional_entropy.3" not in numbers  # an image has two tokens


def test_equal_images_have_no_measured_cliff() -> None:
    numbers = codes((0, 1), (0, 1), (0, 1)).compute()
    assert math.isnan(numbers["entropy_cliff_measured"])
    assert numbers["entropy_cliff"] == 1
    assert math.isnan(codes(*[(0, 1)] * 20, size=2).compute()["entropy_cliff"])  # two bits


def test_labels_in_the_first_token_are_read_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokbench.metrics.probe.FEWEST", 20)
    labels = torch.arange(60) % 3
    rows = torch.randn(60, 12, 3, generator=torch.Generator().manual_seed(0))
    rows[:, 1] = torch.nn.functional.one_hot(labels, 3).float() * 9  # the second token

    class Row(Pixels):
        def __init__(self) -> None:
            self.spec = TokenizerSpec("row", "continuous", num_tokens=12)

    metric = FirstTokensProbe(Row())
    images = torch.zeros(60, 3, 4, 4)
    metric.update(Batch(torch.arange(60), image=images, tokens=Tokens.from_latents(rows, 12), labels=labels))
    numbers = metric.compute()
    assert set(numbers) == {"probe_first_1", "probe_first_10"}
    assert numbers["probe_first_10"] > 0.9 > 0.6 > numbers["probe_first_1"]


def test_the_group_stands_for_its_metrics() -> None:
    chosen = registry.choose("psnr,latent,lds")
    assert chosen[:2] == ["psnr", "probe"]
    assert set(chosen) == {"psnr", *groups()["latent"]}
    assert len(chosen) == len(set(chosen))
    with pytest.raises(UsageError, match="did you mean 'latent'"):
        registry.choose("latents")
    assert {spec.group for spec in METRICS.values()} == {"", "latent"}


@pytest.mark.slow
@pytest.mark.parametrize("model", [ExampleLatents(), ExampleTokenizer()], ids=["latents", "codes"])
def test_the_report_in_one_run(model: Tokenizer, networks, tmp_path: Path) -> None:
    """Every metric of the group has its numbers or says why it has none."""
    dataset = open_dataset("samples", TOKBENCH, limit=6)
    result = evaluate_model(model, dataset, groups()["latent"], networks=networks, cache=tmp_path)
    assert result.error is None
    measured = set(groups()["latent"]) - set(result.skipped)
    common = {"latent_statistics", "spectral_match", "lds", "equivariance"}
    own = {"lowpass_rfid", "lowpass_rfid_768", "lowpass_fd_efficientnet"}
    assert measured == common | (own if model.spec.kind == "continuous" else {"code_entropy"})
    assert all(entry["low"] <= entry["value"] <= entry["high"] for entry in result.metrics.values() if entry["low"])
