"""Reduction of visual tokens: what applying a method must not change, token counts, and selections by brute force."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from vlm_models import prompts, small_model

from tokbench.errors import UsageError
from tokbench.pruning.divprune import farthest_points
from tokbench.pruning.vlm.catp import CATP, facility_location
from tokbench.pruning.vlm.fastv import FastV
from tokbench.pruning.vlm.flow_parameters import FlowParameters, third_share, thirds, untuned
from tokbench.pruning.vlm.flow_search import search
from tokbench.pruning.vlm.methods import METHODS
from tokbench.pruning.vlm.mini import MiniModel, without_demonstrations
from tokbench.pruning.vlm.model import Asked, DecoderSizes, flops, kv_bytes
from tokbench.pruning.vlm.prefill import Prefilled, generate, prefill
from tokbench.pruning.vlm.pruner import VlmPruner
from tokbench.pruning.vlm.todre import ToDRE, attention_ratios, diverse_from
from tokbench.pruning.vlm.vflowopt import VFlowOpt, cells_of, patch_entropy, recycled

KEEPS = (0.05, 0.1, 0.25, 0.5)


@pytest.fixture(scope="module", params=[False, True], ids=["one image", "several images"])
def subject(request: pytest.FixtureRequest) -> tuple[MiniModel, Asked]:
    return small_model(request.param), prompts(request.param)


def made(name: str, model: MiniModel, asked: Asked, keep: float) -> VlmPruner:
    pruner = METHODS[name]()
    if isinstance(pruner, VFlowOpt):
        pruner.tuned = False  # the search is tested on its own
    if isinstance(pruner, ToDRE):
        pruner.tau = 1.1  # all prompts pass stage 2
    pruner.calibrate(model, [model.embed(asked, model.side)], keep)
    return pruner


def reduced(model: MiniModel, asked: Asked, pruner: VlmPruner | None, keep: float) -> Prefilled:
    side = model.side if pruner is None else pruner.side(model, keep)
    return prefill(model, model.embed(asked, side), pruner, keep)


@pytest.mark.parametrize("name", METHODS)
def test_all_tokens_give_the_same_bits_and_nothing_stays_changed(name: str, subject: tuple[MiniModel, Asked]) -> None:
    model, asked = subject
    state = {key: value.clone() for key, value in model.network.state_dict().items()}
    whole = reduced(model, asked, None, 1.0)
    assert torch.equal(reduced(model, asked, made(name, model, asked, 1.0), 1.0).features, whole.features)
    assert not torch.equal(reduced(model, asked, made(name, model, asked, 0.25), 0.25).features, whole.features)
    again = reduced(model, asked, None, 1.0)
    assert torch.equal(again.features, whole.features)
    assert torch.equal(generate(model, again, 3), generate(model, whole, 3))
    assert all(torch.equal(value, state[key]) for key, value in model.network.state_dict().items())


@pytest.mark.parametrize("name", METHODS)
def test_prompts_get_the_same_alone_as_in_a_batch(name: str, subject: tuple[MiniModel, Asked]) -> None:
    model, asked = subject
    pruner = made(name, model, asked, 0.25)
    if isinstance(pruner, ToDRE):
        views = reduced(model, asked, None, 1.0)
        assert len(views.caches) == 1
    together = reduced(model, asked, pruner, 0.25)
    words = generate(model, together, 3)
    for place in range(len(asked.ids)):
        alone = reduced(model, asked.at(place), pruner, 0.25)
        torch.testing.assert_close(alone.features[0], together.features[place], rtol=1e-4, atol=1e-5)
        assert torch.equal(alone.lengths[0], together.lengths[place])
        assert torch.equal(generate(model, alone, 3)[0], words[place])


@pytest.mark.parametrize("name", METHODS)
def test_counts_rise_with_keep_and_never_with_depth(name: str, subject: tuple[MiniModel, Asked]) -> None:
    model, asked = subject
    asked, before = asked.first(1), None
    total = model.embed(asked, model.side).total
    for keep in (*KEEPS, 1.0):
        found = reduced(model, asked, made(name, model, asked, keep), keep)
        visual = found.visual[0]
        assert torch.equal(found.lengths[0] - visual, (found.lengths[0] - visual)[:1].expand(6))  # text stays
        assert (visual.diff() <= 0).all()
        assert keep == 1 or visual.float().mean() < total
        if before is not None:
            assert (before <= visual).all()
        if name in ("random", "strided", "topk_cls", "divprune", "todre_stage1", "catp_stage1"):
            assert visual[0] == pytest.approx(keep * total, abs=3)
        if name.startswith("catp"):  # the share is that of the last selection
            assert visual[-1] == pytest.approx(keep * total, abs=3)
        if name.startswith("vflowopt"):  # and here the mean over layers
            assert visual.float().mean() == pytest.approx(keep * total, abs=3)
        before = visual


def test_prompts_with_different_counts_are_run_apart() -> None:
    """ToDRE's second stage decides for each prompt; the batch must give what single prompts give."""
    model, asked = small_model(), prompts(count=6)
    prompt = model.embed(asked, model.side)
    ratios = []

    class Spy(ToDRE):
        def during(self, view, keep):  # type: ignore[no-untyped-def]
            if view.layer == 5:
                ratios.append(torch.stack(attention_ratios(view.attention(1, 0), view.prompt.image >= 0)).amax(0))
            return super().during(view, keep)

    prefill(model, prompt, Spy(first=False), 0.5)
    pruner = ToDRE(first=False, tau=float(ratios[0].median()) + 1e-6)
    together = prefill(model, prompt, pruner, 0.5)
    last = together.visual[:, 5]
    assert len(together.caches) == 2 and set(last.tolist()) == {0, 64}
    for place in range(6):
        alone = prefill(model, prompt.rows(torch.tensor([place])), pruner, 0.5)
        torch.testing.assert_close(alone.features[0], together.features[place], rtol=1e-4, atol=1e-5)
        assert generate(model, alone, 4)[0].tolist() == generate(model, together, 4)[place].tolist()


