"""Classifiers for token reduction: networks trained in this repository, and timm models."""

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
from tokbench.data.reading import DEFAULTS, ReadOptions
from tokbench.data.sources.patterns import folder_of
from tokbench.data.sources.synthetic import SyntheticSource
from tokbench.data.sources.table import Table
from tokbench.errors import MissingWeights, UsageError
from tokbench.evaluation.seeds import image_seeds
from tokbench.io.hashing import sha256_of
from tokbench.nn.classifier import Classifier
from tokbench.paths import dataset_folders
from tokbench.protocol.protocol import TOKBENCH
from tokbench.pruning.aclip import AClip
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
    """A classifier and its image preparation.

    Images in [0, 1] are resized to a short side of `scaled` px, cropped to `side` px, and normalized by `mean` and
    `std`. weights: SHA-256 by file. training: its training record, empty if it was not trained here. classes: their
    names, None if unknown.
    """

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

    def prepared(self, images: Tensor) -> Tensor:
        """Crop and normalize images (B, 3, S, S) in [0, 1], S = `scaled`; returns (B, 3, side, side)."""
        edge = (images.shape[-1] - self.side) // 2
        cut = images[..., edge : edge + self.side, edge : edge + self.side]
        mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (self.mean, self.std))
        return (cut - mean) / std


def load_classifier(name: str, device: str, root: Path | None = None, allow_download: bool = False) -> ImageClassifier:
    """Load a classifier in eval mode on a device.

    name: a network of adapters/*/network.py; `timm:ARCHITECTURE` with weights from the hub or its cache (downloaded
    only with `allow_download`); or `timm:ARCHITECTURE@FILE` with weights from a file. Raises UsageError for unknown
    names and unsupported networks, MissingWeights without weights.
    """
    classifier = _of_timm(name, allow_download) if name.startswith(PREFIX) else _trained_here(name, root)
    recognise(classifier.vit)
    classifier.vit.to(device).eval().requires_grad_(False)
    return classifier


def _trained_here(name: str, root: Path | None) -> ImageClassifier:
    files = network_files(root)
    if name not in files:
        raise UsageError(
            f"unknown network '{name}'; available: {', '.join(files) or 'none'}, and {PREFIX}ARCHITECTURE[@FILE]"
        )
    variant, network = open_network(name, files[name])
    network = as_classifier(network)
    if type(network) is not Classifier:
        raise UsageError(f"{name} is a {type(network).__name__}, not a classifier whose tokens can be reduced")
    side = image_side(network.vit)
    weights = {path.name: sha256_of(path) for path in shard_paths(variant.file)}
    half = (0.5, 0.5, 0.5)
    return ImageClassifier(
        name, network.vit, side, side, half, half, weights=weights, training=read_record(files[name])
    )


def as_classifier(network: nn.Module) -> nn.Module:
    """Return the network, or the zero-shot classifier of one that was trained with captions."""
    return network.zero_shot() if isinstance(network, AClip) else network


def image_side(vit: Any) -> int:
    return int(vit.patch_embed.img_size[0])


def timm_library() -> Any:
    """Import timm. Raises UsageError if it is not installed."""
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise UsageError(f"token reduction needs timm ({error}); pip install 'tokbench[prune]'") from error


def _of_timm(name: str, allow_download: bool) -> ImageClassifier:
    timm = timm_library()
    architecture, _, path = name.removeprefix(PREFIX).partition("@")
    if not timm.is_model(architecture):
        raise UsageError(f"timm {timm.__version__} has no model '{architecture}'; see timm.list_models()")
    if path:
        vit, weights = _from_file(timm, architecture, Path(path).expanduser())
    else:
        vit, weights = _from_hub(timm, architecture, allow_download)
    data_config = timm.data.resolve_model_data_config(vit)
    side = data_config["input_size"][-1]
    scaled = int(side / data_config["crop_pct"])
    mean, std, kind = tuple(data_config["mean"]), tuple(data_config["std"]), data_config["interpolation"]
    if kind not in ("bicubic", "bilinear"):
        raise UsageError(f"{name} needs images resized with '{kind}'; supported are bicubic and bilinear")
    return ImageClassifier(name, vit, side, scaled, mean, std, kind, weights, classes=_class_names(timm, vit))


