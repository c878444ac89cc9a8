"""Authors' own checkpoints, by stand-ins: packages with the authors' names, calls and file layout, tiny networks inside
(tests/stand_ins, each file after one of a repository at a commit). No real checkpoint is here."""

from __future__ import annotations

import importlib
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
from checkout import ROOT
from safetensors.torch import save_file
from torch import Tensor

from tokbench.cli.listing import adapters, weight_details
from tokbench.data.stream import PairedBatch
from tokbench.errors import AdapterError, MissingWeights, UsageError
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import plain_step
from tokbench.io.hashing import sha256_of
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.registry import LoadedAdapter, adapter_files, load_adapter, read_variant
from tokbench.tokenizers.third_party import import_upstream, tensors
from tokbench.weights.registry import WeightFile, add

Streams = dict[str, tuple[tuple[int, ...], int | None]]

CASES: dict[str, tuple[str, Streams, float]] = {
    "titok.official-l32": ("1d-tokenizer", {"codes": ((32,), 4096)}, 32 * 12),
    "titok.official-bl128-vae": ("1d-tokenizer", {"latents": ((16, 1, 128), None)}, 128 * 16 * 16),
    "one_d_piece.official-s256": ("One-D-Piece", {"codes": ((256,), 4096)}, 256 * 12),
    "wetok.official-ratio48": ("WeTok", {"codes": ((32, 32, 4), 256)}, 32 * 32 * 32),
    "wetok.official-ratio768": ("WeTok", {"codes": ((8, 8, 4), 256)}, 8 * 8 * 32),
    "vitok.official-350m-f16x64": ("vitok-release", {"latents": ((16, 16, 64), None)}, 256 * 64 * 16),
    "gigatok.official-ss": ("GigaTok", {"codes": ((256,), 16384)}, 256 * 14),
    "tokenbridge.official-b6": ("TokenBridge", {"codes": ((16, 16, 16), 64)}, 256 * 96),
    "fqgan.official-dual-f16": ("FQGAN", dict.fromkeys(("semantic", "visual"), ((16, 16), 16384)), 2 * 256 * 14),
    "fqgan.official-triple-f16": ("FQGAN", dict.fromkeys(("visual", "middle", "high"), ((16, 16), 16384)), 768 * 14),
    "karl.official-small": ("karl", {"codes": ((256,), 4096), "kept": ((256,), 2)}, math.nan),
    "robustok.official-xqgan8192": ("RobusTok", {"codes": ((16, 16), 8192)}, 256 * 13),
    "illume_plus.official-any512": (
        "illume",
        {"semantic": ((9, 9), 32768), "pixel": ((16, 16), 98304)},
        81 * 15 + 256 * math.log2(98304),
    ),
    "tokenflow.official-clipb": ("TokenFlow", {"codes": ((817,), 32768)}, 817 * 15),
    "hita.official-v": ("Hita", {"holistic": ((128,), 16384), "local": ((21, 21), 16384)}, 569 * 14),
    "meditok.official-simple-v1": ("meditok", {"codes": ((16, 16, 8), 4096)}, 256 * 96),
    "flextok.official-d18-d28": ("ml-flextok", {"codes": ((256,), 64000)}, 256 * math.log2(64000)),
    "rectok.official-decft": ("RecTok", {"latents": ((16, 16, 128), None)}, 256 * 128 * 16),
    "uniflow.official-internvit": ("UniFlow", {"latents": ((32, 32, 64), None)}, 1024 * 64 * 16),
    "seed.official-v2": ("SEED", {"codes": ((32,), 8192)}, 32 * 13),
    "vtp.official-small": ("VTP", {"latents": ((16, 16, 64), None)}, 256 * 64 * 16),
}
"""Repository, streams with the shape and codebook of an image's, and bits."""
NOISY = {
    "flextok.official-d18-d28",
    "seed.official-v2",
    "uniflow.official-internvit",
    "wetok.official-ratio768",
}
"""Their decoders draw noise."""


COPIED = {"One-D-Piece": ("1d-tokenizer",)}
"""Repositories that began as copies of others: turingmotors/One-D-Piece at 473665d has 1d-tokenizer's titok.py."""


