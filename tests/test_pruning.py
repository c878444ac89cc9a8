"""Token reduction: the algebra of each method, and what applying one must not change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tokbench.errors import UsageError
from tokbench.pruning.diffrate import DEIT_S, DiffRate, Rates
from tokbench.pruning.evit import EViT
from tokbench.pruning.flops import dense, flops, of_kept
from tokbench.pruning.measure import with_kernel
from tokbench.pruning.methods import METHODS
from tokbench.pruning.pruner import Pruner, budget, stages
from tokbench.pruning.resolution import LowerResolution
from tokbench.pruning.sit_slim import SiTSlim, Slimmer, slimmed
from tokbench.pruning.vit import Sizes, images_like, recognise

timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'tokbench[prune]'")

DEIT = Sizes(depth=12, width=384, hidden=1536, patches=196, prefix=1, patch_values=768, classes=1000, cls=True)


def made(**changes: Any) -> Any:
    """A small transformer with weights large enough that tokens matter."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    given = {"img_size": 32, "patch_size": 4, "embed_dim": 32, "depth": 8, "num_heads": 2, "num_classes": 10}
    vit = VisionTransformer(**(given | changes)).eval().requires_grad_(False)
    for parameter in vit.parameters():
        parameter.normal_(std=0.2) if parameter.dim() > 1 else None
    return vit


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def pruners() -> dict[str, Pruner]:
    all_of_them = {name: make() for name, make in METHODS.items()}
    all_of_them["diffrate"] = DiffRate(Rates((65, 60, 50, 40, 30, 20, 12, 8), (65, 55, 45, 35, 25, 18, 10, 4)))
    torch.manual_seed(0)
    counts = sorted(set(slimmed(recognise(made()).sizes, 0.5)) - {64}, reverse=True)
    all_of_them["sit_slim"] = SiTSlim([Slimmer(32, count) for count in counts], 0.5)
    return all_of_them


PRUNERS = pruners()


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_all_tokens_give_the_whole_networks_logits_bit_for_bit(name: str, kernel: Any) -> None:
    vit = made()
    with torch.inference_mode(), with_kernel(vit, kernel):
        whole = vit(images())
        with PRUNERS[name].applied_to(vit, 1.0, kernel=kernel) as run:
            assert torch.equal(vit(images()), whole)
        assert list(run.counts) == dense(run.vit.sizes)


@pytest.mark.parametrize("name", PRUNERS)
@torch.inference_mode()
def test_behind_the_block_the_network_is_as_before(name: str) -> None:
    vit = made()
    state = {key: value.clone() for key, value in vit.state_dict().items()}
    before = vit(images())
    with PRUNERS[name].applied_to(vit, 0.5):
        assert not torch.equal(vit(images()), before)
    assert torch.equal(vit(images()), before)
    with pytest.raises(KeyError), PRUNERS[name].applied_to(vit, 0.5):
        raise KeyError
    assert torch.equal(vit(images()), before)
    assert all(torch.equal(value, state[key]) for key, value in vit.state_dict().items())
    assert not any("forward" in vars(block) for block in vit.blocks)


