"""Checkpoints of unfinished trainings: where they are, which training may resume from them, and `--out`."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from click.testing import CliRunner
from signalled import STOPPED, exit_status
from two_families import write_two_families

from tokbench.cli import main
from tokbench.io.hashing import code_of
from tokbench.nn.trainable import TrainingData
from tokbench.paths import cache_dir
from tokbench.tokenizers.import_closure import code_of_imports
from tokbench.tokenizers.registry import load_adapter
from tokbench.training.states import content_of, describe_data, state_folder
from tokbench.training.workers import trainings
from tokbench.training.zoo import TrainOptions, train_adapter

PIXELS = torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
MATERIAL = TrainingData(PIXELS)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_two_families(tmp_path / "tree", tmp_path / "photos")
    return tmp_path / "tree"


def toml_of(root: Path, name: str) -> Path:
    family, _, variant = name.partition(".")
    return root / "adapters" / family / f"{variant}.toml"


def state_of(root: Path, name: str, monkeypatch: pytest.MonkeyPatch, options: TrainOptions | None = None) -> Path:
    """The checkpoint file of a training that is stopped before its first step."""
    states: list[Path] = []

    def stopped(*args: object, state: Path, **others: object) -> None:
        states.append(state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tokbench.training.zoo.train", stopped)
        with pytest.raises(KeyboardInterrupt):
            train_adapter(name, toml_of(root, name), MATERIAL, options or TrainOptions("some, 6 images"))
    return states[0]


def test_out_has_the_layout_of_a_checkout_and_dependants_find_their_bases_there(root: Path, tmp_path: Path) -> None:
    """Two families have a variant of the same name; neither overwrites the other, and the checkout stays untrained."""
    out = tmp_path / "out"
    command = ["train", "--all", "--root", str(root), "--data", str(tmp_path / "photos"), "--out", str(out)]
    run = CliRunner().invoke(main, command)
    assert run.exit_code == 0, run.output
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert written == [
        f"adapters/{family}/v1{suffix}"
        for family in ("lower", "upper")
        for suffix in (".safetensors", ".training.json")
    ]
    assert not list(root.rglob("*.safetensors"))
    shutil.copytree(out / "adapters", root / "adapters", dirs_exist_ok=True)
    assert load_adapter("upper.v1", root=root).model.spec.name == "upper.v1"


def test_bases_in_out_precede_those_of_the_checkout(root: Path, tmp_path: Path) -> None:
    options = TrainOptions("none", out=tmp_path / "out")
    train_adapter("lower.v1", toml_of(root, "lower.v1"), MATERIAL, TrainOptions("none"))
    first, record = train_adapter("upper.v1", toml_of(root, "upper.v1"), MATERIAL, options)
    assert first == tmp_path / "out" / "adapters" / "upper" / "v1.safetensors"  # on the base of the checkout
    brighter = TrainingData(PIXELS // 2 + 128)
    train_adapter("lower.v1", toml_of(root, "lower.v1"), brighter, options)
    _, other = train_adapter("upper.v1", toml_of(root, "upper.v1"), MATERIAL, options)  # in a later command
    assert record.recipe["bases"] != other.recipe["bases"]
    train_adapter("upper.v1", toml_of(root, "upper.v1"), MATERIAL, TrainOptions("none"))
    found = json.loads((root / "adapters/upper/v1.training.json").read_text())
    assert found["recipe"]["bases"] == record.recipe["bases"]  # without --out, the other folder is not read


def test_checkpoints_are_in_an_ignored_folder_of_a_checkout(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert state_of(root, "lower.v1", monkeypatch).parent == cache_dir() / "training" == state_folder(root)
    (root / ".git").touch()  # a worktree has a file of this name
    state = state_of(root, "lower.v1", monkeypatch)
    assert state.parent == root / ".cache" / "training"
    assert (state.parent / ".gitignore").read_text() == "*\n"


def test_a_training_goes_on_after_its_checkout_was_moved(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / ".git").touch()
    monkeypatch.setattr("tokbench.training.loop.KEPT", -1.0)
    train_adapter("lower.v1", toml_of(root, "lower.v1"), MATERIAL, TrainOptions("none"))
    arguments = ("upper.v1", toml_of(root, "upper.v1"), MATERIAL, TrainOptions("none"))

    def stop(share: float, images: int, speed: float, terms: dict[str, float]) -> None:
        if images >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_adapter(*arguments, progress=stop)
    root = root.rename(tmp_path / "moved")
    seen: list[int] = []
    name, _, data, options = arguments
    train_adapter(
        name, toml_of(root, name), data, options, progress=lambda share, images, speed, terms: seen.append(images)
    )
    assert seen == [40]  # not 20 and 40
    assert not list((root / ".cache" / "training").glob("*.pt"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_training_write_a_checkpoint(root: Path, number: signal.Signals) -> None:
    """Also with one job, nothing but a few steps is lost, long before the checkpoint of each minute; the figures of the
    record are those of both parts together."""
    (root / ".git").touch()
    toml, seen = toml_of(root, "lower.v1"), list[int]()
    toml.write_text("[training]\nbatch = 2\nimages = 100\n")
    assert exit_status("lower.v1", toml, MATERIAL, 40, number) == STOPPED
    (state,) = (root / ".cache" / "training").glob("*.pt")
    saved = torch.load(state, weights_only=True)
    assert saved["step"] == 20
    saved |= {"seconds": 500.0, "cpu_seconds": 900.0, "devices": ["CPU, 99 threads"]}
    torch.save(saved, state)
    (outcome,) = trainings(
        {"lower.v1": toml}, MATERIAL, TrainOptions("none"), 1, lambda what, done, total: seen.append(done), root
    )
    record = outcome.record
    assert seen == [60, 80, 100] and record is not None
    assert record.images == 100 and record.steps == 50 and len(record.curve["weight"]) == 5
    assert 500 <= record.seconds < 560 and 900 <= record.cpu_seconds < 960
    assert record.device == f"CPU, 99 threads, then CPU, {torch.get_num_threads()} threads"


def test_a_signal_in_the_last_step_does_not_stop_a_training_that_is_done(root: Path) -> None:
    toml = toml_of(root, "lower.v1")
    toml.write_text("[training]\nbatch = 2\nimages = 20\n")
    _, record = train_adapter("lower.v1", toml, MATERIAL, TrainOptions("none"), should_stop=lambda: True)
    assert record.images == 20 and toml.with_suffix(".safetensors").exists()


def test_what_a_training_depends_on_decides_whether_it_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(root, "lower.v1", monkeypatch)
    toml = toml_of(root, "lower.v1")
    (root / "adapters" / "lower" / "v2.toml").write_text("")
    toml.write_text(f'summary = "other words"\n{toml.read_text()}')
    assert state_of(root, "lower.v1", monkeypatch) == state
    renamed = TrainOptions("another name, 6 images", device="cpu")
    assert state_of(root, "lower.v1", monkeypatch, renamed) == state
    assert state_of(root, "lower.v1", monkeypatch, TrainOptions("some, 7 images")) != state
    assert state_of(root, "lower.v1", monkeypatch, TrainOptions("some, 6 images", changes={"seed": 1})) != state
    toml.write_text(f"{toml.read_text()}[model]\nwidth = 1\n")
    assert state_of(root, "lower.v1", monkeypatch) != state


def test_a_training_does_not_go_on_in_another_precision(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record would name only the second one."""
    found = set[Path]()
    for precision in (torch.float32, torch.bfloat16):
        monkeypatch.setattr("tokbench.training.states.precision_of", lambda device, precision=precision: precision)
        found.add(state_of(root, "lower.v1", monkeypatch))
    assert len(found) == 2


