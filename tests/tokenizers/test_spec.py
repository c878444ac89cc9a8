"""A spec that contradicts itself is an error when an adapter is loaded, and bits are computed where they can be."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tokbench.errors import AdapterError
from tokbench.tokenizers.registry import load_adapters
from tokbench.tokenizers.spec import TokenizerSpec

CODES = {"codes": 1024}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"kind": "discrete"}, "says kind 'discrete' and declares no codebook; give codebook={'codes': K}"),
        ({"kind": "quantised"}, "says kind 'quantised'; give one of 'discrete', 'continuous', 'codec', 'images'"),
        ({"kind": "continuous", "codebook": CODES}, "says kind 'continuous' and declares codebook .*; leave it out"),
        ({"kind": "codec", "codebook": CODES}, "says kind 'codec' and declares codebook"),
        ({"kind": "codec", "num_tokens": 4}, "says kind 'codec' and num_tokens=4; a codec's bytes are not tokens"),
        ({"kind": "images", "bits_per_token": 8}, "says kind 'images' and bits_per_token=8; precomputed images"),
        ({"kind": "images", "downsample": 8}, "says kind 'images' and downsample=8"),
        ({"codebook": {"codes": 0}}, "says codebook {'codes': 0}; give the number of codes by stream"),
        ({"codebook": {"codes": 10.0}}, "says codebook {'codes': 10.0}"),
        ({"codebook": {"codes": True}}, "says codebook {'codes': True}"),
        ({"codebook": [1024]}, r"says codebook \[1024\]"),
        ({"range": (1.0, -1.0)}, "says range .*; give two numbers, the lower one first"),
        ({"range": (0.0, math.inf)}, "says range"),
        ({"range": (0.0, math.nan)}, "says range"),
        ({"range": (0.0,)}, "says range"),
        ({"range": 1.0}, "says range 1.0"),
        ({"multiple": 0}, "says multiple=0; give a positive integer"),
        ({"multiple": None}, "says multiple=None"),
        ({"size": -256}, "says size=-256"),
        ({"downsample": 8.0}, "says downsample=8.0"),
        ({"num_tokens": True}, "says num_tokens=True"),
        ({"groups": 0}, "says groups=0"),
        ({"size": 250, "multiple": 16}, "says size=250 and multiple=16; give a size that is a multiple of 16"),
        ({"size": 250, "downsample": 16}, "says size=250 and downsample=16"),
        ({"size": 256, "downsample": 16, "num_tokens": 64}, "num_tokens=64, but size=256 with downsample=16 gives 256"),
        ({"downsample": 16, "num_tokens": 256}, "num_tokens=256 for every image, but downsample=16 makes"),
        ({"variable": True}, "declares `variable` but no `num_tokens`"),
        ({"prefixes": True}, "declares `prefixes` but no `num_tokens`"),
        ({"bits_per_token": 5}, "bits_per_token=5 and a codebook of 1024 codes, with which an index takes 10 bits"),
        ({"bits_per_token": 15}, "bits_per_token=15 and a codebook of 1024 codes"),
        ({"bits_per_token": 10.0001}, "bits_per_token=10.0001 and"),
        ({"bits_per_token": 10, "groups": 2}, "with which a token of 2 indices takes 20 bits"),
        ({"bits_per_token": 0}, "says bits_per_token=0"),
        ({"bits_per_token": math.nan}, "says bits_per_token=nan"),
        ({"bits_per_token": "10"}, "says bits_per_token='10'"),
        ({"codebook": {"codes": 1}, "bits_per_token": 1}, "a codebook of one code; its indices take 0 bits"),
        ({"kind": "continuous", "bits_per_token": 4}, "give 16 times the values of a token"),
    ],
)
def test_what_contradicts_itself_is_named(given: dict[str, Any], complaint: str) -> None:
    spec = {"kind": "discrete"} | ({} if "kind" in given else {"codebook": CODES}) | given
    with pytest.raises(AdapterError, match=f"^mine.v1: its spec .*{complaint}"):
        TokenizerSpec("mine.v1", **spec)


def test_a_spec_without_a_name() -> None:
    with pytest.raises(AdapterError, match=r"a spec has the name ''; give family\.variant"):
        TokenizerSpec("", "codec")


@pytest.mark.parametrize(
    ("given", "bits", "groups"),
    [
        ({"codebook": CODES}, 10.0, 1),
        ({"codebook": {"codes": 1000}}, math.log2(1000), 1),
        ({"codebook": {"codes": 16}, "groups": 3}, 12.0, 3),
        ({"codebook": {"codes": 8}, "bits_per_token": 48}, 48, 16),
        ({"codebook": {"codes": 125}, "bits_per_token": 6.9657842847}, 6.9657842847, 1),  # as float32 would have it
        ({"codebook": {"a": 256, "b": 256}}, 8.0, 1),
        ({"codebook": {"codes": 4096, "kept": 2}}, None, None),  # a token's bits depend on its stream
        ({"codebook": {"codes": 4096, "kept": 2}, "bits_per_token": 12.0}, 12.0, None),
        ({"codebook": {"codes": 1}}, 0.0, 1),
        ({"kind": "continuous"}, None, None),
        ({"kind": "continuous", "bits_per_token": 16 * 4}, 64, None),
        ({"kind": "codec"}, None, None),
    ],
)
def test_bits_are_computed_where_they_can_be(given: dict[str, Any], bits: float | None, groups: int | None) -> None:
    spec = TokenizerSpec("mine.v1", **({"kind": "discrete"} | given))
    assert (spec.bits_per_token, spec.groups) == (bits, groups)
    assert replace(spec, name="other.v1").bits_per_token == bits


@pytest.mark.parametrize(
    "given",
    [
        {"size": 256, "multiple": 16, "downsample": 16, "num_tokens": 256},
        {"size": 256, "downsample": 16, "num_tokens": 512, "codebook": {"a": 1024, "b": 1024}},
        {"num_tokens": 32, "variable": True, "prefixes": True},
        {"range": [-1, 1], "downsample": 4},
    ],
)
def test_facts_that_agree(given: dict[str, Any]) -> None:
    TokenizerSpec("mine.v1", **({"kind": "discrete", "codebook": CODES} | given))


def test_a_contradiction_ends_its_own_adapter_alone(tmp_path: Path) -> None:
    """At load, before any image is read; whether the spec is made by `load` or when the module is read."""
    for name, where in (("mine", "        self.spec = "), ("yours", "    spec = ")):
        folder = tmp_path / "adapters" / name
        folder.mkdir(parents=True)
        (folder / "v1.toml").write_text('title = "x"\n')
        made = f"{where}TokenizerSpec('{name}.v1', 'discrete', num_tokens=4)\n"
        (folder / "adapter.py").write_text(
            "from tokbench.tokenizers.base import Tokenizer\nfrom tokbench.tokenizers.spec import TokenizerSpec\n"
            "class Any(Tokenizer):\n"
            f"    def __init__(self):\n{made if name == 'mine' else '        pass'}\n"
            f"{made if name == 'yours' else ''}"
            "    def encode(self, images): ...\n"
            "    def decode(self, tokens, seeds): ...\n"
            "def load(variant, device): return Any()\n"
        )
    loaded, broken = load_adapters(["mine.v1", "identity", "yours.v1"], root=tmp_path)
    assert [one.name for one in loaded] == ["identity"]
    for name in ("mine.v1", "yours.v1"):
        assert f"{name}: its spec says kind 'discrete' and declares no codebook" in broken[name]
