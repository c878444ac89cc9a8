"""Weights that fit a network only in part: refused where tokbench reads the file, named and recorded where an adapter
does."""

from __future__ import annotations

import copy
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tokbench.errors import MissingWeights
from tokbench.evaluation.provenance import describe_adapter
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.registry import LoadedAdapter, load_adapter
from tokbench.tokenizers.third_party import load_checkpoint, tensors
from tokbench.weights.partial_loads import observed

ADAPTER = """
import torch
from torch import nn
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens


class Mine(Tokenizer):
    def __init__(self, name, net):
        self.module = net
        self.spec = TokenizerSpec(name, kind="continuous", multiple=8, downsample=8, bits_per_token=64.0)

    def encode(self, images):
        latents = self.module["encoder"](torch.nn.functional.pixel_unshuffle(images, 8))
        return Tokens.from_latents(latents, tokens=latents.shape[2] * latents.shape[3])

    def decode(self, tokens, seeds):
        return torch.nn.functional.pixel_shuffle(self.module["decoder"](tokens.tensor.float()), 8)


def load(variant, device):
    net = nn.ModuleDict({"encoder": nn.Conv2d(192, 4, 1), "decoder": nn.Conv2d(4, 192, 1)})
    state = {name: torch.full_like(tensor, 0.02) for name, tensor in net.state_dict().items()}
    LOAD
    return Mine(variant.name, net)
"""


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., LoadedAdapter]:
    """Loads an adapter whose load consists of some lines, and whose TOML contains a text."""

    def make(lines: str, toml: str = "", top: str = "") -> LoadedAdapter:
        folder = tmp_path / "mine"
        folder.mkdir(exist_ok=True)
        (folder / "adapter.py").write_text(top + ADAPTER.replace("LOAD", lines.replace("\n", "\n    ")))
        (folder / "default.toml").write_text(toml)
        return load_adapter(str(folder))

    return make


PART = {
    "absent": ("state.pop('decoder.bias'); net.load_state_dict(state, strict=False)", 1, 0, ["decoder.bias"]),
    "no place": ("net.load_state_dict(state | {'extra.w': torch.ones(1)}, strict=False)", 0, 1, ["extra.w"]),
    "prefix": (
        "net.load_state_dict({f'module.{k}': v for k, v in state.items()}, strict=False)",
        4,
        4,
        ["decoder.bias", "decoder.weight", "encoder.bias", "module.decoder.bias", "module.decoder.weight",
         "module.encoder.bias"],
    ),
    "half": ("net['encoder'].load_state_dict({}, strict=False)", 2, 0, ["bias", "weight"]),
    "assigned": ("del state['encoder.bias']; net.load_state_dict(state, strict=False, assign=True)", 1, 0,
                 ["encoder.bias"]),
    "after a refusal": (
        "del state['encoder.bias']\ntry:\n    net.load_state_dict(state)\nexcept RuntimeError:\n"
        "    net.load_state_dict(state, strict=False)", 1, 0, ["encoder.bias"],
    ),
}  # fmt: skip


DROPPED = """
whole = nn.ModuleDict({"encoder": nn.Conv2d(192, 4, 1), "decoder": nn.Conv2d(4, 192, 1), "loss": nn.Linear(2, 2)})
whole.load_state_dict({k: v for k, v in state.items() if k != LEFT} | {'extra.w': torch.ones(1)}, strict=False)
net["decoder"].load_state_dict({"weight": state["decoder.weight"], "bias": state["decoder.bias"]})
"""
COPIED = "net.load_state_dict({k: v for k, v in state.items() if k != 'decoder.bias'}, strict=False)\n"
UPDATED = "own = net.state_dict()\nown.update({k: v for k, v in state.items() if k in own})\nnet.load_state_dict(own)"

