"""Every adapter and network that is trained here, trained for two steps: its loss, its file, its tokenizer."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from checkout import ROOT

from tokbench.data.stream import PairedBatch
from tokbench.data.synthetic.scenes import caption_of, make_scene
from tokbench.data.vocabulary import encode_captions
from tokbench.evaluation.generate import DrawSamples
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.sample_plan import SamplePlan
from tokbench.evaluation.steps import KeepFirst, plain_step
from tokbench.evaluation.tasks import Truncate
from tokbench.metrics.batch import DerivedCache
from tokbench.nn.trainable import TrainingData, padded_boxes
from tokbench.protocol.protocol import load_protocol
from tokbench.timing import parameters
from tokbench.tokenizers.base import Generator, PrecomputedImages
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.registry import load_adapter, network_files, read_variant
from tokbench.tokenizers.training_record import TrainRecord
from tokbench.training.zoo import TrainOptions, dependencies, network, train_adapter, trainable_adapters
from tokbench.weights.shards import LARGEST, shard_paths

pytestmark = pytest.mark.slow

NAMES = [
    name
    for name, toml in trainable_adapters(ROOT).items()
    if read_variant(toml)["model"].get("keep", 0.5) == 0.5
    and not name.startswith("dates_audio.")  # it is trained on recordings: tests/adapters/test_sound_families.py
    and not name.startswith("style_tokenizer.")  # images of 32 px: tests/adapters/test_conditioning_families.py
    and not name.startswith("omnitokenizer.")  # it is trained on clips: tests/adapters/test_omnitokenizer.py
    and read_variant(toml).get("prune_kind") != "clip"  # they are trained on clips: tests/pruning/test_clips.py
    and not name.startswith("kmeans.")  # it needs more patches than a few images have: tests/adapters/test_kmeans.py
    and not name.startswith("vat3d.")  # it is trained on shapes: tests/adapters/test_shape_families.py
    and name != "mini_vlm.icl"  # a prompt has more images than these batches: tests/nn/test_vlm.py
]
LIMIT = 2_000_000
"""Limit for the parameters of one adapter."""
PRIOR = 3_000_000
"""Limit for the parameters of a generator, without its tokenizer."""
LARGER = 6_000_000
"""Limit for the parameters of a classifier whose tokens are reduced."""


class Zoo:
    """A root in which adapters see four images when a test asks for them, each after those that it is built on."""

    def __init__(self, root: Path) -> None:
        self.root, self._records = root, dict[str, TrainRecord]()
        for folder in sorted((ROOT / "adapters").iterdir()):
            ignored = shutil.ignore_patterns("*.safetensors", "*.training.json", "__pycache__")
            shutil.copytree(folder, root / "adapters" / folder.name, ignore=ignored)
        self._files, self._below = trainable_adapters(root), dependencies(root)
        made = torch.Generator().manual_seed(0)
        coarse = torch.rand(4, 3, 8, 8, generator=made)
        pixels = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)
        self._material = TrainingData(
            pixels,
            torch.arange(4),
            captions=encode_captions([caption_of(make_scene("train", 0))] * 4),
            boxes=padded_boxes([[(0, 0.2, 0.2, 0.6, 0.7)]] * 4),
        )

    def trained(self, name: str) -> TrainRecord:
        for one, toml in self._files.items():
            if one not in self._records and one in {name, *self._below[name]}:
                part = read_variant(toml)["training"].get("part", 1)
                options = TrainOptions("four images", changes={"images": round(4 / part), "batch": 2})
                path, self._records[one] = train_adapter(one, toml, self._material, options)
                assert path == toml.with_suffix(".safetensors")
                parts = shard_paths(path)
                assert parts and all(part.stat().st_size <= LARGEST for part in parts)
        return self._records[name]


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_runs(name: str, zoo: Zoo, photos: torch.Tensor) -> None:
    root, record = zoo.root, zoo.trained(name)
    assert record.steps in (2, 0)  # 0: fitted in one pass
    assert all(math.isfinite(curve[-1]) for curve in record.curve.values())
    if name in network_files(root):
        user = AdapterConfig("any", root / "adapters" / "any", {"teacher": name})
        assert parameters(network(user, "teacher")) < (LARGER if name.startswith("vit_") else LIMIT)
        return
    model = load_adapter(name, root=root).model
    if isinstance(model, Generator):
        assert parameters(model.module["prior"]) < PRIOR
        turn = next(iter(SamplePlan("any", load_protocol("tokbench"), 2).batches(2)))
        made = DrawSamples(guidance=1.5).sample(model, turn, RunSettings("cpu", 2, probe=True))
        assert made.image.shape == (2, 3, 64, 64)
        assert (made.tokens.length == model.spec.tokens_at(64, 64)).all()
        return
    own = model.module["model"] if isinstance(model.module, torch.nn.ModuleDict) else model.module
    assert parameters(own) < LIMIT
    assert all(torch.isfinite(value).all() for value in own.state_dict().values())
    pictures = torch.nn.functional.interpolate(photos[:2], (64, 64), mode="area")
    given = PairedBatch(torch.arange(2), ["a", "b"], pictures, captions=["a photo of a goldfish", "a photo of a cat"])
    batch = reconstruct(model, given, plain_step(model), RunSettings("cpu", 2, probe=True), DerivedCache())
    assert batch.image.shape == given.reference.shape
    if isinstance(model, PrecomputedImages):  # a network from images to images
        assert batch.tokens is None
        return
    most = model.spec.tokens_at(64, 64)
    assert (batch.tokens.length <= most).all()
    side = math.log2(most) if model.spec.variable else 0.0
    assert batch.tokens.bits.tolist() == pytest.approx(
        (batch.tokens.length * model.spec.bits_per_token + side).tolist()
    )
    if model.spec.prefixes:
        for step in Truncate().steps(model):
            assert isinstance(step, KeepFirst)
            few = reconstruct(model, given, step, RunSettings("cpu", 2), DerivedCache())
            assert (few.tokens.length <= step.count).all()
