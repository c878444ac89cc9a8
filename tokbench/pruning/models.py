"""The transformers whose tokens are reduced: trained here, or timm's with weights that users have."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokbench.data.dataset import Dataset, open_dataset
from tokbench.data.dataset_folder import describe, locate
from tokbench.data.labels import ClassNames, Labels, find_labels, listed_classes
from tokbench.data.sources.open import folder_of
from tokbench.data.sources.parquet import Parquet
from tokbench.errors import MissingWeights, UsageError
from tokbench.evaluation.seeds import image_seeds
from tokbench.io.hashing import sha256_of
from tokbench.nn.classifier import Classifier
from tokbench.paths import dataset_folders
from tokbench.protocol.protocol import TOKBENCH
from tokbench.pruning.vit import recognise
from tokbench.tokenizers.registry import network_files
from tokbench.tokenizers.training_record import read_record
from tokbench.training.zoo import open_network
from tokbench.weights.registry import LocalWeights, WeightFile
from tokbench.weights.shards import shard_paths
from tokbench.weights.state_dict import load_strict, read_state

PREFIX = "timm:"


@dataclass(frozen=True)
class ImageClassifier:
    """A classifier and how it wants its images: short side scaled to `scaled`, centre crop of `side` px, then less
    `mean` and over `std`, of values in [0, 1]. weights: sha256 by file; training: what it was, where it was here;
    classes: their names, where they are known."""

    name: str
    vit: nn.Module
    side: int
    scaled: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    filter: str = "bicubic"
    weights: dict[str, str] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    classes: ClassNames | None = None

    @property
    def short(self) -> bool:
        """Whether it was trained here too briefly for its accuracy to mean anything."""
        return self.training.get("recipe", {}).get("profile") == "cpu"

    def prepared(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1], S = `scaled`, as the network wants them."""
        edge = (images.shape[-1] - self.side) // 2
        cut = images[..., edge : edge + self.side, edge : edge + self.side]
        mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (self.mean, self.std))
        return (cut - mean) / std


def load_subject(name: str, device: str, root: Path | None = None, allow_download: bool = False) -> ImageClassifier:
    """A network of adapters/*/network.py by its name; or timm's, as `timm:ARCHITECTURE` with weights from the hub
    (downloaded with `allow_download`, or from its cache) or `timm:ARCHITECTURE@FILE` with those of a file.

    Raises UsageError for unknown names and for networks that are not recognised, MissingWeights without weights.
    """
    made = _of_timm(name, allow_download) if name.startswith(PREFIX) else _trained_here(name, root)
    recognise(made.vit)
    made.vit.to(device).eval().requires_grad_(False)
    return made


def _trained_here(name: str, root: Path | None) -> ImageClassifier:
    files = network_files(root)
    if name not in files:
        raise UsageError(
            f"no network '{name}'; there are {', '.join(files) or 'none'}, and {PREFIX}ARCHITECTURE[@FILE]"
        )
    variant, network = open_network(name, files[name])
    if type(network) is not Classifier:
        raise UsageError(f"{name} is no classifier whose tokens could be reduced, but a {type(network).__name__}")
    side = recognised_side(network.vit)
    weights = {path.name: sha256_of(path) for path in shard_paths(variant.file)}
    half = (0.5, 0.5, 0.5)
    return ImageClassifier(
        name, network.vit, side, side, half, half, weights=weights, training=read_record(files[name])
    )


def recognised_side(vit: Any) -> int:
    return int(vit.patch_embed.img_size[0])


def timm_library() -> Any:
    """Raises UsageError where timm is not installed."""
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise UsageError(f"needs timm ({error}); pip install 'tokbench[prune]'") from error