PART |= {
    "a part of it kept": (DROPPED.replace("LEFT", "'encoder.bias'") + "net['encoder'] = whole['encoder']", 1, 1,
                          ["encoder.bias", "extra.w"]),
    "a part of it kept, another left out": (DROPPED.replace("LEFT", "'decoder.bias'")
                                            + "net['encoder'] = whole['encoder']", 0, 1, ["extra.w"]),
    "a tensor of it kept": (DROPPED.replace("LEFT", "'encoder.bias'")
                            + "net['encoder'].load_state_dict({k[8:]: v for k, v in state.items() if k[0] == 'e'})\n"
                            "net.register_buffer('mean', whole['encoder'].bias.data)", 1, 1,
                            ["encoder.bias", "extra.w"]),
    "copied": (COPIED + "import copy\nnet = copy.deepcopy(net)", 1, 0, ["decoder.bias"]),
    "copied twice, both held": (COPIED + "import copy\nheld = [net, copy.deepcopy(net)]\n"
                                "net = copy.deepcopy(held[1])\nnet.held = held", 1, 0, ["decoder.bias"]),
    "copied, then the first one filled": (COPIED + "import copy\nbefore, net = net, copy.deepcopy(net)\n"
                                          "before.load_state_dict(state)", 1, 0, ["decoder.bias"]),
    "scripted": (COPIED + "net['decoder'] = torch.jit.script(net['decoder'])\nnet = nn.ModuleDict(dict(net.items()))",
                 1, 0, ["decoder.bias"]),
    "traced": (COPIED + "for half, x in (('encoder', torch.rand(1, 192, 2, 2)), ('decoder', torch.rand(1, 4, 2, 2))):\n"
               "    net[half] = torch.jit.trace(net[half], x)", 1, 0, ["decoder.bias"]),
    "scripted, then loaded": ("net['decoder'] = torch.jit.script(net['decoder'])\n"
                              "net['decoder'].load_state_dict({'weight': state['decoder.weight']}, strict=False)",
                              1, 0, ["bias"]),
    "the name of another network's": ("other = nn.ModuleDict({'extra': nn.Linear(2, 2)})\n"
                                      "other.load_state_dict({k: v + 1 for k, v in other.state_dict().items()})\n"
                                      "net.load_state_dict(state | {'extra.bias': torch.ones(2)}, strict=False)",
                                      0, 1, ["extra.bias"]),
    "updated": ("del state['decoder.bias']\n" + UPDATED, 1, 0, ["decoder.bias"]),
    "updated by nothing": ("state = {'module.' + k: v for k, v in state.items()}\n" + UPDATED, 4, 0,
                           ["decoder.bias", "decoder.weight", "encoder.bias"]),
    "updated and assigned": ("del state['decoder.bias']\n" + UPDATED.replace("(own)", "(own, assign=True)"), 1, 0,
                             ["decoder.bias"]),
    "by way of another network": (
        "import copy\nfirst, state = copy.deepcopy(net), {k: v for k, v in state.items() if k != 'encoder.bias'}\n"
        "first.load_state_dict(state, strict=False)\nnet.load_state_dict(first.state_dict())", 1, 0, ["encoder.bias"],
    ),
    "a refusal that nobody minds": ("del state['encoder.bias']\ntry:\n    net.load_state_dict(state)\n"
                                    "except RuntimeError:\n    pass", 1, 0, ["encoder.bias"]),
    "in a thread": ("import threading\ndel state['encoder.bias']\n"
                    "one = threading.Thread(target=net.load_state_dict, args=(state, False))\n"
                    "one.start()\none.join()", 1, 0, ["encoder.bias"]),
    "renamed by the network": ("net.register_load_state_dict_pre_hook(\n"
                               "    lambda net, state, *rest: state.update({'extra.b': state.pop('extra.a')}))\n"
                               "net.load_state_dict(state | {'extra.a': torch.ones(1)}, strict=False)", 0, 1,
                               ["extra.b"]),
}  # fmt: skip

HELD = {
    "list": "[net['decoder']]",
    "dictionary": "{'a': (net['decoder'],)}",
    "object": "type('Plain', (), {})()\n    mine.held.inside = net['decoder']",
    "function": "(lambda decoder: lambda x: decoder(x))(net['decoder'])",
}


@pytest.mark.parametrize("kind", HELD)
def test_a_network_counts_wherever_it_is_held(kind: str, loaded) -> None:
    """Also beside one that is an attribute of the tokenizer."""
    lines = (
        "net['decoder'].load_state_dict({'weight': state['decoder.weight']}, strict=False)\n"
        "net['encoder'].load_state_dict({'weight': state['encoder.weight'], 'bias': state['encoder.bias']})\n"
        f"mine = Mine(variant.name, net['encoder'])\nmine.held = {HELD[kind].replace('    ', '')}\n"
        "net = None\nreturn mine"
    )
    assert loaded(lines).in_part == {"missing": 1, "unexpected": 0, "first": ["bias"]}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PART)
