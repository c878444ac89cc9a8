"""Token reduction: the algebra of each method, and what applying one must not change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tokbench.errors import UsageError
from tokbench.pruning.classifier.measure import with_kernel
from tokbench.pruning.diffrate import DEIT_S, DiffRate, Rates
from tokbench.pruning.evit import EViT
from tokbench.pruning.flops import counts_of, dense, flops
from tokbench.pruning.methods import METHODS
from tokbench.pruning.pruner import Pruner, budget, stages
from tokbench.pruning.resolution import LowerResolution
from tokbench.pruning.sit_slim import SiTSlim, Slimmer
from tokbench.pruning.vit import Sizes, images_like, recognise

timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'tokbench[prune]'")

DEIT = Sizes(depth=12, width=384, hidden=1536, patches=196, prefix=1, patch_values=768, classes=1000, cls=True)


def pruners() -> dict[str, Pruner]:
    all_of_them = {name: make() for name, make in METHODS.items()}
    all_of_them["diffrate"] = DiffRate(Rates((65, 60, 50, 40, 30, 20, 12, 8), (65, 55, 45, 35, 25, 18, 10, 4)))
    torch.manual_seed(0)
    all_of_them["sit_slim"] = SiTSlim([Slimmer(32, count) for count in (32, 16, 8)], 0.5)  # as `slimmed` plans it
    return all_of_them


PRUNERS = pruners()


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_all_tokens_give_the_whole_networks_logits_bit_for_bit(
    name: str, kernel: Any, small_vit: Any, noise: Tensor
) -> None:
    vit = small_vit()
    with torch.inference_mode(), with_kernel(vit, kernel):
        whole = vit(noise)
        with PRUNERS[name].applied_to(vit, 1.0, kernel=kernel) as run:
            assert torch.equal(vit(noise), whole)
        assert list(run.counts) == dense(run.vit.sizes)


@pytest.mark.parametrize("name", PRUNERS)
@torch.inference_mode()
def test_behind_the_block_the_network_is_as_before(name: str, small_vit: Any, noise: Tensor) -> None:
    vit = small_vit()
    state = {key: value.clone() for key, value in vit.state_dict().items()}
    before = vit(noise)
    with PRUNERS[name].applied_to(vit, 0.5):
        assert not torch.equal(vit(noise), before)
    assert torch.equal(vit(noise), before)
    with pytest.raises(KeyError), PRUNERS[name].applied_to(vit, 0.5):
        raise KeyError
    assert torch.equal(vit(noise), before)
    assert all(torch.equal(value, state[key]) for key, value in vit.state_dict().items())
    assert not any("forward" in vars(block) for block in vit.blocks)


@pytest.mark.parametrize("name", PRUNERS)
@torch.inference_mode()
def test_an_image_gets_the_same_alone_as_in_a_batch(name: str, small_vit: Any, noise: Tensor) -> None:
    vit, batch = small_vit(), noise[:4]
    with PRUNERS[name].applied_to(vit, 0.5) as run:
        run.seeds = torch.tensor([11, 12, 13, 14])
        together = vit(batch)
        for place in range(4):
            run.seeds = torch.tensor([11 + place])
            alone = vit(batch[place : place + 1])
            torch.testing.assert_close(alone, together[place : place + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@torch.inference_mode()
def test_counts_are_as_planned_and_rise_with_keep(name: str, small_vit: Any, noise: Tensor) -> None:
    vit, before = small_vit(), None
    pruner = METHODS[name]()
    for keep in (0.3, 0.5, 0.7, 0.9, 1.0):
        with pruner.applied_to(vit, keep) as run:
            vit(noise[:1])
        assert list(run.counts) == counts_of(run.vit.sizes, run.kept, pruner.after)
        now = [count for pair in run.counts for count in pair]
        if before is not None:
            assert all(few <= more for few, more in zip(before, now, strict=True))
            assert sum(before) < sum(now)
        before = now


@pytest.mark.parametrize("name", ["tome", "divprune", "diffrate_uniform"])
@pytest.mark.parametrize("keep", [0.9, 0.7, 0.5, 0.3])
def test_other_places_cost_what_the_stages_cost(name: str, keep: float) -> None:
    plan = METHODS[name]().plan(DEIT, keep)
    assert flops(DEIT, counts_of(DEIT, plan)) == pytest.approx(budget(DEIT, keep), rel=0.05)


def test_stages_are_the_papers_for_twelve_blocks() -> None:
    assert stages(12) == (3, 6, 9)


@pytest.mark.parametrize(("keep", "giga"), [(0.9, 4.0), (0.8, 3.5), (0.7, 3.0), (0.6, 2.6), (0.5, 2.3)])
def test_the_formula_gives_the_multiply_adds_that_evit_reports_for_deit_s(keep: float, giga: float) -> None:
    kept = EViT().plan(DEIT, keep)
    assert flops(DEIT, counts_of(DEIT, kept)) / 2e9 == pytest.approx(giga, abs=0.06)
    assert flops(DEIT, dense(DEIT)) / 2e9 == pytest.approx(4.6, abs=0.05)


def test_evits_counts_are_the_papers() -> None:
    kept = EViT().plan(DEIT, 0.7)
    assert [kept[block] for block in (2, 3, 6, 9)] == [196, 138 + 1, 98 + 1, 70 + 1]


def test_the_published_rates_cost_what_they_say() -> None:
    kept = DiffRate(DEIT_S).plan(DEIT, 0.5)
    assert flops(DEIT, counts_of(DEIT, kept)) / 2e9 == pytest.approx(2.9, abs=0.1)


@pytest.mark.parametrize("keep", [1.0, 0.6])
@torch.inference_mode()
def test_the_formula_is_what_pytorch_counts(keep: float, small_vit: Any, noise: Tensor) -> None:
    vit = small_vit()
    with METHODS["random"]().applied_to(vit, keep, kernel="eager") as run, FlopCounterMode(display=False) as counter:
        vit(noise[:1])
    assert counter.get_total_flops() == flops(run.vit.sizes, run.counts)


@torch.inference_mode()
def test_counts_in_whole_multiples(small_vit: Any, noise: Tensor) -> None:
    vit = small_vit()
    for name in METHODS:
        with METHODS[name]().applied_to(vit, 0.6, round_to=8) as run:
            vit(noise[:1])
        fewer = [count for pair in run.counts for count in pair if count < 65]
        assert fewer, name
        assert all(count % 8 == 0 for count in fewer), (name, run.counts)


@torch.inference_mode()
def test_lower_resolution_is_the_network_on_a_smaller_image(small_vit: Any, noise: Tensor) -> None:
    vit = small_vit()
    assert torch.equal(LowerResolution(vit, 1.0)(noise), vit(noise))
    smaller = LowerResolution(vit, 0.5)
    assert smaller.side in (16, 20, 24)
    assert flops(recognise(smaller.vit).sizes, dense(recognise(smaller.vit).sizes)) == pytest.approx(
        budget(recognise(vit).sizes, 0.5), rel=0.3
    )
    assert vit.patch_embed.img_size == (32, 32)
    assert smaller(noise).shape == (4, 10)


def test_what_is_no_plain_vit_is_refused_by_name(small_vit: Any) -> None:
    with pytest.raises(UsageError, match="Linear has no list of blocks"):
        recognise(nn.Linear(3, 3))
    vit = small_vit()
    vit.blocks[2].attn.rope = nn.Linear(1, 1)
    with pytest.raises(UsageError, match="attention 2 is not supported: unknown part rope"):
        recognise(vit)
    del vit.blocks[2].attn.rope
    vit.blocks[3].norm2 = None
    del vit.blocks[3].norm2
    with pytest.raises(UsageError, match=r"block 3 .* has no norm2"):
        recognise(vit)
    with pytest.raises(UsageError, match="is not a classifier"):
        recognise(small_vit(num_classes=0))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("beit_base_patch16_224", "takes shared_rel_pos_bias"),
        ("vit_small_patch16_rope_224", "takes rope"),
        ("vit_small_patch16_rope_mixed_224", "takes rope"),
        ("vit_tiny_patch16_dinov3_qkvb", "takes rope"),
        ("vit_base_patch16_rpn_224", "its norms follow the layers"),
        ("vit_tiny_r_s16_p8_224", "channels instead of 3"),
    ],
)
def test_transformers_of_timm_that_compute_otherwise_are_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recognise(timm.create_model(name, **({} if "_r_" in name else {"depth": 1})))


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5, float("nan")])
def test_a_keep_out_of_range_is_refused(keep: float, small_vit: Any) -> None:
    with pytest.raises(UsageError, match="keep must lie in"), METHODS["random"]().applied_to(small_vit(), keep):
        pass


@pytest.mark.parametrize("name", ["evit", "zero_tprune", "token_transforming", "diffrate_uniform"])
def test_without_a_cls_token_methods_that_look_at_it_are_refused(name: str, small_vit: Any, noise: Tensor) -> None:
    vit = small_vit(class_token=False, global_pool="avg")
    with pytest.raises(UsageError, match="has none; use a method"), METHODS[name]().applied_to(vit, 0.5):
        pass
    with torch.inference_mode(), METHODS["tome"]().applied_to(vit, 0.5) as run:
        vit(noise)
    assert run.counts[-1][1] < 40


def test_a_keep_that_leaves_no_token_is_refused(small_vit: Any) -> None:
    slim = SiTSlim([], 0.1)  # floor(64 / 10^2) at its second stage
    with pytest.raises(UsageError, match=r"keep 0\.1 leaves 0 of 64 tokens after block 4, but SiT needs 1"):
        slim.checked_plan(recognise(small_vit()), 0.1)


@torch.inference_mode()
def test_seeds_for_another_number_of_images_are_refused(small_vit: Any, noise: Tensor) -> None:
    vit = small_vit()
    with METHODS["random"]().applied_to(vit, 0.5) as run:
        run.seeds = torch.tensor([1, 2])
        with pytest.raises(UsageError, match="2 seeds for 4 images"):
            vit(noise)


def test_a_reduced_network_cannot_be_reduced_again(small_vit: Any) -> None:
    vit = small_vit()
    with (
        METHODS["random"]().applied_to(vit, 0.5),
        pytest.raises(UsageError, match="already reduced"),
        METHODS["tome"]().applied_to(vit, 0.5),
    ):
        pass


def test_half_precision_on_a_cpu_is_refused(small_vit: Any) -> None:
    with pytest.raises(UsageError, match="half precision on a CPU"):
        recognise(small_vit().half())


@torch.inference_mode()
def test_networks_of_timm_with_registers_norms_and_scales_are_run_as_timm_does(small_vit: Any, noise: Tensor) -> None:
    for changes in (
        {"reg_tokens": 4}, {"qk_norm": True}, {"init_values": 0.1}, {"no_embed_class": True}, {"pre_norm": True},
        {"global_pool": "avg", "fc_norm": True}, {"scale_attn_norm": True, "scale_mlp_norm": True},
    ):  # fmt: skip
        vit = small_vit(**changes)
        whole = vit(noise)
        for name in ("evit", "tome", "random"):
            with METHODS[name]().applied_to(vit, 1.0):
                assert torch.equal(vit(noise), whole), (changes, name)
            with METHODS[name]().applied_to(vit, 0.5):
                assert torch.isfinite(vit(noise)).all()


def test_noise_for_timing_has_the_networks_size(small_vit: Any) -> None:
    assert images_like(recognise(small_vit()), 2).shape == (2, 3, 32, 32)
