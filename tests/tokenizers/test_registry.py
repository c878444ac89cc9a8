"""Finding and loading adapters and datasets; weight files."""

from __future__ import annotations

import hashlib
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tokbench.errors import AdapterError, MissingWeights, UsageError
from tokbench.paths import find_root
from tokbench.tokenizers.registry import adapter_files, load_adapter
from tokbench.weights import registry

TOML = 'summary = "s"\n[model]\npatch = 4\nlevels = 2\n'


@pytest.fixture
def own(root: Path, tmp_path: Path) -> Path:
    """A copy of the template as somebody's own adapter with two variants, and its root."""
    folder = tmp_path / "own-root" / "adapters" / "mine"
    shutil.copytree(root / "adapters" / "toy", folder, ignore=shutil.ignore_patterns("*.toml", "__pycache__"))
    for name in ("default", "small"):
        (folder / f"{name}.toml").write_text(TOML)
    return folder


def test_variants_are_named_after_folder_and_file(own: Path) -> None:
    assert list(adapter_files(own.parent.parent)) == ["mine", "mine.small"]
    loaded = load_adapter("mine.small", root=own.parent.parent)
    assert (loaded.name, loaded.model.spec.downsample) == ("mine.small", 4)


def test_a_variant_may_name_another_file_of_its_folder(own: Path) -> None:
    """Which may use what stands in adapter.py, and another variant still gets adapter.py."""
    (own / "other.py").write_text(
        "from . import adapter_loads\n\n\ndef load(variant, device):\n    return adapter_loads(variant, device)\n"
    )
    with (own / "adapter.py").open("a") as file:
        file.write("\n\nadapter_loads = load\n\n\ndef load(variant, device):\n    raise ValueError('adapter.py')\n")
    (own / "small.toml").write_text(f'code = "other"\n{TOML}')
    assert load_adapter("mine.small", root=own.parent.parent).model.spec.downsample == 4
    with pytest.raises(AdapterError, match=r"failed to load \(ValueError: adapter\.py\)"):
        load_adapter("mine", root=own.parent.parent)


@pytest.mark.parametrize("code", ["'gone'", "'../adapter'", "3"])
def test_code_that_is_not_beside_its_toml_is_named(own: Path, code: str) -> None:
    (own / "small.toml").write_text(f"code = {code}\n{TOML}")
    with pytest.raises(AdapterError, match=r"small\.toml: code = .* names no Python file in the same folder"):
        load_adapter("mine.small", root=own.parent.parent)


def test_by_path(own: Path) -> None:
    assert load_adapter(str(own / "small.toml")).name == "mine.small"
    with pytest.raises(UsageError, match="not one but 2 variant files"):
        load_adapter(str(own))
    (own / "small.toml").unlink()
    assert load_adapter(str(own)).name == "mine"
    with pytest.raises(UsageError, match=r"has no adapter\.py"):
        load_adapter(str(own.parent))


def test_two_folders_with_a_module_of_the_same_name_do_not_clash(tmp_path: Path) -> None:
    for name, patch in (("one", 2), ("two", 4)):
        folder = tmp_path / "adapters" / name
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(f"PATCH = {patch}\n")
        (folder / "v.toml").write_text("")
        (folder / "adapter.py").write_text(
            "from tokbench.tokenizers.base import Tokenizer\nfrom tokbench.tokenizers.spec import TokenizerSpec\n"
            "from .model import PATCH\n"
            "class Any(Tokenizer):\n"
            "    def __init__(self, name): self.spec = TokenizerSpec(name, 'codec', multiple=PATCH)\n"
            "    def encode(self, images): ...\n"
            "    def decode(self, tokens, seeds): ...\n"
            "def load(variant, device): return Any(variant.name)\n"
        )
    for name, patch in (("one", 2), ("two", 4)):
        assert load_adapter(f"{name}.v", root=tmp_path).model.spec.multiple == patch


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("import nothing_of_that_name", r"adapter\.py cannot be imported \(ModuleNotFoundError"),
        ("x = 1", "has no function load"),
        ("def load(variant, device): raise KeyError('model')", "failed to load .KeyError"),
        ("class M:\n class spec: name = 'other'\ndef load(variant, device): return M()", "name 'other', not 'mine'"),
    ],
)
def test_broken_adapters_are_named(own: Path, code: str, complaint: str) -> None:
    (own / "adapter.py").write_text(code)
    with pytest.raises(AdapterError, match=complaint):
        load_adapter("mine", root=own.parent.parent)


def test_broken_toml_is_named(own: Path) -> None:
    (own / "default.toml").write_text("= nonsense")
    with pytest.raises(AdapterError, match=r"default\.toml cannot be read"):
        load_adapter("mine", root=own.parent.parent)