def test_what_an_adapter_leaves_out_is_logged_and_recorded(kind: str, loaded, caplog) -> None:
    lines, missing, unexpected, first = PART[kind]
    with caplog.at_level(logging.WARNING):
        facts = describe_adapter(loaded(lines))
    assert facts["weights_in_part"] == {"missing": missing, "unexpected": unexpected, "first": first}
    assert "mine: its weights fit only in part, which its results record" in caplog.text
    assert first[0] in caplog.text


def test_the_result_file_says_it(loaded, cli, photo_folder: Path, tmp_path: Path) -> None:
    found = loaded(PART["absent"][0]).in_part
    done = cli("eval", tmp_path / "mine", "--data", photo_folder, "--metrics", "psnr", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    (path,) = (tmp_path / "out").rglob("*.json")
    assert json.loads(path.read_text())["provenance"]["adapter"]["weights_in_part"] == found


WHOLE = {
    "strict": "net.load_state_dict(state)",
    "two files": "for half in ('encoder.', 'decoder.'):\n"
    "    net.load_state_dict({k: v for k, v in state.items() if k.startswith(half)}, strict=False)",
    "submodules": "for half in net:\n"
    "    net[half].load_state_dict({k.partition('.')[2]: v for k, v in state.items() if k.startswith(half)})\n"
    "net.load_state_dict({}, strict=False)",
    "tied": "net['decoder'] = nn.Conv2d(192, 4, 1)\nnet['decoder'].weight = net['encoder'].weight\n"
    "net['decoder'].bias = net['encoder'].bias\n"
    "net.load_state_dict({k: v for k, v in state.items() if k.startswith('encoder')}, strict=False)",
    "counters": "net['norm'] = nn.BatchNorm2d(4)\nstate = {k: v.clone() for k, v in net.state_dict().items()}\n"
    "del state['norm.num_batches_tracked']\n"
    "net.load_state_dict(state, strict=False)",
    "a part of a network that was loaded whole": "first = {'encoder': net['encoder'], 'loss': net['decoder']}\n"
    "nn.ModuleDict(first).load_state_dict({k: v for k, v in state.items() if k.startswith('encoder')}, strict=False)\n"
    "del first\nnet['decoder'] = nn.Conv2d(4, 192, 1)\n"
    "net['decoder'].load_state_dict({k[8:]: v for k, v in state.items() if k.startswith('decoder')})",
    "parts of two networks": "import copy\nother = copy.deepcopy(net)\n"
    "for one, half in ((net, 'encoder'), (other, 'decoder')):\n"
    "    del one['decoder' if half == 'encoder' else 'encoder']\n"
    "    one.load_state_dict({k: v.double() for k, v in state.items()}, strict=False)\n"
    "net['decoder'] = other['decoder']",
    "parts without the beginnings of names": "net['encoder'].load_state_dict(\n"
    "    {k[8:]: v.half() for k, v in state.items() if k.startswith('encoder')})\n"
    "only = nn.ModuleDict({'decoder': net['decoder']})\nonly.load_state_dict(state, strict=False)\nnet.only = only",
    "updated twice": "for half in net:\n    own = net.state_dict()\n"
    "    own.update({k: v for k, v in state.items() if k.startswith(half)})\n    net.load_state_dict(own)",
    "filled, then updated by itself": "net.load_state_dict(state)\nnet.load_state_dict(net.state_dict())",
    "filled, then copied and scripted": "import copy\nnet.load_state_dict({}, strict=False)\n"
    "net.load_state_dict(state)\nnet = copy.deepcopy(net)\nnet['decoder'] = torch.jit.script(net['decoder'])",
    "filled, then by way of another network": "import copy\nfirst = copy.deepcopy(net)\nfirst.load_state_dict(state)\n"
    "net.load_state_dict(first.state_dict())",
    "an attempt that is dropped": "attempt = nn.ModuleDict({'encoder': nn.Linear(2, 2)})\n"
    "attempt.load_state_dict({'other.w': torch.ones(1)}, strict=False)\nattempt.itself = [attempt]\n"
    "net.load_state_dict(state)",
    "a refusal, then the names mended": "net.half = nn.Linear(1, 2, bias=False)\n"
    "state |= {'half.one': torch.ones(1, 1), 'half.two': torch.ones(1, 1)}\n"
    "try:\n    net.load_state_dict(state)\nexcept RuntimeError:\n"
    "    state['half.weight'] = torch.cat([state.pop('half.one'), state.pop('half.two')])\n"
    "    net.load_state_dict(state)",
    "moved": "net.load_state_dict({}, strict=False)\nnet.double().load_state_dict(state)\nnet.float()",
    "no place in the state dict": "net['encoder'].register_buffer('grid', torch.ones(1), persistent=False)\n"
    "net.load_state_dict(state)",
    "another network": "nn.Linear(2, 2).load_state_dict({}, strict=False); net.load_state_dict(state)",
}


@pytest.mark.parametrize("kind", WHOLE)
def test_what_is_whole_in_the_end_is_not(kind: str, loaded, caplog) -> None:
    assert loaded(WHOLE[kind]).in_part == {}
    assert "fit only in part" not in caplog.text


def test_nothing_stays_wrapped(loaded) -> None:
    before = nn.Module.load_state_dict
    with pytest.raises(Exception, match="failed to load"):
        loaded("raise ValueError('broken')")
    assert nn.Module.load_state_dict is before
    assert not hasattr(nn.Module, "__deepcopy__")


def test_threads_that_load_at_once_keep_theirs_apart() -> None:
    """Two loads overlap; afterwards nothing is wrapped, whichever ends first."""
    before = nn.Module.load_state_dict
    both, nets = threading.Barrier(2, timeout=60), (nn.Linear(2, 2), nn.Linear(2, 2))
    reports: dict[int, dict[str, object]] = {}

    def work(number: int) -> None:
        for turn in range(20):
            both.wait()
            with observed() as seen:
                both.wait()
                nets[number].load_state_dict({"weight": torch.ones(2, 2)} if number else {}, strict=False)
                if turn % 2 == number:
                    both.wait()
            if turn % 2 != number:
                both.wait()
        reports[number] = seen.left_out()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reports[0] == {"missing": 2, "unexpected": 0, "first": ["bias", "weight"]}
    assert reports[1] == {"missing": 1, "unexpected": 0, "first": ["bias"]}
    assert nn.Module.load_state_dict is before
    assert not hasattr(nn.Module, "__deepcopy__")


def test_copies_are_what_they_would_be_without_an_observer() -> None:
    net = nn.ModuleDict({"a": nn.BatchNorm2d(2)})
    net["b"], net.own = net["a"], net["a"].weight
    with observed():
        made = copy.deepcopy(net)
    assert made["a"] is made["b"] is not net["a"]
    assert made.own is made["a"].weight is not net.own
    assert made["a"].running_mean is not net["a"].running_mean
    assert list(made.state_dict()) == list(net.state_dict())


@pytest.mark.parametrize("where", ["at the top", "in load"])
def test_a_librarys_own_reader_is_observed(where: str, loaded, tmp_path: Path, caplog) -> None:
    """diffusers copies tensors itself, and only logs what it left out."""
    diffusers = pytest.importorskip("diffusers", reason="needs tokbench[hf]")
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    shape = {"block_out_channels": [8, 8], "norm_num_groups": 4, "latent_channels": 4}
    diffusers.AutoencoderKL(**blocks, **shape).save_pretrained(tmp_path / "vae")
    config = tmp_path / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_quant_conv": False}))
    line = f"net['vae'] = AutoencoderKL.from_pretrained({str(tmp_path / 'vae')!r})"
    imported = "from diffusers import AutoencoderKL"
    before = vars(diffusers.ModelMixin)["from_pretrained"]
    top, lines = (imported, line) if where == "at the top" else ("", f"{imported}\n{line}")
    found = loaded(lines, top=top).in_part
    assert found == {"missing": 0, "unexpected": 2, "first": ["quant_conv.bias", "quant_conv.weight"]}
    assert vars(diffusers.ModelMixin)["from_pretrained"] is before


def variant(folder: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> AdapterConfig:
    save_file(state, folder / "mine.safetensors")
    monkeypatch.setenv("TOKBENCH_WEIGHTS", str(folder))
    entry = {"file": "mine.safetensors", "sha256": "", "get": "the author"}
    return AdapterConfig("mine", folder, {"weights": {"model": [entry]}})


STATE = {"weight": torch.ones(2, 2), "bias": torch.ones(2), "loss.a": torch.ones(1), "loss.b": torch.ones(1)}


def test_a_variant_loads_strictly_and_records_what_it_does_not_use(tmp_path: Path, monkeypatch) -> None:
    mine, net = variant(tmp_path, STATE, monkeypatch), nn.Linear(2, 2)
    with pytest.raises(MissingWeights, match=r"mine: .*has unknown loss\.a, loss\.b; replace it"):
        mine.load_weights(net, "model")
    mine = variant(tmp_path, STATE, monkeypatch)
    assert mine.load_weights(net, "model", unused=("loss.", "never.")) is net
    assert torch.equal(net.weight, STATE["weight"])
    assert not net.training
    assert mine.unused_tensors() == {"loss.": 2}
    with pytest.raises(MissingWeights, match=r"lacks weight"):
        mine.load_weights(net, "model", unused=("loss.", "weight"))


def test_a_result_says_what_is_not_used(loaded, tmp_path: Path, monkeypatch, cli, photo_folder: Path) -> None:
    state = {"encoder.weight": torch.full((4, 192, 1, 1), 0.02), "encoder.bias": torch.zeros(4)}
    state |= {"decoder.weight": torch.full((192, 4, 1, 1), 0.02), "decoder.bias": torch.zeros(192)}
    state["loss.a"] = torch.ones(1)
    variant(tmp_path, state, monkeypatch)
    toml = '[[weights.model]]\nfile = "mine.safetensors"\nsha256 = ""\nget = "the author"\n'
    found = loaded("variant.load_weights(net, 'model', unused=('loss.',))", toml)
    assert found.unused == {"loss.": 1}
    assert found.in_part == {}
    done = cli("eval", tmp_path / "mine", "--data", photo_folder, "--metrics", "psnr", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    (path,) = (tmp_path / "out").rglob("*.json")
    assert json.loads(path.read_text())["provenance"]["adapter"]["unused_tensors"] == {"loss.": 1}


def test_tensors_that_an_adapter_drops_by_itself_are_counted_by_file(tmp_path: Path, monkeypatch) -> None:
    """A load that renames the moving averages of a checkpoint and drops the rest."""
    averages = {"ema.weight": torch.ones(2, 2), "ema.bias": torch.ones(2), "ema.extra": torch.ones(1)}
    mine = variant(tmp_path, {**STATE, **averages}, monkeypatch)
    state, found = tensors(mine, "model")
    load_checkpoint(mine, nn.Linear(2, 2), {name: state[f"ema.{name}"] for name in ("weight", "bias")}, found)
    assert mine.unused_tensors() == {"mine.safetensors": 5}
    copied = {name: state[f"ema.{name}"].double() for name in ("weight", "bias")}
    load_checkpoint(mine, nn.Linear(2, 2), copied, found)  # no tensor of the file, but of its names
    assert mine.unused_tensors() == {"mine.safetensors": 3}


def test_whole_numbers_are_no_weights(tmp_path: Path, monkeypatch) -> None:
    mine = variant(tmp_path, {"weight": torch.ones(2, 2, dtype=torch.int8), "bias": torch.ones(2)}, monkeypatch)
    with pytest.raises(MissingWeights, match="has integers instead of floating-point values in weight"):
        mine.load_weights(nn.Linear(2, 2), "model")


@pytest.mark.slow
def test_observers_may_be_nested() -> None:
    net = nn.Linear(2, 2)
    with observed() as outer:
        with observed() as inner:
            net.load_state_dict({}, strict=False)
        assert inner.left_out() == {"missing": 2, "unexpected": 0, "first": ["bias", "weight"]}
        assert outer.left_out() == inner.left_out()
        net.load_state_dict({"weight": torch.ones(2, 2), "bias": torch.ones(2)})
    assert outer.left_out() == {}
    assert inner.left_out() != {}