def test_fastv_keeps_what_the_last_token_attends_to() -> None:
    model, asked = small_model(), prompts(count=1)
    prompt = model.embed(asked, model.side)
    seen = model.attended(0, prompt.hidden, prompt.positions)
    row = seen.rows(slice(-1, None)).mean(1)[0, 0, 1:65]  # the last token sees all, so no mask is needed
    kept = set(row.topk(6).indices.tolist())

    class Spy(FastV):
        def during(self, view, keep):  # type: ignore[no-untyped-def]
            mask = super().during(view, keep)
            if mask is not None:
                assert set((mask[0, 1:65]).nonzero()[:, 0].tolist()) == kept
                assert mask[0, :1].all() and mask[0, 65:].all()
                self.seen = True
            return mask

    spy = Spy()
    prefill(model, prompt, spy, 0.1)
    assert spy.seen


def cosines(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    tokens = torch.randn(2, n, 5, generator=torch.Generator().manual_seed(seed))
    unit = F.normalize(tokens, dim=-1)
    return tokens, unit @ unit.transpose(1, 2)


def test_greedy_diversity_is_that_of_the_full_formula() -> None:
    """The running minimum, maximum and sum give what reducing over all chosen tokens gives in each step."""
    _, near = cosines(40)
    distances = 1 - near
    for row in range(2):
        own = distances[row]
        nearest = own + torch.eye(40) * 9
        chosen = [int(nearest.min(1).values.argmax())]
        centres = [3]
        sums = [3]
        for _ in range(11):
            chosen.append(int(_without(own[:, chosen].min(1).values, chosen).argmax()))
            centres.append(int(_without(own[:, centres].min(1).values, centres).argmax()))
            sums.append(int(_without(-near[row][:, sums].sum(1), sums).argmax()))
        assert farthest_points(distances, 12)[row].tolist() == chosen
        pivot = torch.tensor([3, 3])
        assert diverse_from(near, pivot, 12, "k_center")[row].tolist() == centres
        assert diverse_from(near, pivot, 12, "max_sum")[row].tolist() == sums


def _without(scores: Tensor, chosen: list[int]) -> Tensor:
    return scores.index_fill(0, torch.tensor(chosen), -torch.inf)


def test_greedy_sets_are_close_to_the_best_of_all_sets() -> None:
    tokens, near = cosines(10)
    words = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    distances = 1 - near
    for row in range(2):
        spread = [
            min(float(distances[row, a, b]) for a, b in combinations(kept, 2)) for kept in combinations(range(10), 4)
        ]
        kept = farthest_points(distances, 4)[row].tolist()
        assert min(float(distances[row, a, b]) for a, b in combinations(kept, 2)) >= max(spread) / 2

        def value(kept: tuple[int, ...], row: int = row) -> float:
            similar = (1 + near[row][:, list(kept)]) / 2
            aligned = (1 + F.cosine_similarity(tokens[row, list(kept)], words[row][None], dim=-1)) / 2
            return float(similar.max(1).values.sum() + 0.7 * aligned.sum())

        greedy = value(tuple(facility_location(tokens, words, 4)[row].tolist()))
        assert greedy >= (1 - 1 / torch.e) * max(value(kept) for kept in combinations(range(10), 4))
        assert tuple(facility_location(tokens, words, 1)[row].tolist()) == max(combinations(range(10), 1), key=value)


def test_attention_ratios_by_hand() -> None:
    image = torch.tensor([[False, True, True, False]])
    attention = torch.tensor([[[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.4, 0.4, 0], [0.1, 0.2, 0.3, 0.4]]])
    to_image, to_text = attention_ratios(attention, image)
    assert to_image.item() == pytest.approx(0.5)  # the text before the image does not count
    assert to_text.item() == pytest.approx(0.0)


def test_the_shared_budget_of_catp_differs_between_demonstrations() -> None:
    model, asked = small_model(True), prompts(True)
    kept = []

    class Spy(CATP):
        def during(self, view, keep):  # type: ignore[no-untyped-def]
            mask = super().during(view, keep)
            if mask is not None:
                kept.append([int((mask & (view.prompt.image == image)).sum(1)[0]) for image in range(4)])
            return mask

    for shared in (True, False):
        kept.clear()
        prefill(model, model.embed(asked, model.side), Spy(shared=shared), 0.25)
        assert sum(kept[0]) == 4 * 4
        assert (len(set(kept[0])) == 1) is not shared


def test_recycled_tokens_are_weighted_means_of_their_cells() -> None:
    tokens = torch.randn(1, 16, 3)
    scores = torch.rand(1, 16) + 0.1
    cells = cells_of((4, 4), 2)
    assert cells.tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]
    result, mask = recycled(tokens, scores, 7, cells)
    assert mask.sum() == 7
    best = set(scores[0].topk(3).indices.tolist())
    assert all(torch.equal(result[0, place], tokens[0, place]) for place in best)
    for cell in range(4):
        members = [place for place in range(16) if cells[place] == cell and place not in best]
        place = max(members, key=lambda place: float(scores[0, place]))
        weights = scores[0, members][:, None]
        torch.testing.assert_close(result[0, place], (weights * tokens[0, members]).sum(0) / weights.sum())
        assert mask[0, place]
    result, mask = recycled(tokens, scores, 4, cells)  # all of the budget would be recycled tokens
    assert torch.equal(result, tokens) and set(mask[0].nonzero()[:, 0].tolist()) == set(
        scores[0].topk(4).indices.tolist()
    )
    scores[0, [0, 1, 4, 5]] = 5  # a cell without removed tokens
    assert recycled(tokens, scores, 8, cells)[1].sum() == 8


