"""One small training loop for every adapter that is trained here.

The same images in the same order for every model (seed and step decide them, and all randomness of a step), so that an
ablated twin differs in nothing but what was ablated. An interrupted training goes on from its last state.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tokbench.errors import AdapterError
from tokbench.io.atomic import atomic_path
from tokbench.nn.trainable import FittedModel, Trainable, TrainingBatch, TrainingData
from tokbench.tokenizers.training_record import TrainRecord

KEPT = 60.0
"""Seconds between states."""

_POINTS = 50
"""Of the curve that is kept of each term of the loss."""


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained: until `images` are seen, or `seconds` over.

    The learning rate rises over the first `warm_up` of the training and falls as a cosine to nothing. `average`: decay
    of the moving average of the weights, which is what is kept; lower in the first steps. `adversary`: weight of a
    critic's opinion, for models that know one.
    """

    images: int | None = None
    seconds: float | None = None
    batch: int = 64
    rate: float = 1e-3
    warm_up: float = 0.05
    decay: float = 0.01
    clip: float = 1.0
    average: float = 0.999
    adversary: float = 0.0
    critic_rate: float = 2e-4
    flip: bool = True
    seed: int = 0


Progress = Callable[[float, int, float, dict[str, float]], None]
"""Told the share that is done, images seen, images/s, and the last terms of the loss."""


def batches(material: TrainingData, recipe: TrainConfig, device: str, step: int = 0) -> Iterator[TrainingBatch]:
    """Batches without end from `step` on: every epoch in another order, half of the images mirrored."""
    pixels, count = material.pixels, len(material)
    a_pass = count // recipe.batch
    if not a_pass:
        raise AdapterError(f"{count} images do not fill a batch of {recipe.batch}")
    epoch, order = -1, torch.zeros(0)
    while True:
        if step // a_pass != epoch:
            epoch = step // a_pass
            order = torch.randperm(count, generator=torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch))
        start = step % a_pass * recipe.batch
        places = order[start : start + recipe.batch].to(pixels.device)
        images = pixels[places].to(device, non_blocking=True).float().div_(127.5).sub_(1)
        drawn = torch.rand(recipe.batch, generator=torch.Generator().manual_seed(recipe.seed * 1_000_003 + step))
        mirrored = (drawn < 0.5) & recipe.flip
        if recipe.flip:
            images = torch.where(mirrored.to(device)[:, None, None, None], images.flip(3), images)
        labels, tokens = material.labels, material.tokens
        yield TrainingBatch(
            images,
            None if labels is None else labels[places].to(device),
            None if tokens is None else tokens[mirrored.to(tokens.device, torch.long), places].to(device),
        )
        step += 1


def train(
    model: Trainable,
    material: TrainingData,
    recipe: TrainConfig,
    *,
    device: str = "cpu",
    state: Path | None = None,
    progress: Progress = lambda share, images, speed, terms: None,
) -> TrainRecord:
    """Train `model` in place; it ends with the moving average of its weights.

    `state`: a file in which the training is kept every minute and from which the same call goes on; it stays until the
    caller deletes it. On a GPU the loss is computed in bfloat16 where PyTorch's autocast does so.
    Raises AdapterError where the loss stops being finite, with the state of a minute before still there.
    """
    assert (recipe.images is None) != (recipe.seconds is None), "a budget is images or seconds"
    torch.manual_seed(recipe.seed)
    model.to(device).train()
    for base in model.bases.values():
        base.to(device).eval().requires_grad_(False)
    model.ready(device, recipe.adversary)
    learner = _Learner(model, recipe)
    if state is not None and state.exists():
        learner.load(state)
    kept, before = time.monotonic(), learner.seconds
    started = time.monotonic()
    for batch in batches(material, recipe, device, learner.step):
        share = learner.share()
        if share >= 1:
            break
        torch.manual_seed(recipe.seed * 1_000_003 + learner.step)
        terms = learner.learn(batch, share)
        learner.seconds = before + time.monotonic() - started
        if learner.step % 10 == 0 or learner.share() >= 1:  # the last one, too: what is kept was looked at
            values = {name: float(value) for name, value in terms.items()}
            if not all(map(math.isfinite, values.values())):
                told = ", ".join(f"{name} {value:g}" for name, value in values.items())
                raise AdapterError(f"the loss is not finite at step {learner.step} ({told}); lower the rate")
            learner.note(share, values)
            progress(share, learner.step * recipe.batch, learner.step * recipe.batch / learner.seconds, values)
            if state is not None and time.monotonic() - kept > KEPT:  # never one whose loss was not looked at
                learner.save(state)
                kept = time.monotonic()
    model.load_state_dict(learner.averaged)
    model.eval()
    seconds, images = round(learner.seconds, 1), learner.step * recipe.batch
    return TrainRecord(_device(device), seconds, images, learner.step, recipe.seed, asdict(recipe), learner.curve())


