"""The identity of an adapter: all code that its numbers depend on, wherever it lies, and what a change of it does."""

from __future__ import annotations

import logging
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from factories import loaded
from identity_cases import adapter, forget, measured, mended, network, write

from tokbench.evaluation.provenance import describe_adapter
from tokbench.results.result import load
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.code_identity import identify
from tokbench.tokenizers.registry import load_adapter
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

# How an adapter gets to code outside its folder: the file that is edited, other files, its import, lines of its load.
WAYS: dict[str, tuple[str, dict[str, str], str, str]] = {
    "module": ("outer.py", {}, "from outer import Network as network", ""),
    "submodule in a function": ("outer/a.py", {"outer/__init__.py": ""}, "", "from outer.a import Network as network"),
    "relative, two levels": (
        "outer/below/a.py",
        {"outer/__init__.py": "from .way import Network\n", "outer/way.py": "from .below.a import Network\n"},
        "import outer",
        "network = outer.Network",
    ),
    "namespace": ("outer/a.py", {}, "import outer.a", "network = outer.a.Network"),
    "another module's import": (
        "beyond.py",
        {"outer.py": "def make():\n    from beyond import Network\n    return Network()\n"},
        "import outer",
        "network = outer.make",
    ),
    "by a name made at run time": (
        "outer.py",
        {},
        "import importlib",
        "network = importlib.import_module('OUTER'.lower()).Network",
    ),
    "a part found by listing its folder": (
        "outer/parts/b.py",
        {
            "outer/__init__.py": "from importlib import import_module\nfrom pathlib import Path\n"
            "PARTS = [import_module(f'outer.parts.{p.stem}') for p in Path(__file__).parent.glob('parts/*.py')]\n"
        },
        "import outer",
        "network = outer.PARTS[0].Network",
    ),
    "a file loaded by its path": (
        "outer.py",
        {},
        "import importlib.util, sys, os",
        "spec = importlib.util.spec_from_file_location('made_up', os.environ['OUTER'] + '/outer.py')\n"
        "    made = sys.modules['made_up'] = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(made)\n    network = made.Network",
    ),
    "a file loaded by its path and not registered": (
        "outer.py",
        {},
        "import importlib.util, os",
        "spec = importlib.util.spec_from_file_location('made_up', os.environ['OUTER'] + '/outer.py')\n"
        "    made = importlib.util.module_from_spec(spec)\n"
        "    spec.loader.exec_module(made)\n    network = made.Network",
    ),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, outside: Path, tmp_path: Path) -> tuple[Path, Path]:
    """An adapter folder, and the file outside it that its numbers depend on."""
    edited, others, imports, load = WAYS[request.param]
    write(outside, {**others, edited: network()})
    return adapter(tmp_path, imports, load), outside / edited


@pytest.mark.slow
def test_a_run_that_died_does_not_go_on_with_mended_code(way, images: Path, networks, tmp_path: Path) -> None:
    """The author mends code outside the adapter's folder and gives the same command: all images are measured anew."""
    folder, edited = way
    mended(folder, images, networks, tmp_path, edited.write_text)


def test_the_same_code_goes_on(way, images: Path, networks, tmp_path: Path) -> None:
    """A copy at another place, and files that nothing imports, change nothing."""
    folder, _ = way
    before = measured(folder, images, networks, tmp_path / "cache")
    forget()
    again = measured(folder, images, networks, tmp_path / "cache")
    assert again.to_dict() == before.to_dict()
    assert len(list((tmp_path / "cache" / "runs").iterdir())) == 1


def test_a_finished_result_of_other_code_is_replaced_by_name(way, images: Path, networks, tmp_path: Path) -> None:
    folder, edited = way
    measured(folder, images, networks, None).save(tmp_path / "out")
    forget()
    edited.write_text(network(0.9))
    path, replaced = measured(folder, images, networks, None, "ssim").save(tmp_path / "out")
    top = "made_up" if "made_up" in (folder / "adapter.py").read_text() else edited.relative_to(tmp_path).parts[1]
    assert replaced.startswith(f"it was computed with other module {top.removesuffix('.py')}")
    assert replaced.endswith("; the file no longer contains exact, psnr")
    assert set(load(path).metrics) == {"ssim"}


def test_the_command_says_what_differs(cli, outside: Path, images: Path, tmp_path: Path) -> None:
    write(outside, {"outer.py": network()})
    folder = adapter(tmp_path, "from outer import Network as network", "")
    command = ("eval", folder, "--data", images, "--out", tmp_path / "out", "--metrics")
    assert cli(*command, "psnr").exit_code == 0
    forget()
    write(outside, {"outer.py": network(0.9)})
    done = cli(*command, "ssim")
    assert done.exit_code == 0
    assert "(replaced an earlier result: it was computed with other module outer; the file no longer" in done.stderr