def test_the_entropy_is_that_of_eight_bit_levels() -> None:
    pixels = torch.zeros(1, 3, 4, 4)
    pixels[..., :2, 2:] = torch.tensor([[0.0, 1.0], [0.25, 0.5]])
    entropy = patch_entropy(pixels, (2, 2))
    assert entropy[0].tolist() == pytest.approx([0, torch.log(torch.tensor(4.0)).item(), 0, 0])


def test_the_budget_of_flow_parameters_is_the_papers() -> None:
    assert thirds(28) == (9, 18)
    assert third_share(28, 0.1, 0.117, 1.0) == pytest.approx(0.6, abs=0.05)  # the released 10 %, 25 % and 50 %
    assert third_share(28, 0.25, 0.265, 0.98) == pytest.approx(0.88, abs=0.05)
    assert third_share(28, 0.5, 0.72, 0.75) == pytest.approx(0.49, abs=0.05)
    own = untuned(6, 0.1, 16)
    assert third_share(6, 0.1, own.first, own.second) == pytest.approx(own.third)


def test_the_search_improves_on_what_it_starts_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokbench.pruning.vlm.flow_search.STARTS", 4)
    monkeypatch.setattr("tokbench.pruning.vlm.flow_search.CALLS", 8)
    model, asked = small_model(), prompts(count=2)
    prompt = model.embed(asked, model.side)
    whole = prefill(model, prompt, None, 1.0).features

    def pruner_of(parameters: FlowParameters) -> VFlowOpt:
        pruner = VFlowOpt()
        pruner.parameters = {0.1: parameters}
        return pruner

    def value(parameters: FlowParameters) -> float:
        pruned = prefill(model, prompt, pruner_of(parameters), 0.1)
        return float(F.cosine_similarity(pruned.features, whole).mean())

    start = untuned(6, 0.1, 8)
    found = search(pruner_of, model, [prompt], 0.1, start, 8)
    assert value(found) >= value(start)
    assert found == search(pruner_of, model, [prompt], 0.1, start, 8)
    with pytest.raises(UsageError, match="call calibrate first"):
        prefill(model, prompt, VFlowOpt(), 0.1)


def test_operations_and_bytes_by_hand() -> None:
    sizes = DecoderSizes(depth=2, width=4, inner=8, key_values=2, hidden=5, matrices=3)
    one = 2 * (2 * 3 * 4 * 8 + 2 * 3 * 4 * 2 + 2 * 9 * 8 + 3 * 3 * 4 * 5)
    assert flops(sizes, [3, 3]) == 2 * one
    assert kv_bytes(sizes, [3, 1]) == 2 * 4 * 2 * 4


def test_without_demonstrations_only_the_query_is_left() -> None:
    model, asked = small_model(True), prompts(True)
    alone = without_demonstrations(asked)
    assert model.embed(asked, model.side).hidden.shape[1] == 1 + 5 * 16 + 4 * 2 + 1
    assert model.embed(alone, model.side).hidden.shape[1] == 1 + 16 + 1
    assert torch.equal(alone.images[:, 0], asked.images[:, -1])
