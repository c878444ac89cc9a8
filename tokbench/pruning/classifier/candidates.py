"""Resolution of METHOD names to candidates: ways to run a classifier."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokbench.errors import MissingWeights, UsageError
from tokbench.io.hashing import sha256_of
from tokbench.nn.classifier import Classifier
from tokbench.pruning.claims import claims_of_network
from tokbench.pruning.classifier.measure import Candidate
from tokbench.pruning.classifier.models import ImageClassifier, as_classifier
from tokbench.pruning.diffrate import DEIT_S, DiffRate, Rates
from tokbench.pruning.distil import Slimmed
from tokbench.pruning.flops import counts_of, flops
from tokbench.pruning.kind_names import CLASSIFIER
from tokbench.pruning.methods import METHODS, TRAINED
from tokbench.pruning.pruner import Pruner, budget
from tokbench.pruning.resolution import LowerResolution
from tokbench.pruning.search import RateSearch
from tokbench.pruning.vit import Sizes, recognise
from tokbench.tokenizers.registry import network_files, read_variant
from tokbench.tokenizers.training_record import read_record
from tokbench.training.zoo import open_network
from tokbench.weights.shards import shard_paths

CONTROLS = ("lower_resolution",)
"""Controls besides random and strided: baselines that a method should outperform."""
NUMBERS = ("top1",)
"""Fields of a row that claims are about."""
KINDS = {"diffrate": "rates", "sit_slim": "slimmed"}
"""The [model] kind in the TOML file of a network trained for a method, by method."""


def known(root: Path | None = None) -> list[str]:
    """Return all METHOD names of `tokbench prune`, except networks outside the root."""
    variants = {name: read_variant(toml) for name, toml in network_files(root).items()}
    own = [name for name, one in variants.items() if _kind(one) == "dense" or one.get("prune_kind") == CLASSIFIER]
    return [*METHODS, *TRAINED, *CONTROLS, *own]


def candidates_of(
    name: str,
    classifier: ImageClassifier,
    keeps: Sequence[float],
    device: str,
    rates: str | None = None,
    root: Path | None = None,
) -> Iterator[Candidate]:
    """Yield one candidate per keep, or a single one for networks and rates with a fixed cost.

    name: a method, a control, or a trained network as a control. rates: a JSON file of DiffRate's rates, or "deit_s"
    for the published ones. Raises UsageError for unknown names and MissingWeights if the method is not trained.
    """
    if name in METHODS:
        pruner = METHODS[name]()
        for keep in keeps:
            yield Candidate(name, pruner.title, keep, classifier.vit, classifier.vit, pruner, pruner.training)
    elif name == "diffrate" and rates is not None:
        yield _with_rates(classifier, _read_rates(rates))
    elif name in KINDS:
        for keep in keeps:
            yield of_network(*_trained(name, classifier, keep, root), device, name)
    elif name in CONTROLS:
        for keep in keeps:
            smaller = LowerResolution(classifier.vit, keep)
            yield Candidate(name, f"{smaller.title}, {smaller.side} px", keep, smaller, smaller.vit)
    elif name in network_files(root):
        yield of_network(name, network_files(root)[name], device)
    else:
        raise UsageError(f"unknown method '{name}'; available: {', '.join(known(root))}")


def _kind(config: dict[str, Any]) -> Any:
    return config.get("model", {}).get("kind")


def _trained(name: str, classifier: ImageClassifier, keep: float, root: Path | None) -> tuple[str, Path]:
    """Return name and TOML file of the network that was trained for a method, classifier and keep.

    Raises MissingWeights if there is none.
    """
    for network, toml in network_files(root).items():
        config = read_variant(toml)
        whole = config.get("base") == classifier.name and "ablation" not in config
        if whole and _kind(config) == KINDS[name] and config["model"].get("keep") == keep:
            return network, toml
    raise MissingWeights(
        f"{name} must be trained for each network and keep, and there is none for {classifier.name} at {keep:g}; "
        f"add a TOML file beside adapters/vit_tiny_imagenet/*.toml and run 'tokbench train' on it"
        + (", or give --rates" if name == "diffrate" else "")
    )


def of_network(name: str, toml: Path, device: str, method: str | None = None) -> Candidate:
    """Return the candidate of a trained network of adapters/*/network.py.

    method: the method it was trained for; None if the network was selected by its own name.
    Raises MissingWeights, and UsageError for networks of other kinds.
    """
    variant, network = open_network(name, toml)
    network = as_classifier(network)
    weights = {path.name: sha256_of(path) for path in shard_paths(variant.file)}
    keep: float | None = None
    pruner: Pruner | None = None
    if isinstance(network, Slimmed):
        keep, pruner = network.keep, network.pruner
    elif isinstance(network, RateSearch):
        keep, pruner = network.keep, DiffRate(network.rates())
        network = network.bases["classifier"]
    elif not isinstance(network, Classifier):
        raise UsageError(f"{name} is neither a token reduction nor a classifier, but a {type(network).__name__}")
    network.to(device)
    vit: Any = network.vit
    title = f"{name}, whole" if pruner is None else pruner.title if method else f"{pruner.title}, {name}"
    training = pruner.training if pruner else "weights"
    claims = () if method else claims_of_network(name, toml, NUMBERS)
    return Candidate(method or name, title, keep, vit, vit, pruner, training, read_record(toml), weights, name, claims)


def _with_rates(classifier: ImageClassifier, rates: Rates) -> Candidate:
    sizes = recognise(classifier.vit).sizes
    pruner = DiffRate(rates)
    keep = keep_of(sizes, flops(sizes, counts_of(sizes, pruner.plan(sizes, 0.5))))
    weights = {"rates": hashlib.sha256(repr(rates).encode()).hexdigest()}
    return Candidate(
        "diffrate",
        f"{pruner.title}, given rates",
        keep,
        classifier.vit,
        classifier.vit,
        pruner,
        "rates",
        weights=weights,
    )


def _read_rates(text: str) -> Rates:
    """Read the rates given by --rates. Raises UsageError."""
    if text == "deit_s":
        return DEIT_S
    file, _, inside = text.partition(".json:")
    path = Path(f"{file}.json" if inside else text).expanduser()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for key in inside.split("/") if inside else ():
            content = content[key]
        prune, merge = (
            json.loads(found) if isinstance(found := content.get(own, content.get(f"{own}_kept_num")), str) else found
            for own in ("prune", "merge")
        )
        return Rates.falling(tuple(map(int, prune)), tuple(map(int, merge)))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(
            f"--rates {text}: expected deit_s, a JSON file with the lists prune and merge (tokens for each block), or "
            "the authors' file with a model and a cost, for example compression_rate.json:ViT-S-DeiT/2.9 "
            f"({type(error).__name__})"
        ) from error


def keep_of(sizes: Sizes, cost: int) -> float:
    """Return the keep whose FLOP budget is closest to a cost, to three digits."""
    keeps = [step / 1000 for step in range(1, 1001)]
    return min(keeps, key=lambda keep: abs(budget(sizes, keep) - cost))


def with_own_network(candidate: Candidate) -> Candidate:
    """Return the candidate with its own copy of the network, which interleaved timing of two networks needs."""
    if candidate.forward is not candidate.vit:
        return candidate  # it already is a copy
    vit = copy.deepcopy(candidate.vit)
    return replace(candidate, forward=vit, vit=vit)
