"""Code that only a model's objects lead to, and what lies in an adapter's folder beside its Python files."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import py_compile
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from identity_cases import adapter, forget, measured, mended, network, write

from tokbench.evaluation.provenance import describe_adapter
from tokbench.nn.trainable import TrainingData
from tokbench.results.result import load
from tokbench.tokenizers.code_identity import identify
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.installed import distributions
from tokbench.tokenizers.registry import identity_of, load_adapter
from tokbench.training.zoo import TrainOptions, part, train_adapter

HELD = """
import functools, importlib.util, os, sys, torch


def by_path(name="made_up"):
    spec = importlib.util.spec_from_file_location(name, os.environ["OUTER"] + "/outer.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


class Held(torch.nn.Module):
    def __init__(self, held=None):
        super().__init__()
        self.held = held

    def decode(self, latents):
        return USE
"""

# What a network holds of a file that was loaded by its path, how it decodes with that, further lines of adapter.py.
HOLDINGS = {
    "a function": ("by_path().decode", "self.held(latents)", ""),
    "a module": ("by_path()", "self.held.decode(latents)", ""),
    "a class": ("by_path().Network", "self.held().decode(latents)", ""),
    "a method": ("by_path().NETWORK.decode", "self.held(latents)", ""),
    "a module in a list": ("[1, by_path()]", "self.held[1].decode(latents)", ""),
    "a function in a tuple in a dictionary": ("{'a': (by_path().decode,)}", "self.held['a'][0](latents)", ""),
    "a network in a list": ("[by_path().Network()]", "self.held[0].decode(latents)", ""),
    "a partial function": ("functools.partial(by_path().decode)", "self.held(latents)", ""),
    "a closure": ("(lambda made: lambda x: made.decode(x))(by_path())", "self.held(latents)", ""),
    "a function behind a decorator": ("torch.no_grad()(by_path().decode)", "self.held(latents)", ""),
    "a global": ("None", "MADE.decode(latents)", "MADE = by_path()"),
    "a global in a dictionary": ("None", "MADE['a'](latents)", "MADE = {'a': by_path().decode}"),
    "a global of the class": ("None", "Held.made.decode(latents)", "Held.made = by_path()"),
    "a default value": ("None", "use(latents)", "def use(latents, made=by_path()):\n    return made.decode(latents)"),
    "a class with the name of another module": (
        "by_path('side').Network()",
        "self.held.decode(latents)",
        "import side",
    ),
    "a function compiled from the text of a file": (
        "made['decode']",
        "self.held(latents)",
        "made = {}\nexec(compile(open(os.environ['OUTER'] + '/outer.py').read(), os.environ['OUTER'] + '/outer.py',"
        " 'exec'), made)",
    ),
}


@pytest.fixture(params=HOLDINGS)
def holding(request: pytest.FixtureRequest, outside: Path, tmp_path: Path) -> Path:
    """An adapter folder whose numbers depend on outer.py outside it."""
    held, use, more = HOLDINGS[request.param]
    write(outside, {"outer.py": network(), "side.py": "class Network:\n    pass\n"})
    return adapter(tmp_path, f"{HELD.replace('USE', use)}\n\n{more}\n", f"network = lambda: Held({held})")


@pytest.mark.slow
def test_code_that_objects_hold_is_measured_anew(holding: Path, outside: Path, images, networks, tmp_path) -> None:
    mended(holding, images, networks, tmp_path, (outside / "outer.py").write_text)


def test_code_that_objects_hold_has_one_hash(holding: Path, tmp_path: Path, outside: Path) -> None:
    """The hash is equal in a second load, in another process, and beside other adapters that are loaded."""
    first = load_adapter(str(holding)).used
    assert first is not None
    assert set(first.modules) - {"side"} <= {"made_up", "outer"}
    assert first.modules
    assert set(first.packages) == {"torch"}
    assert load_adapter(str(holding)).used == first
    forget()
    assert load_adapter(str(holding)).used == first


def test_registries_that_adapters_share_do_not_mix_them(outside: Path, tmp_path: Path) -> None:
    write(outside, {"outer.py": network() + "\nREGISTRY = {}\n", "side.py": "def use():\n    pass\n"})
    registers = "import outer, side\nfrom outer import Network as network\nouter.REGISTRY['side'] = side.use"
    first = adapter(tmp_path, "from outer import Network as network", "")
    alone = load_adapter(str(first)).used
    load_adapter(str(adapter(tmp_path, registers, "", "mine_too")))
    assert load_adapter(str(first)).used == alone


def zipped(file: Path, text: str) -> None:
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("outer.py", text)


def test_an_archive_in_the_folder_is_code(outside: Path, images: Path, networks, tmp_path: Path, monkeypatch) -> None:
    folder = adapter(tmp_path, "import outer", "network = outer.Network")
    monkeypatch.syspath_prepend(folder / "code.zip")
    outside.rmdir()

    def put(text: str) -> None:
        zipped(folder / "code.zip", text)
        importlib.invalidate_caches()

    mended(folder, images, networks, tmp_path, put)


def test_compiled_code_in_the_folder_is_code(outside: Path, tmp_path: Path) -> None:
    """A module without its source, imported relatively, and a library that is loaded at run time alone."""
    source = tmp_path / "outer.py"
    folder = adapter(tmp_path, "from .quick import Network as network", "")
    found = []
    for scale in (0.5, 0.9):
        source.write_text(network(scale))
        py_compile.compile(str(source), str(folder / "quick.pyc"), doraise=True)
        forget()
        found.append(load_adapter(str(folder)))
    assert found[0].code == found[1].code
    assert found[0].used != found[1].used
    write(folder, {"below/kernels.so": "1", "below/kernels.cu": "1"})
    third = load_adapter(str(folder))
    assert third.files.keys() - found[1].files.keys() == {"below/kernels.so", "below/kernels.cu"}
    assert identity_of(third) != identity_of(found[1])


@pytest.mark.parametrize("name", ["config.json", "below/config.yaml", "model.yml", "below/settings.toml", "table.npy"])
def test_configuration_in_the_folder_counts(name, outside: Path, images: Path, networks, tmp_path: Path) -> None:
    """A run that died is measured anew, a finished one is replaced, and the command names the file."""
    read = f"import pathlib\nFOLDER = pathlib.Path(__file__).parent\nSCALE = float((FOLDER / {name!r}).read_text())"
    write(outside, {"outer.py": network()})
    made = f"{read}\nfrom outer import Network\n\n\nclass Scaled(Network):\n    def decode(self, latents):\n"
    made += "        return super().decode(latents) * SCALE\n"
    folder = adapter(tmp_path, made, "network = Scaled")
    write(folder, {name: "0.5"})
    first = measured(folder, images, networks, None)
    first.save(tmp_path / "out")
    write(folder, {name: "0.9"})
    second = measured(folder, images, networks, None, "psnr")
    assert second.metrics["psnr"]["value"] != first.metrics["psnr"]["value"]  # imported again in the same process
    assert second.differs_from(first) == [f"file {name}"]
    path, replaced = second.save(tmp_path / "out")
    assert replaced == f"it was computed with other file {name}; the file no longer contains exact"[: len(replaced)]
    assert load(path).provenance["adapter"]["files"].keys() == {name}


def test_files_that_say_nothing_of_the_code(outside: Path, tmp_path: Path) -> None:
    write(outside, {"outer.py": network()})
    folder = adapter(tmp_path, "from outer import Network as network", "")
    before = load_adapter(str(folder))
    others = ("default.training.json", "README.md", ".cache/a.json", "__pycache__/a.pyc", "other.toml", "weights.pt")
    write(folder, dict.fromkeys(others, "1"))
    assert load_adapter(str(folder / "default.toml")).files == before.files == {}


def test_many_files_have_one_hash(outside: Path, tmp_path: Path) -> None:
    write(outside, {"outer.py": network()})
    folder = adapter(tmp_path, "from outer import Network as network", "")
    write(folder, {f"labels/{number}.json": "1" for number in range(100)})
    before = load_adapter(str(folder)).files
    assert set(before) == {"100 files"}
    write(folder, {"labels/7.json": "2"})
    assert load_adapter(str(folder)).files != before


def test_files_of_the_adapters_that_it_is_made_of_count(outside: Path, tmp_path: Path) -> None:
    write(outside, {"outer.py": network()})
    below = adapter(tmp_path, "from outer import Network as network", "", "mine_below")
    write(below, {"config.json": "{}"})
    load_below = (
        f"from tokbench.tokenizers.registry import load_adapter\n    base = load_adapter({str(below)!r}).model.network"
    )
    above = adapter(tmp_path, "", f"{load_below}\n    network = lambda: base", "mine")
    assert set(load_adapter(str(above)).files) == {"adapters/mine_below/config.json"}


def test_tokens_kept_for_a_prior_are_of_the_code_outside_too(outside: Path, tmp_path: Path) -> None:
    write(outside, {"outer.py": network()})
    adapter(tmp_path, "from outer import Network as network", "", "mine_below")
    found = []
    for scale in (1.0, 0.9, 0.9):
        write(outside, {"outer.py": network(scale)})
        forget()
        variant = AdapterConfig("mine", tmp_path / "adapters" / "mine", {})
        found.append((part(variant, "mine_below").identity, variant.built_on["mine_below"]))
    assert found[0][0] != found[1][0]
    assert found[0][1] == found[1][1]  # committed results hold it
    assert found[1] == found[2]


TRAINED = """
import outer
from tokbench.nn.trainable import Trainable


class Trained(Trainable):
    def loss(self, batch, progress):
        return {}


def model(variant):
    return Trained()
"""


@pytest.mark.parametrize("edited", ["outside/outer.py", "adapters/mine/below/part.py", "adapters/mine/config.json"])
def test_an_interrupted_training_does_not_go_on_with_mended_code(edited, outside, tmp_path, monkeypatch) -> None:
    write(outside, {"outer.py": ""})
    folder = tmp_path / "adapters" / "mine"
    write(folder, {"adapter.py": TRAINED, "default.toml": "[training]\n", "below/part.py": "", "config.json": "{}"})
    states = []

    def stopped(*args: object, state: Path, **options: object) -> None:
        states.append(state)
        raise KeyboardInterrupt

    monkeypatch.setattr("tokbench.training.zoo.train", stopped)
    material = TrainingData(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    for text in ("{}", "{}", "[1]"):
        write(tmp_path, {edited: text})
        forget()
        with pytest.raises(KeyboardInterrupt):
            train_adapter("mine", folder / "default.toml", material, TrainOptions("none"))
    assert states[0] == states[1] != states[2]


def test_namespaces_inside_namespaces_are_found(outside: Path, images: Path, networks, tmp_path: Path) -> None:
    """Imported inside a function alone, so that nothing of them is there when the adapter is loaded."""
    lazy = "def late():\n    import outer.below.deep.a\n    return outer.below.deep.a.NETWORK"
    held = HELD.replace("USE", "late().decode(latents)")
    folder = adapter(tmp_path, f"{held}\n\n{lazy}\n", "network = Held")

    def put(text: str) -> None:
        write(outside, {"outer/below/deep/a.py": text})

    mended(folder, images, networks, tmp_path, put)


def test_parts_of_a_namespace_in_several_places(outside: Path, tmp_path: Path, monkeypatch) -> None:
    write(tmp_path / "more", {"outer/below/b.py": "import side\n"})
    write(outside, {"outer/below/a.py": "", "side.py": ""})
    monkeypatch.syspath_prepend(tmp_path / "more")
    assert set(identify(["outer.below.a", "outer.below.b"]).modules) == {"outer", "side"}


@pytest.mark.slow
def test_the_config_of_a_diffusers_folder_counts(tmp_path: Path, images: Path, networks) -> None:
    """Equal tensors with another activation are another network."""
    diffusers = pytest.importorskip("diffusers", reason="needs tokbench[hf]")
    torch.manual_seed(0)
    diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path / "kl")
    first = measured(f"diffusers:{tmp_path / 'kl'}", images, networks, None)
    first.save(tmp_path / "out")
    file = tmp_path / "kl" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"act_fn": "relu", "norm_num_groups": 2}))
    second = measured(f"diffusers:{tmp_path / 'kl'}", images, networks, None, "ssim")
    assert second.differs_from(first) == ["config_sha256"]
    path, replaced = second.save(tmp_path / "out")
    assert replaced == "it was computed with other config_sha256; the file no longer contains exact, psnr"
    assert set(load(path).metrics) == {"ssim"}


@pytest.mark.slow
def test_check_refuses_another_config_of_a_diffusers_folder(cli, tmp_path: Path, images: Path) -> None:
    diffusers = pytest.importorskip("diffusers", reason="needs tokbench[hf]")
    diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4).save_pretrained(tmp_path / "kl")
    out, file = tmp_path / "out", tmp_path / "kl" / "config.json"
    assert (
        cli("eval", f"diffusers:{tmp_path / 'kl'}", "--data", images, "--metrics", "psnr", "--out", out).exit_code == 0
    )
    assert cli("check", "--against", out, "--data", images).exit_code == 0
    file.write_text(json.dumps(json.loads(file.read_text()) | {"norm_num_groups": 2}))
    done = cli("check", "--against", out, "--data", images)
    assert done.exit_code == 3
    assert "the tokenizer's configuration differs from the committed result" in " ".join(done.output.split())


def test_networks_outside_the_module_are_hashed(outside: Path, tmp_path: Path) -> None:
    """An adapter that hands only one of its networks to tokbench: the other's weights count, too."""
    write(outside, {"outer.py": network()})
    more = "made = Mine(variant.name, network()); made.beside = [torch.nn.Linear(2, 2, bias=False)]\n"
    more += "    made.beside[0].weight.data.fill_(float((variant.folder / 'weights.pt').read_text()))\n    return made"
    folder = adapter(tmp_path, "from outer import Network as network", more)
    found = []
    for scale in ("1", "2", "2"):
        (folder / "weights.pt").write_text(scale)
        found.append(describe_adapter(load_adapter(str(folder))))
    assert found[0]["other_parameters_sha256"] != found[1]["other_parameters_sha256"]
    assert found[1] == found[2]


def distribution(site: Path, direct: object, **content: str) -> None:
    """An installed package `side` of version 1.2."""
    shutil.rmtree(site, ignore_errors=True)
    info = "side-1.2.dist-info"
    text = content.get("content", "x = 1\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    files = {
        "side/__init__.py": text,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: side\nVersion: 1.2\n",
        f"{info}/RECORD": f"side/__init__.py,sha256={digest},{len(text)}\n{info}/RECORD,,\n",
        f"{info}/top_level.txt": "side\n",
    }
    write(site, files | ({f"{info}/direct_url.json": json.dumps(direct)} if direct else {}))


COMMIT, OTHER = "1" * 40, "2" * 40


@pytest.mark.parametrize(
    ("direct", "version"),
    [
        (None, "1.2"),
        ({"url": "https://x/side.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}}, f"1.2 ({COMMIT})"),
        ({"url": "https://x/side.git", "vcs_info": {"vcs": "git", "commit_id": OTHER}}, f"1.2 ({OTHER})"),
        ({"url": "https://x/s.whl", "archive_info": {"hash": "sha256=a", "hashes": {"sha256": "a"}}}, "1.2 (sha256=a)"),
        ({"url": "https://x/s.whl", "archive_info": {"hashes": {"sha256": "a"}}}, "1.2 (a)"),
        ({"url": "file:///x", "dir_info": {"editable": True}}, "1.2"),
        ([1], "1.2"), ("x", "1.2"), ({"url": "u", "vcs_info": 3}, "1.2"),
    ],
)  # fmt: skip
def test_the_commit_belongs_to_the_version(direct, version: str, outside: Path, tmp_path: Path, monkeypatch) -> None:
    site = tmp_path / "site-packages"
    distribution(site, direct)
    monkeypatch.syspath_prepend(site)
    write(outside, {"outer.py": "import side\n"})
    distributions.cache_clear()
    found = identify(["outer"])
    assert set(found.modules) == {"outer"}
    assert found.packages == {"side": version}


def test_a_package_installed_from_a_folder_is_known_by_its_files(tmp_path: Path, monkeypatch) -> None:
    """Its version does not identify it: the folder may have been edited between two installations."""
    site, found = tmp_path / "site-packages", []
    monkeypatch.syspath_prepend(site)
    for content in ("x = 1\n", "x = 2\n", "x = 1\n"):
        distribution(site, {"url": "file:///x", "dir_info": {}}, content=content)
        distributions.cache_clear()
        found.append(identify(["side"]).packages["side"])
    assert found[0] == found[2] != found[1]
    assert found[0].startswith("1.2 (files ")


def test_a_copy_of_an_installed_package_elsewhere_is_hashed(outside: Path, tmp_path: Path, monkeypatch) -> None:
    """The installed one's version does not describe it."""
    distribution(tmp_path / "site-packages", None)
    write(tmp_path / "backup" / "site-packages", {"side/__init__.py": "x = 3\n"})
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(tmp_path / "backup" / "site-packages")
    assert set(identify(["side"]).modules) == {"side"}


ODD = """
class Proxy:
    def __getattribute__(self, name):
        raise RuntimeError("outside of its context")


class Slots:
    __slots__ = ("empty", "made")

    def __init__(self):
        self.made = by_path()
"""


def test_objects_are_looked_at_without_running_their_code(outside: Path, tmp_path: Path) -> None:
    """A library's lazy objects answer nothing outside the place that they are for."""
    write(outside, {"outer.py": network()})
    imports = HELD.replace("USE", "latents") + ODD
    used = load_adapter(str(adapter(tmp_path, imports, "network = lambda: Held([Proxy(), Slots()])"))).used
    assert used is not None
    assert set(used.modules) == {"made_up"}