def test_a_base_s_code_is_part_of_a_training(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base imports a part of tokbench.nn that the adapter itself does not import."""
    train_adapter("lower.v1", toml_of(root, "lower.v1"), MATERIAL, TrainOptions("none"))
    before = state_of(root, "upper.v1", monkeypatch)
    code = root / "adapters" / "lower" / "adapter.py"
    code.write_text(f"import tokbench.nn.masks\n{code.read_text()}")
    assert state_of(root, "upper.v1", monkeypatch) != before


def test_only_imported_modules_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "closure_case"
    (package / "parts").mkdir(parents=True)
    texts = {
        "__init__": "",
        "main": "from closure_case.parts import used\n\ndef late():\n    from .parts.lazy import x\n",
        "parts/__init__": "",
        "parts/used": "from . import below\n",
        "parts/below": "",
        "parts/lazy": "x = 1\n",
        "parts/unrelated": "",
    }
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    __import__("closure_case")

    def digest() -> str:
        code_of.cache_clear()
        return code_of_imports(["closure_case.main", "json"], "closure_case.parts")

    first = digest()
    (package / "parts/unrelated.py").write_text("changed = True\n")
    (package / "parts/new.py").write_text("")
    (package / "main.py").write_text(texts["main"] + "# not a part\n")
    assert digest() == first
    for name in ("parts/below", "parts/lazy", "parts/used"):
        before = digest()
        (package / f"{name}.py").write_text(f"{texts[name]}# changed\n")
        assert digest() != before


def test_the_parts_of_tokbench_nn_that_an_adapter_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    names: set[str] = set()
    monkeypatch.setattr("tokbench.tokenizers.import_closure.code_of", lambda file: names.add(file.stem) or "")
    from tokbench.tokenizers.registry import open_variant

    _, module = open_variant("vqgan.f8", ROOT / "adapters" / "vqgan" / "f8.toml")
    code_of_imports([module.__name__], "tokbench.nn")
    assert names >= {"vq", "conv", "trainable", "losses", "tokenizer"}
    assert not names & {"gpt", "maskgit", "prior", "flow", "classifier", "zoo", "loop"}


def test_the_cached_tokens_of_a_prior_depend_on_the_tokenizer_s_parts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokbench.nn.priors import prior as module

    found: list[tuple[str, ...]] = []
    monkeypatch.setattr(module, "encode_images", lambda name, identity, *rest: found.append(identity))
    names: set[str] = set()
    monkeypatch.setattr("tokbench.tokenizers.import_closure.code_of", lambda file: names.add(file.stem) or "")
    tokenizer = load_adapter("vqgan.f8", root=ROOT).model

    class Stub:
        pass

    stub = Stub()
    stub.tokenizer = tokenizer  # type: ignore[attr-defined]
    module.encode_dataset(stub, MATERIAL, "cpu", False, lambda done, total: None)  # type: ignore[arg-type]
    assert len(found) == 1
    assert names >= {"vq", "conv", "tokenizer"} and not names & {"gpt", "maskgit", "prior", "flow", "classifier"}


def test_descriptions_of_data_differ_only_in_the_name() -> None:
    assert content_of(describe_data("a", 1000, "0" * 64)) == content_of(describe_data("b", 1000, "0" * 64))
    assert content_of(describe_data("a", 1000, "0" * 64)) != content_of(describe_data("a", 1000, "1" * 64))


def test_the_cache_command_lists_and_clears_unfinished_trainings(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / ".git").touch()
    monkeypatch.setenv("TOKBENCH_ROOT", str(root))
    for folder, name in ((root / ".cache" / "training", "lower.v1"), (cache_dir() / "training", "other.v2")):
        folder.mkdir(parents=True)
        (folder / f"{name}-0123456789abcdef.pt").write_bytes(bytes(2048))
    features = cache_dir() / "features" / "x" / "1.npz"
    features.parent.mkdir(parents=True)
    features.touch()
    shown = CliRunner().invoke(main, ["cache"]).output
    assert "unfinished trainings: 2" in shown
    assert "  lower.v1: 2 KiB, 0 min ago" in shown and "  other.v2: 2 KiB" in shown
    cleared = CliRunner().invoke(main, ["cache", "clear", "--trainings"])
    assert cleared.exit_code == 0 and "deleted 2 unfinished trainings" in cleared.output
    assert features.exists()
    assert "unfinished trainings: none" in CliRunner().invoke(main, ["cache"]).output


@pytest.mark.slow
def test_trainings_in_other_processes_get_labels_and_captions(root: Path) -> None:
    """They got none, so an adapter that needs captions could be trained with one job only."""
    with (root / "adapters/lower/adapter.py").open("a") as file:
        file.write(
            "_built = model\n"
            "def model(variant):\n"
            "    made = _built(variant)\n"
            "    def prepare_data(data, *others):\n"
            "        (variant.folder / 'seen.txt').write_text(f'{data.labels.tolist()} {data.captions.tolist()}')\n"
            "        return data\n"
            "    made.prepare_data = prepare_data\n"
            "    return made\n"
        )
    data = TrainingData(PIXELS, torch.arange(6), captions=torch.arange(12).view(6, 2))
    planned = {"lower.v1": toml_of(root, "lower.v1")}
    (outcome,) = trainings(planned, data, TrainOptions("none"), 2, lambda *progress: None, root)
    assert outcome.error is None
    seen = (root / "adapters/lower/seen.txt").read_text()
    assert seen == f"{data.labels.tolist()} {data.captions.tolist()}"
