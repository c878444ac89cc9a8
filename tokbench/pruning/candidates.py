"""Names on the command line to ways of running a classifier."""

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
from tokbench.pruning.diffrate import DEIT_S, DiffRate, Rates
from tokbench.pruning.distil import Slimmed
from tokbench.pruning.flops import flops, of_kept
from tokbench.pruning.measure import Candidate
from tokbench.pruning.methods import METHODS, TRAINED
from tokbench.pruning.models import ImageClassifier
from tokbench.pruning.pruner import Pruner, budget
from tokbench.pruning.resolution import LowerResolution
from tokbench.pruning.search import RateSearch
from tokbench.pruning.vit import Sizes, recognise
from tokbench.tokenizers.registry import network_files, read_variant
from tokbench.tokenizers.training_record import read_record
from tokbench.training.zoo import open_network
from tokbench.weights.shards import shard_paths

CONTROLS = ("lower_resolution",)
"""Beside random and strided: no method, but what one must beat."""
KINDS = {"diffrate": "rates", "sit_slim": "slimmed"}
"""What [model] kind says in the TOML of what a trained method has trained."""


def known(root: Path | None = None) -> list[str]:
    """Everything that `tokbench prune` takes as METHOD but networks of one's own."""
    own = [name for name, toml in network_files(root).items() if _kind(read_variant(toml)) == "dense"]
    return [*METHODS, *TRAINED, *CONTROLS, *own]


def arms(
    name: str,
    subject: ImageClassifier,
    keeps: Sequence[float],
    device: str,
    rates: str | None = None,
    root: Path | None = None,
) -> Iterator[Candidate]:
    """One for each keep, or the only one where there is nothing to keep: a method, a control, or another network that
    was trained here as a control. `rates`: a JSON file of DiffRate's rates, or "deit_s" for the published ones.

    Raises UsageError for unknown names and MissingWeights for what is not trained.
    """
    if name in METHODS:
        pruner = METHODS[name]()
        for keep in keeps:
            yield Candidate(name, pruner.title, keep, subject.vit, subject.vit, pruner)
    elif name == "diffrate" and rates is not None:
        yield _with_rates(subject, _read_rates(rates))
    elif name in KINDS:
        for keep in keeps:
            yield of_network(*_trained(name, subject, keep, root), device, name)
    elif name in CONTROLS:
        for keep in keeps:
            smaller = LowerResolution(subject.vit, keep)
            yield Candidate(name, f"{smaller.title}, {smaller.side} px", keep, smaller, smaller.vit)
    elif name in network_files(root):
        yield of_network(name, network_files(root)[name], device)
    else:
        raise UsageError(f"no method '{name}'; there are {', '.join(known(root))}")


def _kind(config: dict[str, Any]) -> Any:
    return config.get("model", {}).get("kind")


def _trained(name: str, subject: ImageClassifier, keep: float, root: Path | None) -> tuple[str, Path]:
    """Name and TOML of what a method has trained for one network and keep. Raises MissingWeights."""
    for network, toml in network_files(root).items():
        config = read_variant(toml)
        whole = config.get("base") == subject.name and "ablation" not in config
        if whole and _kind(config) == KINDS[name] and config["model"].get("keep") == keep:
            return network, toml
    raise MissingWeights(
        f"{name} is trained for one network and one keep, and nothing here is for {subject.name} at {keep:g}; write a "
        f"TOML beside adapters/vit_tiny_imagenet/*.toml and run 'tokbench train' on it"
        + (", or give --rates" if name == "diffrate" else "")
    )


def of_network(name: str, toml: Path, device: str, method: str | None = None) -> Candidate:
    """What a trained network of adapters/*/network.py is: a method that something was trained for, or a control.

    method: what stands for it in facts; its own name where it was asked for by that.
    Raises MissingWeights, and UsageError for networks of other kinds.
    """
    variant, network = open_network(name, toml)
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
    return Candidate(method or name, title, keep, vit, vit, pruner, training, read_record(toml), weights, name)


def _with_rates(subject: ImageClassifier, rates: Rates) -> Candidate:
    sizes = recognise(subject.vit).sizes
    pruner = DiffRate(rates)
    keep = keep_of(sizes, flops(sizes, of_kept(sizes, pruner.plan(sizes, 0.5))))
    told = {"rates": hashlib.sha256(repr(rates).encode()).hexdigest()}
    return Candidate(
        "diffrate", f"{pruner.title}, given rates", keep, subject.vit, subject.vit, pruner, "rates", weights=told
    )


def _read_rates(text: str) -> Rates:
    if text == "deit_s":
        return DEIT_S
    file, _, inside = text.partition(".json:")
    path = Path(f"{file}.json" if inside else text).expanduser()
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        for key in inside.split("/") if inside else ():
            told = told[key]
        prune, merge = (
            json.loads(found) if isinstance(found := told.get(own, told.get(f"{own}_kept_num")), str) else found
            for own in ("prune", "merge")
        )
        return Rates.falling(tuple(map(int, prune)), tuple(map(int, merge)))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UsageError(
            f"--rates {text}: give deit_s, a JSON file with lists prune and merge, tokens for each block, or the "
            "authors' file with a model and a cost, as in compression_rate.json:ViT-S-DeiT/2.9 "
            f"({type(error).__name__})"
        ) from error


def keep_of(sizes: Sizes, cost: int) -> float:
    """The keep that stands for so many FLOPs, to three digits."""
    keeps = [step / 1000 for step in range(1, 1001)]
    return min(keeps, key=lambda keep: abs(budget(sizes, keep) - cost))


def apart(arm: Candidate) -> Candidate:
    """The same with a network of its own, as timing two networks in turns needs."""
    if arm.forward is not arm.vit:
        return arm  # it is a copy already
    vit = copy.deepcopy(arm.vit)
    return replace(arm, forward=vit, vit=vit)
