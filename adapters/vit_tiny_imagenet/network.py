"""vit_tiny_imagenet: classifiers of 200 classes at 64 px, and models that token-reduction methods train from them."""

from __future__ import annotations

import copy

from timm.models.vision_transformer import VisionTransformer

from tokbench.errors import AdapterError
from tokbench.nn.classifier import Classifier
from tokbench.nn.trainable import Trainable
from tokbench.pruning.distil import Slimmed
from tokbench.pruning.search import RateSearch
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import network


def model(variant: AdapterConfig) -> Trainable:
    """Build the model that a TOML file describes, from its trained `base` if there is one.

    Raises AdapterError for an unknown kind, MissingWeights if the base is not trained.
    """
    given = dict(variant.config["model"])
    kind = given.pop("kind")
    if kind not in ("dense", "slimmed", "rates"):
        raise AdapterError(f"{variant.name}: [model] kind = {kind!r}; it must be dense, slimmed or rates")
    if "base" not in variant.config:
        return Classifier(VisionTransformer(num_classes=given["classes"], **given["vit"]), given["classes"])
    base = network(variant, "base")
    if kind == "dense":  # training of the base continues
        return Classifier(copy.deepcopy(base.vit).requires_grad_(True), base.classes)
    return Slimmed(base, **given) if kind == "slimmed" else RateSearch(base, **given)
