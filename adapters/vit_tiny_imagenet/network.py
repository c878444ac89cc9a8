"""vit_tiny_imagenet: classifiers of 200 classes at 64 px, and what token-reduction methods train on top of them."""

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
    given = dict(variant.config["model"])
    kind = given.pop("kind")
    if kind not in ("dense", "slimmed", "rates"):
        raise AdapterError(f"{variant.name}: [model] kind = {kind!r}; it is dense, slimmed or rates")
    if "base" not in variant.config:
        return Classifier(VisionTransformer(num_classes=given["classes"], **given["vit"]), given["classes"])
    whole = network(variant, "base")
    if kind == "dense":  # the same, trained on
        return Classifier(copy.deepcopy(whole.vit).requires_grad_(True), whole.classes)
    return Slimmed(whole, **given) if kind == "slimmed" else RateSearch(whole, **given)