@pytest.fixture
def path(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Puts a stand-in repository onto the Python path; none of its modules outlives the test."""
    tops: set[str] = set()

    def put(repository: str) -> Path:
        folder = tmp_path / "code" / repository
        for part in (*COPIED.get(repository, ()), repository):
            shutil.copytree(root / "tests" / "stand_ins" / part, folder, dirs_exist_ok=True)
        monkeypatch.syspath_prepend(folder)
        tops.update(entry.stem for entry in folder.iterdir())
        return folder

    monkeypatch.setenv("TOKBENCH_WEIGHTS", str(tmp_path / "weights"))
    yield put
    for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
        del sys.modules[name]


@pytest.fixture
def ready(path: Callable[[str], Path], root: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Puts a stand-in and a checkpoint of random weights where they belong; gives the checkpoint's path."""

    def make(name: str) -> Path:
        path(CASES[name][0])
        config = read_variant(adapter_files(root)[name])
        torch.manual_seed(0)
        stand_in = importlib.import_module("stand_in")
        for key, held in stand_in.files(config["official"]).items():
            target = tmp_path / "weights" / config["weights"][key][0]["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.suffix == ".json":
                target.write_text(json.dumps(held))
            elif target.suffix == ".safetensors":
                save_file(held, target, getattr(stand_in, "METADATA", None))
            else:
                torch.save(held, target)
        return target

    return make


def run(loaded: LoadedAdapter, images: Tensor, seed: int = 0, batch_size: int = 16) -> Batch:
    given = PairedBatch(torch.arange(len(images)), [f"image{i}" for i in range(len(images))], images)
    return reconstruct(
        loaded.model,
        given,
        plain_step(loaded.model),
        RunSettings("cpu", batch_size, seed, probe=batch_size > 1),
        DerivedCache(),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_through_the_suite(name: str, ready: Callable[[str], Path], root: Path, photos: Tensor) -> None:
    file = ready(name)
    loaded = load_adapter(name, root=root)
    side = min(256, loaded.model.spec.size or 256)  # larger images would be processed in tiles
    images = photos[:2, :, :side, :side]
    batch, again, alone = run(loaded, images), run(loaded, images), run(loaded, images, batch_size=1)
    _, streams, bits = CASES[name]
    assert {
        key: (stream.data.shape[1:], stream.codebook_size) for key, stream in batch.tokens.streams.items()
    } == streams
    assert batch.image.shape == images.shape
    assert torch.equal(batch.image, again.image)
    assert (batch.image - alone.image).abs().max() < 1e-4
    assert not torch.equal(batch.image[0], batch.image[1])
    if not loaded.model.spec.variable:
        assert batch.tokens.bits.tolist() == pytest.approx([bits] * 2)
        assert batch.tokens.length.tolist() == [loaded.model.spec.tokens_at(side, side)] * 2
    assert any(entry.endswith(".py") for entry in loaded.weights)
    assert next(digest for entry, digest in loaded.weights.items() if entry.endswith(file.name)) == sha256_of(file)
    assert torch.equal(run(loaded, images, seed=1).image, batch.image) != (name in NOISY)


@pytest.mark.parametrize("name", ["one_d_piece.official-s256", "flextok.official-d18-d28"])
def test_the_first_tokens_decode_too(name: str, ready: Callable[[str], Path], root: Path, photos: Tensor) -> None:
    ready(name)
    model = load_adapter(name, root=root).model
    assert isinstance(model, Tokenizer) and model.spec.prefixes
    low, high = model.spec.range
    with torch.inference_mode():
        tokens = model.encode(photos[:1] * (high - low) + low)
        few = type(tokens).from_indices(tokens.tensor[:, :8], model.spec.codebook["codes"])
        assert model.decode(few, [0]).shape == (1, 3, 256, 256)
        assert not torch.equal(model.decode(few, [0]), model.decode(tokens, [0]))


def test_karl_sends_only_what_does_not_halt(ready: Callable[[str], Path], root: Path, photos: Tensor) -> None:
    ready("karl.official-small")
    model = load_adapter("karl.official-small", root=root).model
    assert isinstance(model, Tokenizer)
    with torch.inference_mode():
        tokens = model.encode(photos[:3])
        codes, kept = tokens.streams["codes"].data, tokens.streams["kept"].data
        assert isinstance(codes, Tensor) and isinstance(kept, Tensor)
        assert torch.equal(tokens.length, kept.sum(1)) and 0 < int(tokens.length.min()) < 256
        assert all(not row[int(count) :].any() for row, count in zip(codes, tokens.length, strict=True))
        assert tokens.bits.tolist() == [12.0 * int(count) + 256 for count in tokens.length]
        # What follows the kept codes is not looked at, where they stand is.
        image = model.decode(tokens.select([0]), [0])
        codes[0, int(tokens.length[0]) :] = 7
        assert torch.equal(model.decode(tokens.select([0]), [0]), image)
        kept[0] = kept[0].roll(1)
        assert not torch.equal(model.decode(tokens.select([0]), [0]), image)


def test_tokenbridge_has_the_authors_bins(ready: Callable[[str], Path], root: Path, photos: Tensor) -> None:
    """Against reconstruction.py's rule, written out: every distance, the nearest of 64 truncated means."""
    from scipy.stats import norm

    ready("tokenbridge.official-b6")
    model = load_adapter("tokenbridge.official-b6", root=root).model
    assert isinstance(model, Tokenizer)
    with torch.inference_mode():
        images = photos[:2] * 2 - 1
        latents = model.module["vae"].encode(images).mode() * 0.2325  # type: ignore[index]
        found = model.encode(images).tensor
    edges = norm.ppf([i / 64 for i in range(65)]).clip(-3, 3)
    values = torch.tensor((norm.pdf(edges[:-1]) - norm.pdf(edges[1:])) / (norm.cdf(edges[1:]) - norm.cdf(edges[:-1])))
    distances = ((latents * 0.6).clamp(-3, 3)[..., None].double() - values).abs()
    assert torch.equal(distances.argmin(-1).permute(0, 2, 3, 1), found)
    assert (latents.abs() > 1).any()


OFFICIAL = [name for name in adapter_files(ROOT) if ".official-" in name]


@pytest.mark.parametrize("name", OFFICIAL)
def test_missing_code_is_named(name: str, root: Path) -> None:
    given = read_variant(adapter_files(root)[name])
    with pytest.raises(MissingWeights) as caught:
        load_adapter(name, root=root)
    first = next(iter(given["weights"].values()))[0]
    parts = (given["official"]["repository"], given["official"]["commit"], "pip install", first["file"], first["get"])
    assert all(part in str(caught.value) for part in (name, *parts, "not on the Python path", "tokbench weights add"))
    assert given["summary"].startswith(f"authors' checkpoint; needs {given['official']['repository']}")
    assert any(line.startswith(name) and "authors' checkpoint; needs" in line for line in adapters(root, every=True))


@pytest.mark.parametrize("name", CASES)
def test_missing_weights_are_named(name: str, path: Callable[[str], Path], root: Path, tmp_path: Path) -> None:
    path(CASES[name][0])
    first = next(iter(read_variant(adapter_files(root)[name])["weights"].values()))[0]
    with pytest.raises(MissingWeights) as caught:
        load_adapter(name, root=root)
    parts = (name, first["file"], first["get"], str(tmp_path / "weights"), "tokbench weights add")
    assert all(part in str(caught.value) for part in parts)


def test_what_the_code_imports_may_be_missing(path: Callable[[str], Path], root: Path) -> None:
    (path("TokenBridge") / "models" / "vae.py").write_text("import no_such_library\n")
    with pytest.raises(MissingWeights, match=r"No module named 'no_such_library'.*pip install"):
        load_adapter("tokenbridge.official-b6", root=root)


def test_another_repository_s_package(path: Callable[[str], Path], root: Path) -> None:
    place = path("1d-tokenizer")
    with pytest.raises(
        MissingWeights, match=r"'modeling' was imported from .*evaluate the two in separate commands"
    ) as caught:
        load_adapter("one_d_piece.official-s256", root=root)
    assert str(place) in str(caught.value)
    assert str(place) not in caught.value.public_reason


def test_other_tensors_are_refused(ready: Callable[[str], Path], root: Path) -> None:
    file = ready("tokenbridge.official-b6")
    torch.save({"model": {"quant_conv.weight": torch.zeros(2)}}, file)
    with pytest.raises(MissingWeights, match=r"lacks .*has another shape in quant_conv\.weight"):
        load_adapter("tokenbridge.official-b6", root=root)
    file.write_bytes(b"damaged")
    with pytest.raises(MissingWeights, match="damaged"):
        load_adapter("tokenbridge.official-b6", root=root)


UNUSED = {
    "karl.official-small": {"gan_losses.": 1},
    "rectok.official-decft": {"sem_decoders.": 1},
    "meditok.official-simple-v1": {"fc_norm.": 2, "projection.": 2, "logit_scale": 1},
    "robustok.official-xqgan8192": {"semantic_model.": 1},
    "vitok.official-350m-f16x64": {},
}


@pytest.mark.parametrize("name", UNUSED)
def test_tensors_that_only_training_needs_are_counted(name: str, ready: Callable[[str], Path], root: Path) -> None:
    ready(name)
    loaded = load_adapter(name, root=root)
    assert loaded.unused == UNUSED[name]
    assert loaded.in_part == {}


def test_what_an_adapter_does_not_take_of_a_file_is_counted(ready: Callable[[str], Path], root: Path) -> None:
    """WeTok's file holds each tensor twice, as it is and averaged, and two more: the step's decay and a loss's."""
    file = ready("wetok.official-ratio48")
    held = torch.load(file, weights_only=True)["state_dict"]
    averaged = [name for name in held if name.startswith("model_ema.") and name != "model_ema.decay"]
    loaded = load_adapter("wetok.official-ratio48", root=root)
    name = next(iter(read_variant(adapter_files(root)["wetok.official-ratio48"])["weights"].values()))[0]["file"]
    assert loaded.unused == {name: len(held) - len(averaged)}


@pytest.mark.parametrize("name", CASES)
def test_the_authors_code_is_part_of_the_identity(name: str, ready: Callable[[str], Path], root: Path) -> None:
    """Any of their files that the adapter imports, in whatever way."""
    ready(name)
    used = load_adapter(name, root=root).used
    assert used is not None
    again = load_adapter(name, root=root).used
    assert used == again
    code = [module for module in sys.modules.values() if "/code/" in (getattr(module, "__file__", None) or "")]
    tops = {module.__name__.partition(".")[0] for module in code} - {"stand_in"}
    assert tops
    assert set(used.modules) == tops
    for module in code:
        if module.__name__ == "stand_in" or not module.__file__:
            continue
        Path(module.__file__).write_bytes(Path(module.__file__).read_bytes() + b"\n")
    for top in tops | {"stand_in"}:
        for module in [module for module in sys.modules if f"{module}.".startswith(f"{top}.")]:
            del sys.modules[module]
    changed = load_adapter(name, root=root).used
    assert changed is not None
    assert all(changed.modules[top] != used.modules[top] for top in tops)


class Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harm"),)


def test_a_pickle_runs_nothing(ready: Callable[[str], Path], root: Path, tmp_path: Path) -> None:
    file = ready("tokenbridge.official-b6")
    torch.save({"model": {}, "options": Harm()}, file)
    with chdir(tmp_path), pytest.raises(MissingWeights, match=r"could execute code.*convert it to kl16\.safe"):
        load_adapter("tokenbridge.official-b6", root=root)
    assert not (tmp_path / "harm").exists()
    torch.save({"model": [1, 2]}, file)
    with pytest.raises(MissingWeights, match="no state dict of named tensors, nor in its model"):
        load_adapter("tokenbridge.official-b6", root=root)


def test_the_converted_file_will_do(ready: Callable[[str], Path], root: Path, photos: Tensor) -> None:
    file = ready("gigatok.official-ss")
    image = run(load_adapter("gigatok.official-ss", root=root), photos[:2]).image
    state = torch.load(file, weights_only=False)["ema"]
    save_file({key: value.contiguous() for key, value in state.items()}, file.with_suffix(".safetensors"))
    file.unlink()
    assert torch.equal(run(load_adapter("gigatok.official-ss", root=root), photos[:2]).image, image)


@pytest.mark.parametrize("target", ["os.system", "flextok.vae_wrapper.os.system", "flextok.vae_wrapper.torch"])
def test_flextok_s_config_calls_nothing_else(target: str, ready: Callable[[str], Path], root: Path) -> None:
    file = ready("flextok.official-d18-d28")
    config = {**sys.modules["stand_in"].METADATA, "encoder": str({"module_dict": [{"_target_": target}]})}
    save_file({"a": torch.zeros(1)}, file, config)
    with pytest.raises(AdapterError, match=r"calls '.*', not a part of FlexTok"):
        load_adapter("flextok.official-d18-d28", root=root)


def test_flextok_s_own_vae_is_not_downloaded(ready: Callable[[str], Path], root: Path) -> None:
    file = ready("flextok.official-d18-d28")
    config = {**sys.modules["stand_in"].METADATA, "vae": str({"hf_hub_path": "EPFL-VILAB/flextok_vae_c16"})}
    save_file({"a": torch.zeros(1)}, file, config)
    with pytest.raises(MissingWeights, match=r"needs its VAE.*flextok_vae_c16"):
        load_adapter("flextok.official-d18-d28", root=root)


def test_a_file_without_a_published_hash_is_known_by_its_name(tmp_path: Path, private_cache: Path) -> None:
    known = [WeightFile("hub/model.safetensors", "", "the hub"), WeightFile("other.pth", "ab" * 32, "elsewhere")]
    file = tmp_path / "hub" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"anything")
    assert add(file, known) == private_cache / "weights" / "hub" / "model.safetensors"
    moved = file.rename(tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="which no network here uses"):
        add(moved, known)


@pytest.mark.finds
def test_unpublished_hashes_are_reported(root: Path) -> None:
    assert any("kl16.ckpt  sha256 not published" in line for line in weight_details(root))


def test_code_and_weights_are_hashed(ready: Callable[[str], Path], root: Path) -> None:
    file = ready("tokenbridge.official-b6")
    toml = adapter_files(root)["tokenbridge.official-b6"]
    variant = AdapterConfig("tokenbridge.official-b6", toml.parent, read_variant(toml))
    module = import_upstream(variant, "models.vae")
    assert variant.found["models"].path == Path(str(module.__file__)).parent
    assert len(variant.found["models"].sha256) == 64
    state, found = tensors(variant, "vae", ("model",))
    assert found.path == file and set(state) == {*module.AutoencoderKL(16, (1, 1, 2, 2, 4)).state_dict()}
