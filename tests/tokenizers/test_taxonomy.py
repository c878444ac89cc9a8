"""The taxonomy of tokenizers: the table, what a TOML states, and the columns of tables."""

from __future__ import annotations

import pytest
from checkout import ROOT
from factories import make_result

from tokbench.errors import AdapterError
from tokbench.results.leaderboard import frame
from tokbench.results.markdown import grid, markdown
from tokbench.tokenizers.registry import BUILTIN, adapter_files, read_variant
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.taxonomy import _DOMAINS, _TABLE, Taxonomy, described, taxonomy_of

NO_TOKENIZERS = {
    "disco_token",
    "drsformer",
    "enat",
    "flow",
    "gpt",
    "maskgit",
    "style_tokenizer",
    "teacher",
    "token_shuffle",
}
"""Families of generators and of other networks."""


def test_every_tokenizer_has_an_entry_and_every_entry_a_tokenizer() -> None:
    files = adapter_files(ROOT)
    families = {name.partition(".")[0] for name in files}
    for name, toml in files.items():
        found = taxonomy_of(name, read_variant(toml))
        without = name.partition(".")[0] in NO_TOKENIZERS or _TABLE.get(name) == Taxonomy()
        assert bool(found.quantizer) is bool(found.training) is not without, name
    assert {name for name in {*_TABLE, *_DOMAINS} if name not in {*files, *families, *BUILTIN}} == set()


def test_a_variant_differs_from_its_family_and_a_toml_from_both() -> None:
    assert taxonomy_of("fqgan.other", {"training": {}}) == Taxonomy("product VQ", "joint + semantic", "photos")
    assert taxonomy_of("fqgan.f8x2_plain", {"training": {}}).training == "joint"
    trained = {"training": {"data": "phantoms-train"}}
    assert taxonomy_of("meditok.f8x4", trained).domain == "phantoms"
    own = trained | {"taxonomy": {"quantizer": "FSQ", "domain": "X-rays"}}
    assert taxonomy_of("meditok.f8x4", own) == Taxonomy("FSQ", "joint + semantic", "X-rays")
    assert taxonomy_of("mine.a", {"training": {"data": "my-set"}, "taxonomy": {"quantizer": "VQ"}}).training == ""


@pytest.mark.parametrize("table", [{"quantiser": "VQ"}, {"quantizer": 3}])
def test_a_wrong_table_is_refused_with_its_name(table: dict[str, object]) -> None:
    with pytest.raises(AdapterError, match=r"mine\.a.*\[?taxonomy"):
        taxonomy_of("mine.a", {"taxonomy": table})


def test_codebooks_and_causality_come_from_the_spec() -> None:
    spec = TokenizerSpec("a", "discrete", codebook={"codes": 16}, groups=3, downsample=8, causal=False)
    entries = described(Taxonomy("RVQ", "joint"), spec)
    assert entries == {"quantizer": "RVQ", "codebooks": "3", "causal": "no", "training": "joint"}
    two = TokenizerSpec("a", "discrete", codebook={"semantic": 16, "pixel": 8})
    assert described(Taxonomy(), two) == {"codebooks": "2"}


def test_tables_have_the_columns_in_which_rows_differ() -> None:
    one, other = ({"taxonomy": {"quantizer": name, "domain": "speech"}} for name in ("RVQ", "FSQ"))
    rows = [make_result("a", adapter_facts=one), make_result("b", adapter_facts=other)]
    assert "| quantizer |" in markdown(rows)
    assert [line[-1] for line in grid(rows).body] == ["RVQ", "FSQ"]
    assert frame(rows)["quantizer"].tolist() == ["RVQ", "FSQ"]
    assert "domain" not in frame(rows).columns

    before = [make_result("a"), make_result("b")]  # results of earlier versions record no taxonomy
    assert "quantizer" not in markdown(before)
    assert grid([rows[0], before[1]]).body[1][-2:] == ["-", "-"]
    assert frame([rows[0], before[1]])["domain"].isna().tolist() == [False, True]
