"""The training loop of all adapters that tokbench trains.

The seed and the step determine the images of a batch, their order and all random numbers of a step, so that a model and
its ablation are trained on the same data and differ only in the ablated component. An interrupted training resumes from
its last checkpoint.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tokbench.data.vocabulary import mirror_captions
from tokbench.errors import AdapterError
from tokbench.io.atomic import atomic_path
from tokbench.nn.trainable import FittedModel, Trainable, TrainingBatch, TrainingData
from tokbench.tokenizers.training_record import TrainRecord

KEPT = 60.0
"""Seconds between checkpoints."""

_POINTS = 50
"""Number of points of the stored curve of each loss term."""


@dataclass(frozen=True)
class TrainConfig:
    """Hyperparameters of a training; its budget is either `images` (samples seen) or `seconds`.

    batch: images per step. rate: peak learning rate of AdamW, which increases linearly over the share `warm_up` of the
    training, while a cosine factor decreases it to 0. decay: weight decay. clip: largest norm of the gradient. average:
    decay of the moving average of the weights, which is stored as the result; it is smaller in the first steps. flip:
    whether half of the images are mirrored.
    """

    images: int | None = None
    seconds: float | None = None
    batch: int = 64
    rate: float = 1e-3
    warm_up: float = 0.05
    decay: float = 0.01
    clip: float = 1.0
    average: float = 0.999
    flip: bool = True
    seed: int = 0


Progress = Callable[[float, int, float, dict[str, float]], None]
"""Called with the completed share (0 to 1), the images seen, the images per second and the last loss terms."""


class TrainingStopped(Exception):
    """A training has stopped before its end, as `should_stop` asked, and its checkpoint was written."""


def batches(data: TrainingData, recipe: TrainConfig, device: str, step: int = 0) -> Iterator[TrainingBatch]:
    """Yield batches indefinitely, starting at `step`; each epoch has another order, half of the images are mirrored.

    Raises AdapterError if there are fewer images than a batch needs, or if items that are no images would be mirrored.
    """
    count = len(data)
    if recipe.flip and not data.has_images:
        raise AdapterError(
            "only images can be mirrored, and the training data are none: state flip = false in [training]"
        )
    steps_per_epoch = count // recipe.batch
    if not steps_per_epoch:
        raise AdapterError(f"{count} training items do not fill a batch of {recipe.batch}")
    epoch, order, generator = -1, torch.zeros(0), torch.Generator()
    while True:
        if step // steps_per_epoch != epoch:
            epoch = step // steps_per_epoch
            order = torch.randperm(count, generator=generator.manual_seed(stream(recipe.seed, "order", epoch)))
        start = step % steps_per_epoch * recipe.batch
        indices = order[start : start + recipe.batch].to(data.pixels.device)
        images = data.values(indices, device)
        if data.has_images:
            images = images.contiguous(memory_format=torch.channels_last)
        uniform = torch.rand(recipe.batch, generator=generator.manual_seed(stream(recipe.seed, "mirror", step)))
        mirrored = (uniform < 0.5) & recipe.flip
        if recipe.flip:
            images = torch.where(mirrored.to(device)[:, None, None, None], images.flip(3), images)
        yield _batch(data, images, indices, mirrored)
        step += 1


def _batch(data: TrainingData, images: Tensor, indices: Tensor, mirrored: Tensor) -> TrainingBatch:
    """Return the batch of `images`, with the labels, tokens, features, captions and boxes of the images `indices` on
    their device."""
    labels, tokens, features, captions, boxes, masks = (
        None if values is None else values.to(images.device)
        for values in (
            None if data.labels is None else data.labels[indices],
            None if data.tokens is None else data.tokens[mirrored.to(data.tokens.device, torch.long), indices],
            None if data.features is None else data.features[indices].float(),
            None if data.captions is None else data.captions[indices],
            None if data.boxes is None else data.boxes[indices],
            None if data.masks is None else data.masks[indices],
        )
    )
    if features is not None:
        side = math.isqrt(features.shape[1])
        flipped = features.unflatten(1, (side, side)).flip(2).flatten(1, 2)
        features = torch.where(mirrored.to(images.device)[:, None, None], flipped, features)
    if captions is not None:
        captions = torch.where(mirrored.to(images.device)[:, None], mirror_captions(captions), captions)
    if boxes is not None:
        kind, left, top, right, bottom = boxes.unbind(2)
        turned = torch.stack([kind, 1 - right, top, 1 - left, bottom], 2)
        boxes = torch.where(mirrored.to(images.device)[:, None, None], turned, boxes)
    return TrainingBatch(images, labels, tokens, features, captions, boxes, masks)


def stream(seed: int, purpose: str, index: int) -> int:
    """Return the seed of an independent random stream, so that one draw of a step does not depend on another.

    With one seed for all, the uniform numbers that decide which images are mirrored would also be those of the loss.
    """
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose} {index}".encode()).digest()[:8], "big") >> 1


def train(
    model: Trainable,
    data: TrainingData,
    recipe: TrainConfig,
    *,
    device: str = "cpu",
    state: Path | None = None,
    progress: Progress = lambda share, images, speed, terms: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainRecord:
    """Train `model` in place; afterwards its weights are the moving average.

    state: file to which a checkpoint is written every minute and from which the same call resumes; the caller deletes
    it. should_stop: called after each report of progress; if it returns True, a checkpoint is written to `state` and
    the training stops. The loss is computed under bfloat16 autocast where `precision_of` says so.
    Raises AdapterError if the loss is not finite; the last checkpoint is then kept. Raises TrainingStopped if
    `should_stop` returns True before the last step.
    """
    assert (recipe.images is None) != (recipe.seconds is None), "the budget must be either images or seconds"
    torch.manual_seed(recipe.seed)
    model.to(device).to(memory_format=torch.channels_last).train()
    for base in model.bases.values():
        base.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    model.ready(device)
    started, cpu_started = time.monotonic(), time.process_time()
    saved = state if state is not None and state.exists() else None
    if saved is None:
        model.start(_first_images(data, recipe, device))
    learner = _Learner(model, recipe)
    if saved is not None:
        learner.load(saved)
    if learner.devices[-1:] != [_device(device)]:
        learner.devices.append(_device(device))
    saved_at, before, cpu_before = time.monotonic(), learner.seconds, learner.cpu_seconds
    for batch in batches(data, recipe, device, learner.step):
        share = learner.share()
        if share >= 1:
            break
        torch.manual_seed(stream(recipe.seed, "step", learner.step))
        terms = learner.learn(batch, share)
        learner.seconds = before + time.monotonic() - started
        learner.cpu_seconds = cpu_before + time.process_time() - cpu_started
        if learner.step % 10 == 0 or learner.share() >= 1:  # the last step, too: no unchecked weights are stored
            values = {name: float(value) for name, value in terms.items()}
            if not all(map(math.isfinite, values.values())):
                listed = ", ".join(f"{name} {value:g}" for name, value in values.items())
                raise AdapterError(f"the loss is not finite at step {learner.step} ({listed}); use a lower rate")
            learner.note(share, values)
            progress(share, learner.step * recipe.batch, learner.step * recipe.batch / learner.seconds, values)
            stopping = should_stop() and learner.share() < 1
            if state is not None and (stopping or time.monotonic() - saved_at > KEPT):  # only after a check of the loss
                learner.save(state)
                saved_at = time.monotonic()
            if stopping:
                raise TrainingStopped
    model.load_state_dict(learner.averaged)
    model.eval()
    with torch.inference_mode():
        model.finish(_first_images(data, recipe, device))
    return TrainRecord(
        ", then ".join(learner.devices),
        round(learner.seconds, 1),
        learner.step * recipe.batch,
        learner.step,
        recipe.seed,
        asdict(recipe),
        learner.curve(),
        cpu_seconds=round(learner.cpu_seconds, 1),
        precision=str(precision_of(device)).removeprefix("torch."),
    )


def fit(model: FittedModel, data: TrainingData, recipe: TrainConfig, device: str) -> TrainRecord:
    """Fit a model in one pass over all images, in order, without gradients."""
    model.to(device).eval()
    for base in getattr(model, "bases", {}).values():
        base.to(device).eval()
    start, cpu_start = time.monotonic(), time.process_time()
    parts = torch.arange(len(data), device=data.pixels.device).split(256)
    model.fit(data.values(part, device) for part in parts)
    seconds, cpu_seconds = round(time.monotonic() - start, 1), round(time.process_time() - cpu_start, 1)
    return TrainRecord(
        _device(device), seconds, len(data), 0, recipe.seed, {}, cpu_seconds=cpu_seconds, precision="float32"
    )


def precision_of(device: str) -> torch.dtype:
    """Return the precision of matrix products in training: bfloat16 on GPUs and on CPUs with instructions for it."""
    fast = device.startswith("cuda") or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


START = 4096
"""Number of images from which a model's initial weights are set (`Trainable.start`)."""