@pytest.mark.parametrize("name", PRUNERS)
@torch.inference_mode()
def test_an_image_gets_the_same_alone_as_in_a_batch(name: str) -> None:
    vit, batch = made(), images(4)
    with PRUNERS[name].applied_to(vit, 0.5) as run:
        run.seeds = torch.tensor([11, 12, 13, 14])
        together = vit(batch)
        for place in range(4):
            run.seeds = torch.tensor([11 + place])
            alone = vit(batch[place : place + 1])
            torch.testing.assert_close(alone, together[place : place + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@torch.inference_mode()
def test_counts_are_as_planned_and_rise_with_keep(name: str) -> None:
    vit, before = made(), None
    pruner = METHODS[name]()
    for keep in (0.3, 0.5, 0.7, 0.9, 1.0):
        with pruner.applied_to(vit, keep) as run:
            vit(images(1))
        assert list(run.counts) == of_kept(run.vit.sizes, run.kept, pruner.after)
        now = [count for pair in run.counts for count in pair]
        if before is not None:
            assert all(few <= more for few, more in zip(before, now, strict=True)) or name in ("tome", "divprune")
            assert sum(before) < sum(now)
        before = now


@pytest.mark.parametrize("name", ["tome", "divprune", "diffrate_uniform"])
@pytest.mark.parametrize("keep", [0.9, 0.7, 0.5, 0.3])
def test_other_places_cost_what_the_stages_cost(name: str, keep: float) -> None:
    plan = METHODS[name]().plan(DEIT, keep)
    assert flops(DEIT, of_kept(DEIT, plan)) == pytest.approx(budget(DEIT, keep), rel=0.05)


def test_stages_are_the_papers_for_twelve_blocks() -> None:
    assert stages(12) == (3, 6, 9)


@pytest.mark.parametrize(("keep", "giga"), [(0.9, 4.0), (0.8, 3.5), (0.7, 3.0), (0.6, 2.6), (0.5, 2.3)])
def test_the_formula_gives_the_multiply_adds_that_evit_reports_for_deit_s(keep: float, giga: float) -> None:
    kept = EViT().plan(DEIT, keep)
    assert flops(DEIT, of_kept(DEIT, kept)) / 2e9 == pytest.approx(giga, abs=0.06)
    assert flops(DEIT, dense(DEIT)) / 2e9 == pytest.approx(4.6, abs=0.05)


def test_evits_counts_are_the_papers() -> None:
    kept = EViT().plan(DEIT, 0.7)
    assert [kept[block] for block in (2, 3, 6, 9)] == [196, 138 + 1, 98 + 1, 70 + 1]


def test_the_published_rates_cost_what_they_say() -> None:
    kept = DiffRate(DEIT_S).plan(DEIT, 0.5)
    assert flops(DEIT, of_kept(DEIT, kept)) / 2e9 == pytest.approx(2.9, abs=0.1)


@pytest.mark.parametrize("keep", [1.0, 0.6])
@torch.inference_mode()
def test_the_formula_is_what_pytorch_counts(keep: float) -> None:
    vit = made()
    with METHODS["random"]().applied_to(vit, keep, kernel="eager") as run, FlopCounterMode(display=False) as counter:
        vit(images(1))
    assert counter.get_total_flops() == flops(run.vit.sizes, run.counts)


@torch.inference_mode()
def test_counts_in_whole_multiples() -> None:
    vit = made()
    for name in METHODS:
        with METHODS[name]().applied_to(vit, 0.6, round_to=8) as run:
            vit(images(1))
        fewer = [count for pair in run.counts for count in pair if count < 65]
        assert fewer, name
        assert all(count % 8 == 0 for count in fewer), (name, run.counts)


@torch.inference_mode()
def test_lower_resolution_is_the_network_on_a_smaller_image() -> None:
    vit = made()
    assert torch.equal(LowerResolution(vit, 1.0)(images()), vit(images()))
    smaller = LowerResolution(vit, 0.5)
    assert smaller.side in (16, 20, 24)
    assert flops(recognise(smaller.vit).sizes, dense(recognise(smaller.vit).sizes)) == pytest.approx(
        budget(recognise(vit).sizes, 0.5), rel=0.3
    )
    assert vit.patch_embed.img_size == (32, 32)
    assert smaller(images()).shape == (3, 10)


def test_what_is_no_plain_vit_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="Linear has no list of blocks"):
        recognise(nn.Linear(3, 3))
    vit = made()
    vit.blocks[2].attn.rope = nn.Linear(1, 1)
    with pytest.raises(UsageError, match="attention 2 is not recognised: rope is unknown"):
        recognise(vit)
    del vit.blocks[2].attn.rope
    vit.blocks[3].norm2 = None
    del vit.blocks[3].norm2
    with pytest.raises(UsageError, match=r"block 3 .* has no norm2"):
        recognise(vit)
    with pytest.raises(UsageError, match="names no classes"):
        recognise(made(num_classes=0))


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.5, float("nan")])
def test_a_keep_out_of_range_is_refused(keep: float) -> None:
    with pytest.raises(UsageError, match="keep must lie in"), METHODS["random"]().applied_to(made(), keep):
        pass


@pytest.mark.parametrize("name", ["evit", "zero_tprune", "token_transforming", "diffrate_uniform"])
def test_without_a_cls_token_methods_that_look_at_it_are_refused(name: str) -> None:
    vit = made(class_token=False, global_pool="avg")
    with pytest.raises(UsageError, match="has no CLS token; take a method"), METHODS[name]().applied_to(vit, 0.5):
        pass
    with torch.inference_mode(), METHODS["tome"]().applied_to(vit, 0.5) as run:
        vit(images())
    assert run.counts[-1][1] < 40


def test_a_reduced_network_cannot_be_reduced_again() -> None:
    vit = made()
    with (
        METHODS["random"]().applied_to(vit, 0.5),
        pytest.raises(UsageError, match="already reduced"),
        METHODS["tome"]().applied_to(vit, 0.5),
    ):
        pass


def test_half_precision_on_a_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="half precision on a CPU"):
        recognise(made().half())


@torch.inference_mode()
def test_networks_of_timm_with_registers_norms_and_scales_are_run_as_timm_does() -> None:
    for changes in (
        {"reg_tokens": 4}, {"qk_norm": True}, {"init_values": 0.1}, {"no_embed_class": True}, {"pre_norm": True},
        {"global_pool": "avg", "fc_norm": True}, {"scale_attn_norm": True, "scale_mlp_norm": True},
    ):  # fmt: skip
        vit = made(**changes)
        whole = vit(images())
        for name in ("evit", "tome", "random"):
            with METHODS[name]().applied_to(vit, 1.0):
                assert torch.equal(vit(images()), whole), (changes, name)
            with METHODS[name]().applied_to(vit, 0.5):
                assert torch.isfinite(vit(images())).all()


def test_noise_for_timing_has_the_networks_size() -> None:
    assert images_like(recognise(made()), 2).shape == (2, 3, 32, 32)