def test_packages_bring_adapters_through_an_entry_point(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    shutil.copytree(own, site / "theirs")
    (site / "theirs" / "__init__.py").write_text("")
    info = site / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tokbench.adapters]\ntheirs = theirs\n")
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    assert load_adapter("theirs.small").name == "theirs.small"


def test_root_order(own: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = own.parent.parent
    monkeypatch.setenv("TOKBENCH_ROOT", str(mine))
    assert find_root() == mine
    assert find_root(root) == root
    monkeypatch.delenv("TOKBENCH_ROOT")
    monkeypatch.chdir(mine)
    assert find_root() == mine
    monkeypatch.chdir(tmp_path)
    assert find_root() == root
    with pytest.raises(UsageError, match="neither an adapters/ nor a datasets/"):
        find_root(tmp_path)


def test_missing_weights_name_file_places_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKBENCH_WEIGHTS", str(tmp_path / "w"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "t"))
    with pytest.raises(MissingWeights) as caught:
        registry.resolve("lpips-vgg", registry.KNOWN_WEIGHTS["lpips-vgg"])
    text = str(caught.value)
    hub = tmp_path / "t" / "hub" / "checkpoints"
    for part in ("vgg16-397923af.pth", str(tmp_path / "w"), str(hub), "https://", "add FILE"):
        assert part in text


def test_a_file_with_a_wrong_hash_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKBENCH_WEIGHTS", str(tmp_path))
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"half a file")
    with pytest.raises(MissingWeights, match=r"has sha256 .* not 397923af"):
        registry.resolve("lpips-vgg", registry.KNOWN_WEIGHTS["lpips-vgg"])


def test_add_checks_the_hash_and_puts_the_file_in_place(tmp_path: Path, private_cache: Path, cli) -> None:
    file = tmp_path / "downloaded (1).bin"
    file.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    known = [registry.WeightFile("proper.pth", digest[:8], "somewhere")]
    assert registry.add(file, known) == private_cache / "weights" / "proper.pth"
    assert registry.resolve("x", known).path == private_cache / "weights" / "proper.pth"
    done = cli("weights", "add", file)
    assert done.exit_code == 2
    assert digest in done.stderr


@dataclass
class Served:
    """A server: files by name, and the number of its answers that end too early; `asked` lists the requests."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: int = 0
    asked: list[str] = field(default_factory=list)


class Answers(BaseHTTPRequestHandler):
    served: Served

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        self.served.asked.append(name)
        data = self.served.files.get(name)
        self.send_response(200 if data is not None else 404)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if data and self.served.cut:
            self.served.cut -= 1
            data = data[:-1]
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server of files on this machine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)  # between attempts
    own = Served()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Answers,), {"served": own}))
    own.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield own
    server.shutdown()
    thread.join()
    server.server_close()


def test_download_only_when_allowed_and_only_the_right_file(served: Served, private_cache: Path) -> None:
    served.files["served.pth"] = b"weights"
    digest = hashlib.sha256(b"weights").hexdigest()
    good = registry.WeightFile("folder/got.pth", digest[:8], "here", url=f"{served.url}/served.pth")
    with pytest.raises(MissingWeights, match="--allow-download"):
        registry.resolve("x", [good])
    assert not served.asked
    found = registry.resolve("x", [good], allow_download=True)
    assert found.path.read_bytes() == b"weights" and found.sha256 == digest
    assert registry.resolve("x", [good]).path == found.path == private_cache / "weights/folder/got.pth"
    bad = registry.WeightFile("other.pth", "0" * 64, "here", url=good.url)
    with pytest.raises(MissingWeights, match=f"gave a file with sha256 {digest}"):
        registry.resolve("x", [bad], allow_download=True)
    assert served.asked == ["served.pth"] * 2  # what arrived whole and is another file is not asked for again
    absent = registry.WeightFile("absent.pth", "0" * 64, "here", url=f"{served.url}/no")
    with pytest.raises(MissingWeights, match=r"its download failed .*tokbench weights add absent\.pth"):
        registry.resolve("x", [absent], allow_download=True)
    assert sorted(path.name for path in (private_cache / "weights").rglob("*")) == ["folder", "got.pth"]


@pytest.mark.parametrize(("cut", "arrives"), [(2, True), (3, False)])
def test_a_download_that_breaks_off_is_tried_again(
    cut: int, arrives: bool, served: Served, private_cache: Path
) -> None:
    served.files["a.pth"], served.cut = b"weights" * 1000, cut
    file = registry.WeightFile("a.pth", "", "here", url=f"{served.url}/a.pth")  # no hash would show that it is cut off
    if arrives:
        found = registry.resolve("x", [file], allow_download=True)
        assert found.path.read_bytes() == served.files["a.pth"]
        return
    with pytest.raises(MissingWeights, match="its download failed"):
        registry.resolve("x", [file], allow_download=True)
    assert not list((private_cache / "weights").iterdir())