def fit(model: FittedModel, material: TrainingData, recipe: TrainConfig, device: str) -> TrainRecord:
    """A model without training: all images once, in their order."""
    model.to(device).eval()
    for base in getattr(model, "bases", {}).values():
        base.to(device).eval()
    start = time.monotonic()
    parts = material.pixels.split(256)
    model.fit(part.to(device).float().div_(127.5).sub_(1) for part in parts)
    return TrainRecord(_device(device), round(time.monotonic() - start, 1), len(material), 0, recipe.seed, {})


def _device(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


class _Learner:
    """Model, optimisers and moving average on their way."""

    def __init__(self, model: Trainable, recipe: TrainConfig) -> None:
        self.model, self.recipe = model, recipe
        self.step, self.seconds = 0, 0.0
        theirs = list(model.adversary.parameters()) if model.adversary else []
        others = {id(p) for p in theirs}
        own = [p for p in model.parameters() if p.requires_grad and id(p) not in others]
        self.optimisers = [_optimiser(own, recipe.rate, recipe.decay)]
        if theirs:
            self.optimisers.append(_optimiser(theirs, recipe.critic_rate, 0.0))
        self.own, self.theirs = own, theirs
        self.averaged = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.noted: list[tuple[float, dict[str, float]]] = []

    def share(self) -> float:
        """How much of the budget is spent."""
        if self.recipe.images is not None:
            return self.step * self.recipe.batch / self.recipe.images
        assert self.recipe.seconds is not None
        return self.seconds / self.recipe.seconds

    def learn(self, batch: TrainingBatch, share: float) -> dict[str, Tensor]:
        """One step."""
        recipe, device = self.recipe, batch.images.device
        factor = min(1.0, share / recipe.warm_up if recipe.warm_up else 1.0) * 0.5 * (1 + math.cos(math.pi * share))
        for optimiser, rate in zip(self.optimisers, (recipe.rate, recipe.critic_rate), strict=False):
            for group in optimiser.param_groups:
                group["lr"] = max(rate * factor, 1e-8)
        half = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
        with half:
            terms = self.model.loss(batch, share)
        self._descend(self.optimisers[0], sum(terms.values(), torch.zeros((), device=device)), self.own)
        if self.model.adversary:
            with half:
                loss = self.model.adversary.loss()
            if loss is not None:
                self._descend(self.optimisers[1], loss, self.theirs)
                terms["critic"] = loss
        self.step += 1
        keep = min(recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.averaged[name].lerp_(value, 1 - keep)
                else:
                    self.averaged[name].copy_(value)
        return {name: term.detach() for name, term in terms.items()}

    def _descend(self, optimiser: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter]) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
        optimiser.step()

    def note(self, share: float, values: dict[str, float]) -> None:
        self.noted.append((share, values))

    def curve(self) -> dict[str, list[float]]:
        """Means of each term over equal parts of the training, five digits."""
        parts: list[dict[str, list[float]]] = [{} for _ in range(_POINTS)]
        for share, values in self.noted:
            for name, value in values.items():
                parts[min(int(share * _POINTS), _POINTS - 1)].setdefault(name, []).append(value)
        names = sorted({name for part in parts for name in part})
        return {
            name: [float(f"{sum(part[name]) / len(part[name]):.5g}") for part in parts if name in part]
            for name in names
        }

    def save(self, path: Path) -> None:
        """Everything that the same training needs to go on, in a file that is never half written."""
        with atomic_path(path) as part:
            torch.save(
                {
                    "model": self.model.state_dict(),
                    "averaged": self.averaged,
                    "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
                    "step": self.step,
                    "seconds": self.seconds,
                    "noted": self.noted,
                },
                part,
            )

    def load(self, path: Path) -> None:
        """Raises AdapterError where the file is not a state of this training."""
        try:
            kept = torch.load(path, map_location=next(self.model.parameters()).device, weights_only=True)
            self.model.load_state_dict(kept["model"])
            for optimiser, own in zip(self.optimisers, kept["optimisers"], strict=True):
                optimiser.load_state_dict(own)
            self.averaged = kept["averaged"]
            self.step, self.seconds, self.noted = kept["step"], kept["seconds"], kept["noted"]
        except Exception as error:  # unpicklers and load_state_dict raise many classes
            raise AdapterError(f"{path} is not a state of this training ({str(error)[:120]}); delete it") from error


def _optimiser(parameters: list[nn.Parameter], rate: float, decay: float) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases, positions of one token) do not decay."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = bool(parameters) and parameters[0].is_cuda
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=fused)


def fingerprint(*parts: object) -> str:
    """A short name for one training: what was given to it."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]