def test_a_second_adapter_names_the_same_modules(way, tmp_path: Path) -> None:
    """The second adapter of a process imports nothing any more, because the modules are loaded."""
    first, _ = way
    text = (first / "adapter.py").read_text()
    write(tmp_path / "adapters" / "mine_too", {"adapter.py": text, "default.toml": ""})
    ours, theirs = load_adapter(str(first)), load_adapter(str(tmp_path / "adapters" / "mine_too"))
    assert ours.used is not None
    assert ours.used == theirs.used
    assert ours.used.modules
    assert ours.used.packages == {"torch": metadata.version("torch")}


def test_code_is_the_same_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: Path) -> None:
    found = []
    for place in ("here", "there"):
        write(tmp_path / place, {"outer/__init__.py": "", "outer/a.py": "import side\n", "side.py": "x = 1\n"})
        with monkeypatch.context() as patched:
            patched.syspath_prepend(tmp_path / place)
            found.append(identify({"outer.a": ""}))
    assert found[0] == found[1]
    assert set(found[0].modules) == {"outer", "side"}
    (tmp_path / "there" / "outer" / "a.py").rename(tmp_path / "there" / "outer" / "b.py")
    monkeypatch.syspath_prepend(tmp_path / "there")
    assert identify({"outer": ""}).modules != {"outer": found[0].modules["outer"]}


def test_what_functions_of_a_package_import(outside: Path) -> None:
    """Files inside the folder always count; files outside count where they are imported."""
    inner = {"outer/__init__.py": "def f():\n    import beyond, outer.lazy\n", "outer/lazy.py": "import side\n"}
    write(outside, {**inner, "beyond.py": "", "side.py": ""})
    before = identify({"outer": ""})
    assert set(before.modules) == {"outer", "beyond"}
    write(outside, {"outer/lazy.py": "import side, os\n"})
    assert identify({"outer": ""}).modules["outer"] != before.modules["outer"]


def test_data_beside_code_is_not_looked_into(outside: Path) -> None:
    write(outside, {"outer/__init__.py": "", "outer/results/run1/made.py": "x = 1\n", "outer/notes.txt": "a"})
    before = identify({"outer": ""})
    write(outside, {"outer/results/run1/made.py": "x = 2\n", "outer/results/run1/1.png": "", "outer/notes.txt": "b"})
    assert identify({"outer": ""}) == before


