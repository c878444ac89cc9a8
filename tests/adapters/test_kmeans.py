"""The k-means adapters: what fitting computes, and what the TOML files declare."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from torch import Tensor

from tokbench.errors import AdapterError, DataError
from tokbench.evaluation.provenance import describe_adapter
from tokbench.nn.quantizers.quantizer import Quantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.tokenizers.registry import adapter_files, load_adapter, open_variant, read_variant

FILES = {name: toml for name, toml in adapter_files().items() if name.startswith("kmeans.")}
FLOORS = {name for name, toml in adapter_files().items() if read_variant(toml).get("floor")}


def fitted(images: Tensor, **model: int):
    name, toml = next(iter(FILES.items()))
    made = open_variant(name, toml)[1].KMeans(**model)
    made.fit(iter(images.split(4)))
    return made


def test_few_patches_are_learned_exactly() -> None:
    """Images of 4 different patches need 4 codes and at most 3 components."""
    generator = torch.Generator().manual_seed(1)
    patches = torch.rand(4, 3, 8, 8, generator=generator) * 2 - 1
    which = torch.randint(4, (12, 2, 2), generator=generator)
    images = patches[which].permute(0, 3, 1, 4, 2, 5).reshape(12, 3, 16, 16)
    tokenizer = LearnedTokenizer("x", fitted(images, patch=8, components=3, codes=4, groups=1, per_image=4))
    tokens = tokenizer.encode(images)
    assert tokens.tensor.shape == (12, 2, 2, 1)
    torch.testing.assert_close(tokenizer.decode(tokens, [0] * 12), images, atol=5e-3, rtol=0)
    pairs = set(zip(which.flatten().tolist(), tokens.tensor.flatten().tolist(), strict=True))
    assert len(pairs) == 4  # each patch has a code of its own


def test_too_few_patches_are_refused() -> None:
    with pytest.raises(DataError, match="16 patches of 8x8 px are too few for 32 codes and 3 components; fit to more"):
        fitted(torch.rand(4, 3, 16, 16), patch=8, components=3, codes=32, groups=1, per_image=4)


def test_every_codebook_lowers_the_error_and_the_fit_is_reproducible() -> None:
    images = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    errors = []
    for groups in (1, 2, 4):
        made = fitted(images, patch=8, components=24, codes=8, groups=groups, per_image=4)
        tokenizer = LearnedTokenizer("x", made)
        with torch.no_grad():
            decoded = tokenizer.decode(tokenizer.encode(images), [0] * 40)
        errors.append(float((decoded - images).square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > errors[1] > errors[2]
    again = fitted(images, patch=8, components=24, codes=8, groups=4, per_image=4)
    for name, value in made.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
        assert torch.equal(value, value.half().float()), name  # what is stored is what was fitted


@pytest.mark.parametrize("name", FILES)
def test_bits_are_as_the_summary_says(name: str) -> None:
    tokenizer = load_adapter(name)
    assert tokenizer.floor
    model = read_variant(FILES[name])["model"]
    bits = (64 // model["patch"]) ** 2 * model["groups"] * math.log2(model["codes"])
    (said,) = re.findall(r"([\d,.]+) bits per image of 64 px", read_variant(FILES[name])["summary"])
    assert float(said.replace(",", "")) == pytest.approx(bits, abs=0.05)
    assert isinstance(tokenizer.model, LearnedTokenizer)
    assert isinstance(tokenizer.model.model.bottleneck, Quantizer)
    tokens = tokenizer.model.encode(torch.zeros(1, 3, 64, 64))
    assert float(tokens.bits) == pytest.approx(bits)


def test_floors_are_the_fitted_adapters() -> None:
    assert set(FILES) | {name for name in adapter_files() if name.startswith("pca.")} == FLOORS


def test_a_floor_must_be_true_or_false(tmp_path: Path) -> None:
    folder = tmp_path / "adapters" / "mini"
    folder.mkdir(parents=True)
    (folder / "adapter.py").write_text((ROOT / "adapters" / "toy" / "adapter.py").read_text())
    text = (ROOT / "adapters" / "toy" / "p8.toml").read_text()
    for value, wrong in (("true", False), ('"yes"', True)):
        (folder / "p8.toml").write_text(f"floor = {value}\n{text}")
        if wrong:
            with pytest.raises(AdapterError, match="floor = 'yes' must be true or false"):
                load_adapter("mini.p8", root=tmp_path)
        else:
            assert describe_adapter(load_adapter("mini.p8", root=tmp_path))["floor"] is True
