"""Errors in the code of an adapter folder: the message names file and line, and the other adapters go on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokbench.tokenizers.registry import load_adapters

HEAD = (
    "import torch\n"
    "from tokbench.tokenizers.base import PrecomputedImages, Tokenizer\n"
    "from tokbench.tokenizers.spec import TokenizerSpec\n"
    "from tokbench.tokenizers.tokens import Tokens\n"
)
GOOD = "        self.spec = TokenizerSpec(name, 'continuous', downsample=8, multiple=8, bits_per_token=16 * 192)\n"
ENCODE = (
    "        latents = torch.nn.functional.pixel_unshuffle(images, 8)\n"
    "        return Tokens.from_latents(latents, tokens=latents.shape[2] * latents.shape[3])\n"
)
DECODE = "        return torch.nn.functional.pixel_shuffle(tokens.tensor.float(), 8)\n"


def code(spec: str = GOOD, encode: str = ENCODE, decode: str = DECODE, load: str = "    return Mine(variant.name)\n"):
    """The text of an adapter.py: the class is in line 5, `spec` in 7, `encode` from 9."""
    return (
        f"{HEAD}class Mine(Tokenizer):\n    def __init__(self, name):\n{spec}"
        f"    def encode(self, images):\n{encode}    def decode(self, tokens, seeds):\n{decode}"
        f"def load(variant, device):\n{load}"
    )


def write(tmp_path: Path, text: str, name: str = "mine") -> Path:
    folder = tmp_path / "adapters" / name
    folder.mkdir(parents=True)
    (folder / "v1.toml").write_text('summary = "s"\n')
    (folder / "adapter.py").write_text(text)
    return folder


def spec(words: str) -> str:
    return f"        self.spec = TokenizerSpec(name, {words})\n"


BROKEN = {
    "nothing returned": (code(load="    Mine(variant.name)\n"), "load(variant, device) returned None", 13),
    "no spec": (code(spec="        pass\n"), "Mine has no spec; set self.spec = TokenizerSpec(...)", 5),
    "spec of another class": (
        code(spec="        self.spec = type('S', (), {'name': name})()\n"), "its spec is a S, not a TokenizerSpec", 5,
    ),
    "no tokenizer": (
        code().replace("class Mine(Tokenizer)", "class Mine"), "load returned a Mine, which is no subclass", 5,
    ),
    "kind": (code(spec=spec("'images'")), "its spec says kind 'images', but it is not a PrecomputedImages", 5),
    "unknown kind": (code(spec=spec("'latent'")), "its spec says kind 'latent'", 7),
    "codebook": (code(spec=spec("'continuous', codebook={'codes': 8}")), "declares codebook {'codes': 8}", 7),
    "bits": (code(spec=spec("'discrete', codebook={'codes': 8}, bits_per_token=4")), "bits_per_token=4", 7),
    "downsample": (code(spec=spec("'continuous', downsample=16, num_tokens=4, size=64")), "num_tokens=4", 7),
    "exception": (code(load="    x = []\n    return x[3]\n"), "failed to load (IndexError: list index out of", 15),
    "arguments": (code().replace("load(variant, device)", "load(variant)"), "failed to load (TypeError: ", 13),
    "import": (code() + "import nothing_of_that_name\n", "cannot be imported (ModuleNotFoundError", 15),
    "syntax": (code() + "def :\n", "cannot be imported (SyntaxError", 15),
    "exit": (code(load="    raise SystemExit(3)\n"), "failed to load (SystemExit: 3)", 14),
    "spec of the module": (HEAD + "SPEC = TokenizerSpec('mine.v1', 'discrete')\n", "declares no codebook", 5),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_adapter_is_named_with_file_and_line(case: str, tmp_path: Path) -> None:
    text, complaint, line = BROKEN[case]
    folder = write(tmp_path, text)
    loaded, failed = load_adapters(["mine.v1", "identity"], root=tmp_path)
    assert [one.name for one in loaded] == ["identity"]
    assert complaint in failed["mine.v1"]
    assert f"at {folder / 'adapter.py'}:{line}" in failed["mine.v1"]


RUNNING = {
    "encode": (
        code(encode="        return self.inside(images)\n    def inside(self, x):\n        return x @ x[0, 0, :3]\n"),
        "adapter.py:11 in Mine.inside",
    ),
    "decode": (code(decode="        raise KeyError('codes')\n"), "KeyError: 'codes' at adapters/mine/adapter.py:12 in"),
    "inside tokbench": (code(encode="        return Tokens.from_latents(images, tokens=None)\n"), "adapter.py:9 in"),
    "bind": (code() + "def bind(self, names, all_names):\n    raise ValueError('no')\nMine.bind_dataset = bind\n",
             "ValueError: no at adapters/mine/adapter.py:16 in bind"),
}  # fmt: skip


@pytest.mark.parametrize("case", RUNNING)
def test_an_error_in_a_run_names_the_last_line_of_the_adapter(
    case: str, tmp_path: Path, cli, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, complaint = RUNNING[case]
    write(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    done = cli("eval", "mine.v1", "resize.2", "--data", photo_folder, "--metrics", "psnr", "--no-cache", "--root", ".")
    assert done.exit_code == 1, done.output
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert "| resize.2 " in done.stdout


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Tokbench's logger, restored afterwards."""
    logger = logging.getLogger("tokbench")
    before = logger.level, list(logger.handlers), logger.propagate
    yield logger
    logger.level, logger.handlers[:], logger.propagate = before
    logger.setLevel(before[0])


@pytest.mark.usefixtures("logger")
def test_debug_prints_the_whole_traceback(
    tmp_path: Path, cli, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, RUNNING["encode"][0])
    write(tmp_path, BROKEN["exception"][0], "yours")
    monkeypatch.chdir(tmp_path)
    done = cli("eval", "mine.v1", "yours.v1", "--data", photo_folder, "--metrics", "psnr", "--no-cache", "--debug",
               "--root", ".")  # fmt: skip
    assert done.exit_code == 1, done.output
    assert done.stderr.count("Traceback (most recent call last):") >= 2
    assert 'adapter.py", line 9, in encode' in done.stderr
    assert "IndexError: list index out of range" in done.stderr


@pytest.mark.usefixtures("logger")
def test_every_command_takes_debug(cli) -> None:
    from tokbench.cli import main

    assert all(any("--debug" in one.opts for one in command.params) for command in main.commands.values())
    done = cli("eval", "no-such-adapter", "--debug")
    assert done.exit_code == 2
    assert "NoAdapter: no adapter 'no-such-adapter'" in done.stderr
