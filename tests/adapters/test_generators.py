"""enat, token_shuffle, d_ar and robustok's post-training: by algebra."""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tokbench.errors import AdapterError
from tokbench.nn.flow import seeded_noise
from tokbench.nn.priors.gpt import GPT
from tokbench.nn.priors.maskgit import masked_at
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vit import Shape
from tokbench.tokenizers.registry import adapter_files, open_variant

SMALL = {"size": 16, "classes": 5, "width": 32, "heads": 2}
LABELS, SEEDS = torch.tensor([0, 3, 1, 3, 2]), [7, 8, 9, 10, 11]
CODES = 11


def module_of(family: str) -> ModuleType:
    """The networks of an adapter folder."""
    name, toml = next((name, toml) for name, toml in adapter_files().items() if name.startswith(f"{family}."))
    return sys.modules[f"{open_variant(name, toml)[1].__name__}.model"]


def stirred(prior: Any) -> Any:
    """With weights that all matter."""
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    return prior.eval()


class TestENAT:
    @pytest.fixture
    def make(self, levels: Any) -> Any:
        def made(layout: str, groups: int = 1, **changes: Any) -> Any:
            torch.manual_seed(0)
            return stirred(
                module_of("enat").ENAT(levels(groups), layout=layout, encoder=2, **SMALL, **{"steps": 5} | changes)
            )

        return made

    @pytest.mark.parametrize("layout", ["uniform", "split", "reuse"])
    @pytest.mark.parametrize("guidance", [1.0, 2.0])
    def test_the_same_seed_gives_the_same_sample_at_any_batch_size(
        self, make: Any, layout: str, guidance: float
    ) -> None:
        prior = make(layout, groups=2)
        whole = prior.sample(LABELS, SEEDS, guidance)
        assert whole.shape == (5, 16, 2)
        parts = [prior.sample(LABELS[i : i + 2], SEEDS[i : i + 2], guidance) for i in range(0, 5, 2)]
        assert torch.equal(torch.cat(parts), whole)

    def test_reuse_is_recomputation_where_tokens_do_not_look_at_one_another(self, make: Any) -> None:
        """Its limit: what a token's features are does then not depend on when it was encoded."""
        reuse, split = make("reuse"), make("split")
        for prior in (reuse, split):
            with torch.no_grad():
                for linear in (*(block.out for block in prior.encoder), prior.before[-1]):
                    linear.weight.zero_()
                    linear.bias.zero_()
        assert torch.equal(reuse.sample(LABELS, SEEDS, 2.0), split.sample(LABELS, SEEDS, 2.0))

    def test_reuse_is_recomputation_where_nothing_was_known(self, make: Any) -> None:
        """Features of no tokens change nothing of those that are encoded then."""
        prior = make("reuse")
        entered = prior.visible(torch.ones(2, 16, 1, dtype=torch.long), torch.arange(6).expand(2, -1))
        assert torch.equal(prior.encode(entered, entered[:, :0]), prior.encode(entered))

    @pytest.mark.parametrize("layout", ["uniform", "split", "reuse"])
    @pytest.mark.parametrize("guidance", [1.0, 2.0])
    def test_evaluations_are_operations(self, make: Any, layout: str, guidance: float) -> None:
        """Those that are counted in drawing a sample, over those of a pass of all tokens."""
        prior = make(layout, groups=2)
        with FlopCounterMode(display=False) as whole, sdpa_kernel(SDPBackend.MATH):
            prior.together(LABELS[:1], torch.zeros(1, 16, 2, dtype=torch.long), torch.ones(1, 16, dtype=torch.bool))
        with FlopCounterMode(display=False) as drawing, sdpa_kernel(SDPBackend.MATH):
            prior.sample(LABELS[:1], SEEDS[:1], guidance)
        ratio = drawing.get_total_flops() / whole.get_total_flops()
        assert prior.num_function_evaluations(guidance) == pytest.approx(ratio, rel=1e-6)

    @pytest.mark.parametrize("layout", ["uniform", "split", "reuse"])
    def test_guidance_1_is_conditional_sampling(self, make: Any, layout: str) -> None:
        """The result equals two passes that are mixed with weights 1 and 0."""
        prior = make(layout)
        plain = prior.sample(LABELS, SEEDS, 1.0)
        assert torch.equal(prior.sample(LABELS, SEEDS, 1.0 + 1e-12), plain)

    def test_steps_that_keep_no_token_are_refused(self, make: Any) -> None:
        for steps in (0, 17):
            with pytest.raises(AdapterError, match=r"for 16 tokens: .*use 1 to 16 steps"):
                make("reuse", steps=steps)

    def test_reuse_differs_where_they_do(self, make: Any) -> None:
        assert not torch.equal(make("reuse").sample(LABELS, SEEDS, 1.0), make("split").sample(LABELS, SEEDS, 1.0))

    def test_a_token_is_encoded_once(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        counts: dict[str, int] = {}
        for layout in ("reuse", "split"):
            prior, counts[layout] = make(layout), 0

            def counting(
                entered: Tensor, before: Tensor | None = None, prior: Any = prior, name: str = layout
            ) -> Tensor:
                counts[name] += entered.shape[1]
                return type(prior).encode(prior, entered, before)

            monkeypatch.setattr(prior, "encode", counting)
            prior.sample(LABELS, SEEDS, 1.0)
        assert counts["reuse"] == 1 + 16 - masked_at(4, 5, 16)  # the class, and what is visible before the last step
        assert counts["split"] > counts["reuse"]

    def test_masked_tokens_do_not_change_what_is_visible(self, make: Any) -> None:
        """The encoder never sees a masked token: other values under the mask give the same logits."""
        prior = make("split")
        rows = torch.randint(0, CODES, (2, 16, 1), generator=torch.Generator().manual_seed(1))
        shown, hidden = torch.arange(6).expand(2, -1), torch.arange(6, 16).expand(2, -1)
        other = rows.clone()
        other[:, 6:] = (other[:, 6:] + 1) % CODES
        label = prior.label[LABELS[:2]][:, None]
        first, second = (
            prior.decode(prior.encode(torch.cat([label, prior.visible(given, shown)], 1)), hidden)
            for given in (rows, other)
        )
        assert torch.equal(first, second)

    @pytest.mark.parametrize("layout", ["uniform", "split", "reuse"])
    def test_its_loss_has_a_gradient_everywhere(self, make: Any, layout: str) -> None:
        prior = make(layout).train()
        rows = torch.randint(0, CODES, (8, 16, 1), generator=torch.Generator().manual_seed(1))
        unused = {"context", "norm_context"} if layout != "reuse" else set()
        torch.manual_seed(0)
        for _ in range(8):  # some draws hide no class, or reuse nothing
            (loss,) = prior.loss(TrainingBatch(torch.zeros(8, 3, 16, 16), torch.arange(8) % 5, rows), 0.0).values()
            loss.backward()
        for name, parameter in prior.named_parameters():
            if layout == "uniform" and ("context" in name or name.startswith("before")):
                continue
            if unused and (name.startswith("before") or (name.startswith("encoder") and "context" in name)):
                continue
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name

    def test_unequal_numbers_are_refused(self) -> None:
        with pytest.raises(ValueError, match="the same number"):
            module_of("enat").picked(torch.tensor([[True, False], [True, True]]))


class TestTokenShuffle:
    @pytest.fixture
    def make(self, levels: Any) -> Any:
        def made(groups: int = 1, **changes: Any) -> Any:
            torch.manual_seed(0)
            return stirred(module_of("token_shuffle").TokenShuffle(levels(groups), depth=2, **SMALL, **changes))

        return made

    @pytest.mark.parametrize("window", [1, 2, 4])
    def test_unshuffle_undoes_shuffle(self, window: int) -> None:
        module = module_of("token_shuffle")
        grid = torch.randn(2, 4, 8, 3)
        fused = module.shuffled(grid, window)
        assert fused.shape == (2, 32 // window**2, 3 * window**2)
        assert torch.equal(module.unshuffled(fused, window, 4, 8), grid)

    def test_a_window_holds_neighbours(self) -> None:
        shuffled = module_of("token_shuffle").shuffled
        grid = torch.arange(16).reshape(1, 4, 4, 1)
        assert shuffled(grid, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]

    @pytest.mark.parametrize("guidance", [1.0, 3.0])
    @pytest.mark.parametrize("window", [1, 2])
    def test_the_same_seed_gives_the_same_sample_at_any_batch_size(
        self, make: Any, window: int, guidance: float
    ) -> None:
        prior = make(window=window, groups=2)
        whole = prior.sample(LABELS, SEEDS, guidance)
        assert whole.shape == (5, 16, 2)
        parts = [prior.sample(LABELS[i : i + 2], SEEDS[i : i + 2], guidance) for i in range(0, 5, 2)]
        assert torch.equal(torch.cat(parts), whole)

    @pytest.mark.parametrize("squeeze", [False, True])
    def test_samples_are_likely_by_the_loss(self, make: Any, squeeze: bool) -> None:
        """What is drawn step by step with the cache has the chances that training sees all at once: at temperature 0
        every code drawn is the likeliest given those before it."""
        prior = make(window=2, squeeze=squeeze, temperature=0.0)
        rows = prior.sample(LABELS, SEEDS, 1.0)
        windows = prior.windows(rows)
        entered = torch.cat([prior.label[LABELS][:, None], prior.embed_windows(windows[:, :-1])], 1) + prior.positions
        assert torch.equal(prior.window_logits(prior.body(entered, prior.mask)).argmax(-1), windows)

    @pytest.mark.parametrize("window", [1, 2])
    def test_guidance_1_is_conditional_sampling(self, make: Any, window: int) -> None:
        prior = make(window=window)
        assert torch.equal(prior.sample(LABELS, SEEDS, 1.0 + 1e-12), prior.sample(LABELS, SEEDS, 1.0))

    def test_fewer_positions_than_tokens(self, make: Any) -> None:
        assert make(window=2).fused == 4
        assert make(window=2, squeeze=True).fused == 16
        assert make(window=1).fused == 16

    def test_what_is_no_grid_of_windows(self, make: Any) -> None:
        with pytest.raises(AdapterError, match="do not form 3x3 windows"):
            make(window=3)


def test_a_known_token_is_kept_and_the_others_follow_it(levels: Any) -> None:
    """Post-training mixes tokens that are known with drawn ones: each drawn one is given all before it."""
    torch.manual_seed(0)
    prior = stirred(GPT(levels(), depth=2, **SMALL))
    known = torch.randint(0, CODES, (5, 16, 1), generator=torch.Generator().manual_seed(2))
    kept = torch.rand(5, 16, generator=torch.Generator().manual_seed(3)) < 0.5
    rows = prior.sample(LABELS, SEEDS, 1.0, known=(known, kept))
    assert torch.equal(rows[kept], known[kept])
    assert not torch.equal(rows[~kept], known[~kept])
    everything = prior.sample(LABELS, SEEDS, 1.0, known=(known, torch.ones_like(kept)))
    assert torch.equal(everything, known)
    nothing = prior.sample(LABELS, SEEDS, 1.0, known=(known, torch.zeros_like(kept)))
    assert torch.equal(nothing, prior.sample(LABELS, SEEDS, 1.0))


class TestDAR:
    @pytest.fixture
    def make(self) -> Any:
        def made(**changes: Any) -> Any:
            torch.manual_seed(0)
            given = {"groups": 4, "steps": 2, "aligned": True, "encoder": 1, "after": 1} | changes
            quantizer = VectorQuantizer(codebook_size=16, dim=4)
            return stirred(module_of("d_ar").DAR(Shape(16, 4, 32, 1, 2), 8, quantizer, **given))

        return made

    def test_patches_and_back(self, make: Any) -> None:
        images = torch.rand(2, 3, 16, 16) * 2 - 1
        patches = make().patches(images)
        assert patches.shape == (2, 16, 48)
        torch.testing.assert_close(make().images(patches), images)

    def test_a_step_sees_its_own_group_alone(self, make: Any) -> None:
        """Later tokens change nothing of the steps before them; in the model that is not aligned they do."""
        vectors = torch.randn(2, 8, 4)
        other = vectors.clone()
        other[:, 4:] += 1  # the third group on
        for aligned, same in ((True, 4), (False, 0)):
            model = make(aligned=aligned)
            first, second = (list(model.stream(given, [1, 2])) for given in (vectors, other))
            assert len(first) == 8
            assert [torch.equal(a, b) for a, b in zip(first, second, strict=True)] == [at < same for at in range(8)]

    def test_a_prefix_gives_the_preview_of_the_stream(self, make: Any) -> None:
        model, vectors = make(), torch.randn(2, 8, 4)
        whole = list(model.stream(vectors, [1, 2]))
        for group in range(1, 5):
            preview = model.pixels(vectors[:, : 2 * group], [1, 2])
            torch.testing.assert_close(preview, whole[2 * group - 1].clamp(-1, 1))

    def test_a_found_image_is_reached_and_no_noise_is_left(self, make: Any) -> None:
        """This holds although the network is narrower than a patch."""
        model = make()
        images = torch.rand(2, 3, 16, 16) * 2 - 1
        model.denoiser.forward = lambda x, time, condition: model.patches(images)
        for preview in model.stream(torch.randn(2, 8, 4), [1, 2]):
            torch.testing.assert_close(preview, images, rtol=1e-4, atol=1e-4)

    def test_steps_are_of_second_order(self, make: Any) -> None:
        """dx/ds = x on a line: half as long steps have about a quarter of the error."""
        errors = []
        for steps in (4, 8, 16):
            model = make(steps=steps)
            model.velocity = lambda x, left, condition: -x  # the way leads from 1 to 0
            *_, made = model.stream(torch.randn(1, 8, 4), [1])
            exact = model.images(seeded_noise([1], (16, 48)) * math.e)
            errors.append(float((made - exact).abs().max()))
        assert errors[0] / errors[1] > 3
        assert errors[1] / errors[2] > 3.3

    def test_the_shift_keeps_its_ends(self) -> None:
        found = module_of("d_ar").shifted(torch.tensor([0.0, 0.5, 1.0]))
        torch.testing.assert_close(found, torch.tensor([0.0, 1 / 3, 1.0]))

    def test_groups_must_be_equal(self, make: Any) -> None:
        with pytest.raises(AdapterError, match="cannot be divided into 3 equal groups"):
            make(groups=3)
