"""vit_tiny_imagenet: classifiers of 200 classes at 64 px, and what token-reduction methods train on top of them."""

from __future__ import annotations

from timm.models.vision_transformer import VisionTransformer

from tokbench.errors import AdapterError
from tokbench.nn.classifier import Classifier
from tokbench.nn.trainable import Trainable
from tokbench.pruning.distil import Slimmed
from tokbench.pruning.search import RateSearch
from tokbench.training import network
from tokbench.variant import Variant


def model(variant: Variant) -> Trainable:
    given = dict(variant.config["model"])
    kind = given.pop("kind")
    if kind == "dense":
        vit = VisionTransformer(num_classes=given["classes"], **given["vit"])
        return Classifier(vit, given["classes"])
    if kind not in ("slimmed", "rates"):
        raise AdapterError(f"{variant.name}: [model] kind = {kind!r}; it is dense, slimmed or rates")
    whole = network(variant, "base")
    return Slimmed(whole, **given) if kind == "slimmed" else RateSearch(whole, **given)