START_VALUES = 1 << 25
"""The largest number of values of other items, such as clips, from which a model's initial weights are set."""


def _first_images(data: TrainingData, recipe: TrainConfig, device: str) -> TrainingBatch:
    """Return `START` random images with their labels and tokens, or all if there are fewer, without mirroring.

    Of other items, there are at most as many as have `START_VALUES` values.
    """
    generator = torch.Generator().manual_seed(stream(recipe.seed, "start", 0))
    count = START if data.has_images else min(START, max(1, START_VALUES // data.pixels[0].numel()))
    indices = torch.randperm(len(data), generator=generator)[:count]
    indices = indices.to(data.pixels.device)
    images = data.values(indices, device)
    return _batch(data, images, indices, torch.zeros(len(indices), dtype=torch.bool))


def _device(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


class _Learner:
    """State of a training: model, optimiser, moving average of the weights and loss values."""

    def __init__(self, model: Trainable, recipe: TrainConfig) -> None:
        self.model, self.recipe = model, recipe
        self.step, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = _optimiser(self.parameters, recipe.rate, recipe.decay)
        self.averaged = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.noted: list[tuple[float, dict[str, float]]] = []
        self.devices: list[str] = []  # several if the training was resumed elsewhere

    def share(self) -> float:
        """Return the completed share of the budget, 1 or more at the end."""
        if self.recipe.images is not None:
            return self.step * self.recipe.batch / self.recipe.images
        assert self.recipe.seconds is not None
        return self.seconds / self.recipe.seconds

    def learn(self, batch: TrainingBatch, share: float) -> dict[str, Tensor]:
        """Take one training step at a completed `share`; return the detached loss terms."""
        recipe, device = self.recipe, batch.images.device
        factor = min(1.0, share / recipe.warm_up if recipe.warm_up else 1.0) * 0.5 * (1 + math.cos(math.pi * share))
        for group in self.optimiser.param_groups:
            group["lr"] = max(recipe.rate * factor, 1e-8)
        precision = precision_of(device.type)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32), _attention(device):
            terms = self.model.loss(batch, share)
            loss = sum(terms.values(), torch.zeros((), device=device))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        self.optimiser.step()
        self.step += 1
        keep = min(recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                if value.is_floating_point():
                    self.averaged[name].lerp_(value, 1 - keep)
                else:
                    self.averaged[name].copy_(value)
        return {name: term.detach() for name, term in terms.items()}

    def note(self, share: float, values: dict[str, float]) -> None:
        self.noted.append((share, values))

    def curve(self) -> dict[str, list[float]]:
        """Return the means of each loss term over equal parts of the training, with five digits."""
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
        """Write a checkpoint from which the same training can resume; the file is replaced atomically."""
        with atomic_path(path) as part:
            torch.save(
                {
                    "model": self.model.state_dict(),
                    "averaged": self.averaged,
                    "optimiser": self.optimiser.state_dict(),
                    "step": self.step,
                    "seconds": self.seconds,
                    "cpu_seconds": self.cpu_seconds,
                    "noted": self.noted,
                    "devices": self.devices,
                },
                part,
            )

    def load(self, path: Path) -> None:
        """Read a checkpoint. Raises AdapterError if the file is not a checkpoint of this training."""
        try:
            saved = torch.load(path, map_location=next(self.model.parameters()).device, weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.averaged, self.noted, self.devices = saved["averaged"], saved["noted"], saved["devices"]
            self.step, self.seconds, self.cpu_seconds = saved["step"], saved["seconds"], saved["cpu_seconds"]
        except Exception as error:  # unpicklers and load_state_dict raise many classes
            reason = str(error)[:120]
            raise AdapterError(f"{path} is not a checkpoint of this training ({reason}); delete it") from error


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """Return a context that selects plain matrix products for attention on CPUs.

    There, the backward pass of PyTorch's fused attention is slower than the products, most of all in bfloat16.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _optimiser(parameters: list[nn.Parameter], rate: float, decay: float) -> torch.optim.AdamW:
    """Return AdamW without weight decay for vectors, such as norms, biases and single position embeddings."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    fused = bool(parameters) and parameters[0].is_cuda
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=fused)


def fingerprint(*parts: object) -> str:
    """Return 16 hex digits that identify a training by its inputs."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]