def _class_names(timm: Any, vit: nn.Module) -> ClassNames | None:
    """Return the WordNet ids of the ImageNet subset with the model's number of classes; None if there is none."""
    subset = timm.data.infer_imagenet_subset(vit)
    return ClassNames(timm.data.ImageNetInfo(subset).label_names(), f"timm's {subset}") if subset else None


def _from_file(timm: Any, architecture: str, path: Path) -> tuple[nn.Module, dict[str, str]]:
    if not path.is_file():
        raise MissingWeights(f"{architecture}: weights file {path} not found")
    vit = timm.create_model(architecture, pretrained=False)
    found = LocalWeights(path, WeightFile(path.name, "", f"of timm's {architecture}"), sha256_of(path))
    state = read_state(architecture, found, inside=("model", "state_dict"))  # keys used by the files of DeiT and EViT
    load_strict(architecture, vit, state, found, assign=False)
    return vit, {path.name: found.sha256}


def _from_hub(timm: Any, architecture: str, allow_download: bool) -> tuple[nn.Module, dict[str, str]]:
    hub: Any = importlib.import_module("huggingface_hub.constants")
    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = before or not allow_download
    try:
        vit = timm.create_model(architecture, pretrained=True)
    except Exception as error:  # the hub, the network and file readers raise many exception types
        remedy = "check that it exists on the hub" if allow_download else "use --allow-download or timm:NAME@FILE"
        raise MissingWeights(f"{architecture}: no weights ({str(error).splitlines()[0][:150]}); {remedy}") from error
    finally:
        hub.HF_HUB_OFFLINE = before
    return vit, {}


@dataclass
class LabelledImages:
    """A dataset with labels, prepared for a classifier."""

    dataset: Dataset
    labels: Labels
    classifier: ImageClassifier

    def batches(self, batch_size: int, device: str) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield positions (B,), seeds (B,), prepared images (B, 3, side, side) and labels (B,)."""
        reader = self.dataset.batches(batch_size)
        for images in reader:
            reader.prefetch()
            seeds = torch.tensor(image_seeds(0, images.index.tolist(), 1))
            labels = torch.tensor([self.labels.by_name[name] for name in images.names])
            yield images.index, seeds, self.classifier.prepared(images.reference.to(device)), labels


def open_labelled(
    data: str,
    classifier: ImageClassifier,
    limit: int | None,
    root: Path | None = None,
    reading: ReadOptions = DEFAULTS,
) -> LabelledImages:
    """Open a dataset with labels for a classifier.

    Raises DataError if it has no labels, or labels that cannot be those of the network (see `tokbench.data.labels`).
    """
    protocol = (
        TOKBENCH
        if classifier.filter == TOKBENCH.filter
        else TOKBENCH.with_changes("tokbench", filter=classifier.filter)
    )
    dataset = open_dataset(data, protocol, classifier.scaled, limit, root, reading)
    classes = recognise(classifier.vit).sizes.classes
    # The labels of Parquet files and of drawn images are integers and need no names.
    column = isinstance(dataset.source, Table | SyntheticSource)
    listed = None if column else listed_classes(dataset, _location(data, root))
    return LabelledImages(dataset, find_labels(dataset, classes, classifier.classes, listed), classifier)


def _location(data: str, root: Path | None) -> Path | None:
    """Return the folder or file of the images; None if a manifest lists them."""
    folders = dataset_folders(root)
    if data not in folders:
        return folder_of(data)
    described = describe(folders[data])
    found = [] if "manifest" in described else locate(described.get("folder", data), described)
    return found[0] if found else None