def _of_timm(name: str, allow_download: bool) -> ImageClassifier:
    timm = timm_library()
    architecture, _, path = name.removeprefix(PREFIX).partition("@")
    if not timm.is_model(architecture):
        raise UsageError(f"timm {timm.__version__} has no model '{architecture}'; timm.list_models() names them")
    if path:
        vit, weights = _from_file(timm, architecture, Path(path).expanduser())
    else:
        vit, weights = _from_hub(timm, architecture, allow_download)
    told = timm.data.resolve_model_data_config(vit)
    side = told["input_size"][-1]
    scaled = int(side / told["crop_pct"])
    mean, std, kind = tuple(told["mean"]), tuple(told["std"]), told["interpolation"]
    if kind not in ("bicubic", "bilinear"):
        raise UsageError(f"{name} wants its images scaled with '{kind}'; there are bicubic and bilinear")
    return ImageClassifier(name, vit, side, scaled, mean, std, kind, weights, classes=_class_names(timm, vit))


def _class_names(timm: Any, vit: nn.Module) -> ClassNames | None:
    """The WordNet ids of the ImageNet set that has as many classes; None where there is none."""
    subset = timm.data.infer_imagenet_subset(vit)
    return ClassNames(timm.data.ImageNetInfo(subset).label_names(), f"timm's {subset}") if subset else None


def _from_file(timm: Any, architecture: str, path: Path) -> tuple[nn.Module, dict[str, str]]:
    if not path.is_file():
        raise MissingWeights(f"{architecture}: no weights file {path}")
    vit = timm.create_model(architecture, pretrained=False)
    found = LocalWeights(path, WeightFile(path.name, "", f"of timm's {architecture}"), sha256_of(path))
    state = read_state(architecture, found, inside=("model", "state_dict"))  # as DeiT's and EViT's own files
    load_strict(architecture, vit, state, found, assign=False)
    return vit, {path.name: found.sha256}


def _from_hub(timm: Any, architecture: str, allow_download: bool) -> tuple[nn.Module, dict[str, str]]:
    hub: Any = importlib.import_module("huggingface_hub.constants")
    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = before or not allow_download
    try:
        vit = timm.create_model(architecture, pretrained=True)
    except Exception as error:  # hub, network and readers raise many classes
        remedy = "see whether it is on the hub" if allow_download else "give --allow-download, or timm:NAME@FILE"
        raise MissingWeights(f"{architecture}: no weights ({str(error).splitlines()[0][:150]}); {remedy}") from error
    finally:
        hub.HF_HUB_OFFLINE = before
    return vit, {}


@dataclass
class Labelled:
    """A data set with labels, as a subject wants it."""

    dataset: Dataset
    labels: Labels
    subject: ImageClassifier

    def batches(self, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Positions (B,), seeds (B,), images ready for the network, labels (B,)."""
        reader = self.dataset.batches(batch_size)
        for images in reader:
            reader.prefetch()
            seeds = torch.tensor(image_seeds(0, images.index.tolist(), 1))
            labels = torch.tensor([self.labels.by_name[name] for name in images.names])
            yield images.index, seeds, self.subject.prepared(images.reference.to(device)), labels


def open_labelled(
    data: str, subject: ImageClassifier, limit: int | None, root: Path | None = None, split: str | None = None
) -> Labelled:
    """Raises DataError where the data set has no labels, or such as cannot be the network's
    (`tokbench.data.labels`)."""
    protocol = (
        TOKBENCH if subject.filter == TOKBENCH.filter else TOKBENCH.with_changes("tokbench", filter=subject.filter)
    )
    dataset = open_dataset(data, protocol, subject.scaled, limit, root, split=split)
    classes = recognise(subject.vit).sizes.classes
    column = isinstance(dataset.source, Parquet)  # which needs no names
    listed = None if column else listed_classes(dataset, _place(data, root))
    return Labelled(dataset, find_labels(dataset, classes, subject.classes, listed), subject)


def _place(data: str, root: Path | None) -> Path | None:
    """The folder or file that holds the images; None where a manifest lists them."""
    folders = dataset_folders(root)
    if data not in folders:
        return folder_of(data)
    described = describe(folders[data])
    found = [] if "manifest" in described else locate(described.get("folder", data), described)
    return found[0] if found else None