@pytest.mark.parametrize("kind", ["vanished", "syntax", "not utf-8", "unreadable", "nul", "loop", "zip", "extension"])
def test_code_that_cannot_be_read_stops_nothing(kind: str, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(outside, {"outer.py": "import side\n", "side.py": "x = 1\n"})
    if kind == "vanished":
        (outside / "side.py").unlink()
        assert set(identify({"outer": ""}).modules) == {"outer"}
        return
    if kind == "zip":
        with zipfile.ZipFile(outside / "side.zip", "w") as packed:
            packed.writestr("side.py", "x = 1\n")
        (outside / "side.py").unlink()
        monkeypatch.syspath_prepend(outside / "side.zip")
    elif kind == "unreadable":
        (outside / "side.py").unlink()
        (outside / "side.py").mkdir()
        (outside / "side.py" / "__init__.py").write_text("")
        assert set(identify({"outer": ""}).modules) == {"outer"}
        return
    elif kind == "extension":
        (outside / "side.py").rename(outside / "side.so")
    elif kind == "loop":
        write(outside, {"side.py": "import outer, side\n"})
    else:
        contents = {"syntax": b"def (", "not utf-8": b"x = '\xff'", "nul": b"\0import os"}
        (outside / "side.py").write_bytes(contents[kind])
    before = identify({"outer": ""})
    assert set(before.modules) == {"outer", "side"}
    changed = next(path for path in (outside / "side.zip", outside / "side.so", outside / "side.py") if path.exists())
    changed.write_bytes(changed.read_bytes() + b"\n")
    after = identify({"outer": ""})
    assert after.modules["side"] != before.modules["side"]
    assert after.modules["outer"] == before.modules["outer"]


def test_installed_packages_are_named_by_their_version(outside: Path, tmp_path: Path, monkeypatch) -> None:
    """The distribution's name, which need not be the module's; what is installed and belongs to none is hashed."""
    site = tmp_path / "site-packages"
    write(
        site,
        {
            "side/__init__.py": "import beyond\n",
            "beyond.py": "x = 1\n",
            "Distributed_Side-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: Distributed-Side\nVersion: 1.2\n",
            "Distributed_Side-1.2.dist-info/RECORD": "side/__init__.py,,\n",
            "Distributed_Side-1.2.dist-info/top_level.txt": "side\n",
        },
    )
    monkeypatch.syspath_prepend(site)
    write(outside, {"outer.py": "import side, os, PIL.Image, tokbench.results.result\n"})
    found = identify({"outer": ""})
    assert set(found.modules) == {"outer"}
    assert found.packages == {"Distributed-Side": "1.2", "pillow": metadata.version("pillow")}
    write(outside, {"outer.py": "import beyond\n"})
    assert set(identify({"outer": ""}).modules) == {"outer", "beyond"}


def test_a_network_of_a_library_names_the_library(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs tokbench[hf]")
    made = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )  # fmt: skip
    made.save_pretrained(tmp_path / "tiny")
    used = load_adapter(f"diffusers:{tmp_path / 'tiny'}").used
    assert used is not None
    assert used.modules == {}
    assert used.packages == {name: metadata.version(name) for name in ("diffusers", "torch")}


@pytest.mark.parametrize("name", ["jpeg.q50", "identity", "images:."])
def test_tokbenchs_own_adapters_name_no_modules(name: str) -> None:
    facts = describe_adapter(load_adapter(name))
    assert not {"modules", "packages", "unused_tensors", "weights_in_part"} & facts.keys()


def test_what_an_adapter_is_made_of_counts(outside: Path, tmp_path: Path) -> None:
    """Another adapter that its load loads: its code, and the code that this one uses."""
    write(outside, {"outer.py": network(), "side.py": "x = 1\n"})
    below = adapter(tmp_path, "import side\nfrom outer import Network as network", "", "mine_below")
    load_below = (
        f"from tokbench.tokenizers.registry import load_adapter\n    base = load_adapter({str(below)!r}).model.network"
    )
    above = adapter(tmp_path, "", f"{load_below}\n    network = lambda: base", "mine")
    used = load_adapter(str(above)).used
    assert used is not None
    assert set(used.modules) == {"outer", "side", "adapters/mine_below"}
    write(below, {"default.toml": "x = 1\n"})
    again = load_adapter(str(above)).used
    assert again is not None
    assert {name for name in used.modules if used.modules[name] != again.modules[name]} == {"adapters/mine_below"}


class Handmade(Tokenizer):
    spec = TokenizerSpec("handmade", "codec")

    def encode(self, images) -> Tokens:
        return Tokens.from_samples((images * 255).round().byte())

    def decode(self, tokens: Tokens, seeds):
        return tokens.tensor.float() / 255


def test_a_model_made_in_python_is_known_by_the_file_of_its_class() -> None:
    facts = describe_adapter(loaded(Handmade()))
    assert set(facts["modules"]) == {__name__.partition(".")[0], "factories", "identity_cases"}
    assert facts["packages"]["pytest"] == metadata.version("pytest")


def test_a_folder_that_changed_is_imported_again(outside: Path, tmp_path: Path, images: Path, networks) -> None:
    """Within one process, as in a notebook, both the code that runs and its hash are those of the current files."""
    folder = adapter(tmp_path, "from .net import Network as network", "")
    write(folder, {"net.py": network(0.5)})
    first = load_adapter(str(folder))
    write(folder, {"net.py": network(0.9)})
    second = load_adapter(str(folder))
    assert first.code != second.code
    value = measured(folder, images, networks, None).metrics["psnr"]["value"]
    forget()
    assert measured(folder, images, networks, None).metrics["psnr"]["value"] == value
    assert load_adapter(str(folder)).code == second.code


def test_outside_code_that_changed_after_its_import_keeps_its_hash(outside: Path, tmp_path: Path, caplog) -> None:
    """The imported version keeps running, so its result must not name the new code; a warning explains this."""
    write(outside, {"outer.py": network(0.5)})
    folder = adapter(tmp_path, "from outer import Network as network", "")
    first = load_adapter(str(folder)).used
    assert "changed after" not in caplog.text
    write(outside, {"outer.py": network(0.9)})
    with caplog.at_level(logging.WARNING):
        assert load_adapter(str(folder)).used == first
    assert "outer changed after this process had imported it" in caplog.text
    forget()
    assert load_adapter(str(folder)).used != first
