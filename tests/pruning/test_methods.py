"""Token reduction: the algebra of each method."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tokbench.errors import UsageError
from tokbench.nn.classifier import Classifier
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.pruning.diffrate import DiffRate, Rates, absorb
from tokbench.pruning.divprune import farthest_points
from tokbench.pruning.evit import fused
from tokbench.pruning.flops import counts_of, dense, flops
from tokbench.pruning.pruner import budget, stages
from tokbench.pruning.random import Random, random_scores
from tokbench.pruning.search import RateSearch
from tokbench.pruning.sit_slim import SiTSlim, Slimmer, slimmed
from tokbench.pruning.strided import spaced
from tokbench.pruning.token_transforming import transform
from tokbench.pruning.tome import ToMe, merge
from tokbench.pruning.vit import recognise
from tokbench.pruning.zero_tprune import ZeroTPrune, drop_similar, informative_heads, page_rank
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.registry import network_files, read_variant
from tokbench.training.loop import train
from tokbench.training.zoo import recipe_of

pytest.importorskip("timm", reason="timm is not installed: pip install 'tokbench[prune]'")


def test_lots_are_even_and_follow_from_seed_and_place_alone() -> None:
    drawn = random_scores(torch.arange(400), torch.arange(64))
    assert torch.equal(drawn[7:8, :10], random_scores(torch.tensor([7]), torch.arange(10)))
    ranks = drawn.argsort(dim=1).argsort(dim=1).double()
    assert ranks.mean(0).sub(31.5).abs().max() < 5 * (64**2 / 12 / 400) ** 0.5
    assert len(drawn.unique()) == drawn.numel()


def test_strides_are_even() -> None:
    like = torch.zeros(1)
    assert spaced(10, 5, like).tolist() == [1, 3, 5, 7, 9]
    assert spaced(7, 7, like).tolist() == list(range(7))
    gaps = spaced(256, 180, like).diff()
    assert set(gaps.tolist()) <= {1, 2}


def test_evit_fuses_what_it_drops_with_weights_that_are_not_renormalised() -> None:
    tokens, scores = torch.randn(2, 5, 3), torch.rand(2, 5)
    chosen = torch.tensor([[0, 3], [1, 2]])
    made_of = fused(tokens, scores, chosen)
    expected = torch.stack(
        [sum(scores[b, i] * tokens[b, i] for i in range(5) if i not in chosen[b]) for b in range(2)]  # type: ignore[misc]
    )
    torch.testing.assert_close(made_of[:, 0], expected)


def test_tome_keeps_the_mean_weighted_by_size_and_merges_the_most_similar_pairs() -> None:
    made_by = torch.Generator().manual_seed(0)
    tokens, keys = torch.randn(2, 9, 4, generator=made_by), torch.randn(2, 9, 4, generator=made_by)
    sizes = torch.randint(1, 5, (2, 9), generator=made_by).float()
    merged, of = merge(tokens, keys, sizes, 6)
    assert merged.shape == (2, 6, 4)
    torch.testing.assert_close(of.sum(1), sizes.sum(1))
    torch.testing.assert_close((merged * of[..., None]).sum(1), (tokens * sizes[..., None]).sum(1))
    for b in range(2):  # by hand
        unit = keys[b] / keys[b].norm(dim=1, keepdim=True)
        pairs = {a: max(range(1, 9, 2), key=lambda o: float(unit[a] @ unit[o])) for a in range(0, 9, 2)}
        gone = sorted(pairs, key=lambda a: -float(unit[a] @ unit[pairs[a]]))[:3]
        left = [[a] for a in range(0, 9, 2) if a not in gone]
        left += [[o, *(a for a in gone if pairs[a] == o)] for o in range(1, 9, 2)]
        for place, group in enumerate(left):
            mass = sizes[b, group]
            torch.testing.assert_close(merged[b, place], (tokens[b, group] * mass[:, None]).sum(0) / mass.sum())
            assert of[b, place] == mass.sum()


@torch.inference_mode()
def test_copies_that_merge_change_nothing(small_vit: Any) -> None:
    """With proportional attention, merged copies give the same logits as the separate copies."""
    vit = small_vit(pos_embed="none", class_token=True, depth=4)
    patch = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    pixels = patch.repeat(1, 1, 8, 8)
    whole = vit(pixels)
    with ToMe().applied_to(vit, 0.7) as run:
        torch.testing.assert_close(vit(pixels), whole, rtol=1e-4, atol=1e-5)
    assert run.counts[-1][1] < 40


def test_page_rank_is_the_power_iteration() -> None:
    maps = torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    maps = maps / maps.sum(-1, keepdim=True)
    for rounds in (1, 5, 200):
        scores = page_rank(maps.double(), rounds)
        for b in range(2):
            for head in range(3):
                by_hand = np.ones(7)
                by_hand[0] = 7**0.5
                by_hand /= by_hand.sum()
                matrix = maps[b, head].double().numpy()
                for _ in range(rounds):
                    by_hand = np.array([sum(matrix[j, i] * by_hand[j] for j in range(7)) for i in range(7)])
                np.testing.assert_allclose(scores[b, head], by_hand, rtol=1e-9)
    values, vectors = np.linalg.eig(maps[0, 0].double().numpy().T)
    stationary = np.real(vectors[:, np.argmax(values.real)])
    np.testing.assert_allclose(scores[0, 0], stationary / stationary.sum(), rtol=1e-6)


def test_heads_with_even_scores_have_no_say_unless_all_are_even() -> None:
    even, uneven = torch.full((10,), 0.1), torch.arange(10) / 45.0
    say = informative_heads(torch.stack([torch.stack([even, uneven]), torch.stack([even, even])]))
    assert say.tolist() == [[0, 1], [1, 1]]


def test_of_two_tokens_alike_the_less_important_goes() -> None:
    keys = torch.eye(6)[None].clone()
    keys[0, 4] = keys[0, 1]  # 4 is less important than 1 and its double
    vote = torch.tensor([[0.9, 0.8, 0.7, 0.3, 0.2, 0.1]])
    assert drop_similar(keys, vote, 1).tolist() == [[0, 1, 2, 3, 5]]


@torch.inference_mode()
def test_zero_tprune_without_page_rank_or_likeness_is_another_choice(small_vit: Any, noise: Tensor) -> None:
    vit, seen = small_vit(), []
    for pruner in (ZeroTPrune(), ZeroTPrune(page_rank=False), ZeroTPrune(similar=0.0), ZeroTPrune(heads=False)):
        with pruner.applied_to(vit, 0.5):
            seen.append(vit(noise))
    assert all(not torch.equal(seen[0], other) for other in seen[1:3])


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_greedy_diversity_is_the_slow_one_and_at_least_half_as_good_as_any(count: int) -> None:
    for seed in range(20):
        points = torch.randn(1, 12, 3, generator=torch.Generator().manual_seed(seed))
        gaps = torch.cdist(points, points)
        chosen = farthest_points(gaps, count)[0].tolist()
        away = gaps[0].numpy() + np.diag([np.inf] * 12)
        slow = [int(away.min(1).argmax())]
        while len(slow) < count:
            rest = [i for i in range(12) if i not in slow]
            slow.append(max(rest, key=lambda i: min(gaps[0, i, j] for j in slow)))
        assert chosen == slow
        if count in (2, 5):
            best = max(min(gaps[0, i, j] for i, j in combinations(some, 2)) for some in combinations(range(12), count))
            assert min(gaps[0, i, j] for i, j in combinations(chosen, 2)) >= best / 2


def test_of_a_transform_pruning_and_merging_are_special_cases() -> None:
    made_by = torch.Generator().manual_seed(0)
    tokens, sizes = torch.randn(2, 8, 5, generator=made_by), torch.rand(2, 8, generator=made_by) + 0.5
    anchors = torch.tensor([[0, 3, 5], [1, 2, 7]])
    pruned, _ = transform(tokens, anchors, sizes, 0.1, "prune")
    assert torch.equal(pruned @ tokens, tokens.gather(1, anchors[..., None].expand(-1, -1, 5)))
    merged, of = transform(tokens, anchors, sizes, 0.1, "merge")
    assert ((merged > 0).sum(1) == 1).all()  # disjoint rows
    sharp, sharp_of = transform(tokens, anchors, sizes, 1e-4, "many-to-many")
    torch.testing.assert_close(sharp, merged)
    torch.testing.assert_close(sharp_of, of)
    soft, soft_of = transform(tokens, anchors, sizes, 0.5, "many-to-many")
    torch.testing.assert_close(soft.sum(2), torch.ones(2, 3))
    torch.testing.assert_close(soft_of.sum(1), sizes.sum(1))
    torch.testing.assert_close(
        (soft @ tokens * soft_of[..., None]).sum(1), (tokens * sizes[..., None]).sum(1), rtol=1e-5, atol=1e-5
    )


def test_diffrate_absorbs_as_a_plain_mean() -> None:
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [4.0, 0.0]]])
    merged, sizes = absorb(tokens, torch.ones(1, 4), 2)
    torch.testing.assert_close(merged[0], torch.tensor([[7 / 3, 0.0], [0.0, 1.0]]))
    assert sizes.tolist() == [[3.0, 1.0]]


@pytest.mark.parametrize(("prune", "merge_"), [((9, 8), (9,)), ((9, 8), (9, 9)), ((9, 8), (8, 9)), ((9, 8), (9, 1))])
def test_rates_that_rise_or_leave_nothing_are_refused(prune: Any, merge_: Any) -> None:
    with pytest.raises(UsageError, match="rates must list"):
        Rates(prune, merge_)


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True, "scale_attn_norm": True, "init_values": 0.5}])
@torch.no_grad()
def test_rates_are_learned_on_what_they_will_do(changes: dict[str, Any], small_vit: Any, noise: Tensor) -> None:
    """Masked tokens have no effect during training: the logits equal those of the reduced network."""
    vit = small_vit(**changes)
    search = RateSearch(SimpleNamespace(vit=vit), 0.5)  # type: ignore[arg-type]
    for place, (prune, merge_) in enumerate(zip(search.prune, search.merge, strict=True)):
        for kept, step in ((prune, 2 * place + 1), (merge_, 2 * place + 2)):
            assert isinstance(kept.logits, Tensor)
            kept.logits.fill_(-50.0)
            kept.logits[min(step, len(kept.logits) - 1)] = 50.0
    rates = search.rates()
    assert rates.merge[-1] < rates.merge[1] < 65
    pruned, merged = search.counts()
    masked = search._logits(noise, pruned, merged)
    with DiffRate(rates).applied_to(vit, 0.5, kernel="eager"):
        torch.testing.assert_close(vit(noise), masked, rtol=1e-3, atol=1e-4)
    share = flops(search.sizes, counts_of(search.sizes, [count - 1 for count in rates.merge]))
    assert float(search.share(merged)) == pytest.approx(share / flops(search.sizes, dense(search.sizes)), rel=1e-5)


def test_learning_moves_rates_to_their_budget(small_vit: Any, noise: Tensor) -> None:
    vit = small_vit()
    search = RateSearch(Classifier(vit, 10), 0.5)
    optimiser = torch.optim.Adam(search.parameters(), 0.3)
    aim = budget(search.sizes, 0.5) / flops(search.sizes, dense(search.sizes))
    for _ in range(25):
        optimiser.zero_grad()
        terms = search.loss(TrainingBatch(noise[:2], torch.tensor([1, 2])), 0.0)
        sum(terms.values()).backward()  # type: ignore[union-attr]
        optimiser.step()
    assert search.share(search.counts()[1]).item() == pytest.approx(aim, abs=0.08)
    assert all(parameter.grad is not None for parameter in search.merge.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ["diffrate30", "diffrate90"])
def test_the_recipes_reach_their_budgets(small_vit: Any, name: str, profile: str) -> None:
    """Steps and schedule are those of a training; the loss is only the budget term, without labels."""

    class OfBudget(RateSearch):
        def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
            return {"budget": self.penalty * (self.share(self.counts()[1]) - aim).square()}

    toml = network_files()[f"vit_tiny_imagenet.{name}"]
    variant = AdapterConfig(f"vit_tiny_imagenet.{name}", toml.parent, read_variant(toml))
    vit = small_vit(img_size=64, patch_size=4, embed_dim=192, depth=12, num_heads=3)
    search = OfBudget(nn.ModuleDict({"vit": vit}), variant.config["model"]["keep"])
    aim = budget(search.sizes, search.keep) / flops(search.sizes, dense(search.sizes))
    record = train(search, TrainingData(torch.zeros(256, 3, 1, 1, dtype=torch.uint8)), recipe_of(variant, profile, {}))
    assert record.steps in (100, 400)
    assert search.share(search.counts()[1]).item() == pytest.approx(aim, rel=0.02)


def test_rates_of_which_some_rise_are_what_the_authors_code_makes_of_them() -> None:
    """In the rates of ViT-T at 1.0 GMAC, block 7 should merge to 156 tokens, but block 6 left only 148."""
    prune = (197, 197, 196, 194, 188, 184, 178, 164, 156, 137, 129, 21)
    merge = (197, 197, 196, 190, 186, 154, 148, 156, 145, 135, 125, 21)
    with pytest.raises(UsageError, match="must not increase"):
        Rates(prune, merge)
    rates = Rates.falling(prune, merge)
    assert rates.merge == (197, 197, 196, 190, 186, 154, 148, 148, 145, 135, 125, 21)
    assert rates.prune == (197, 197, 196, 194, 188, 184, 154, 148, 148, 137, 129, 21)
    with pytest.raises(UsageError, match="rates must list"):
        Rates.falling(prune, merge[:-1])


def test_rates_must_leave_the_first_block_whole(small_vit: Any) -> None:
    """65 tokens enter the first block, and rates that drop some of them there are refused."""
    rates = Rates((66, *[60] * 7), (66, *[50] * 7))
    with pytest.raises(UsageError, match="rates for 8 blocks and 66 tokens do not fit 8 blocks and 65 tokens"):
        DiffRate(rates).plan(recognise(small_vit()).sizes, 0.5)
    with pytest.raises(UsageError, match="the first block keeps all tokens"):
        DiffRate(Rates((60,) * 8, (50,) * 8)).plan(recognise(small_vit()).sizes, 0.5)


@torch.inference_mode()
def test_slimmers_are_counted_as_layers(small_vit: Any, noise: Tensor) -> None:
    vit = small_vit()
    sizes = recognise(vit).sizes
    kept = slimmed(sizes, 0.5)
    method = SiTSlim([Slimmer(sizes.width, kept[block]) for block in stages(sizes.depth)], 0.5)
    with method.applied_to(vit, 0.5, kernel="eager") as run, FlopCounterMode(display=False) as counter:
        vit(noise[:1])
    own = method.flops(sizes, run.counts)
    assert 0 < own < 0.2 * flops(sizes, run.counts)
    assert counter.get_total_flops() == flops(sizes, run.counts) + own
    assert method.flops(sizes, dense(sizes)) == 0
    with pytest.raises(UsageError, match="which cannot be rounded"), method.applied_to(vit, 0.5, round_to=8):
        pass


@torch.inference_mode()
def test_a_lot_is_no_better_where_another_was(small_vit: Any) -> None:
    """Positions are renumbered in each block; with equal scores in all blocks, the first positions would be kept."""
    vit = small_vit()
    with Random().applied_to(vit, 0.5) as run:
        tokens = torch.arange(1.0, 65.0)[None, :, None].expand(2000, -1, 1)
        tokens = torch.cat([torch.zeros(2000, 1, 1), tokens], 1)
        for count in (32, 16, 8):
            run.counts.append((1, 1))
            tokens = Random().reduce(tokens, None, count, run)  # type: ignore[arg-type]
    often = tokens[:, 1:].flatten().long().bincount(minlength=65)[1:] / 2000
    assert float(often.max()) < 0.125 + 5 * (0.125 * 0.875 / 2000) ** 0.5
    assert float(often.min()) > 0.125 - 5 * (0.125 * 0.875 / 2000) ** 0.5


def test_a_slimmers_tokens_are_means_of_all(small_vit: Any) -> None:
    slimmer = Slimmer(6, 3)
    same = torch.ones(2, 8, 6)
    torch.testing.assert_close(slimmer(same), same[:, :3])
    sizes = recognise(small_vit(img_size=56, depth=12)).sizes
    assert slimmed(sizes, 0.5)[2:10:3] == [196, 98, 49]


def test_a_slimmer_is_for_one_keep(small_vit: Any) -> None:
    with pytest.raises(UsageError, match=r"trained for keep 0\.5"), SiTSlim([], 0.5).applied_to(small_vit(), 0.7):
        pass


def test_an_embedding_with_more_layers_says_what_it_costs() -> None:
    """Its multiplications per patch, divided by the width, stand for the values of a patch."""
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=32, patch_size=8, depth=1, embed_dim=192, num_heads=3)
    model.patch_embed.proj = torch.nn.Conv2d(40, 192, 1)
    with pytest.raises(UsageError, match="40 channels instead of 3"):
        recognise(model)
    model.patch_embed.values_per_patch = 57
    assert recognise(model).sizes.patch_values == 57
