"""Tasks turn (tokenizer, images) into streams of batches, one for each step between encode and decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tokbench.errors import NotApplicable, UsageError
from tokbench.evaluation.generate import DrawSamples, ReadSamples
from tokbench.evaluation.perturb_result import aggregate_cells
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import KeepFirst, PerturbTokens, TokenTransform, plain_step
from tokbench.metric_names import ALPHAS, Anchor, TaskName, deltas
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.results.result import Result
from tokbench.tokenizers.base import Generator, ImageModel, PrecomputedImages, Tokenizer


@dataclass(frozen=True)
class Task:
    """Reconstruction: what a tokenizer's steps are, and what their results make together.

    paired: whether what is made belongs to one reference each, so that a pass runs through those.
    """

    paired: ClassVar[bool] = True

    @property
    def label(self) -> TaskName:
        """Kind and arguments, which make its name."""
        return TaskName("reconstruct")

    @property
    def name(self) -> str:
        """The name of its results, where its steps have no names of their own."""
        return str(self.label)

    def steps(self, model: ImageModel) -> Sequence[TokenTransform]:
        """One or more. Raises NotApplicable where a model cannot do the task, AdapterError where its spec and its class
        disagree."""
        return [plain_step(model)]

    def produce(self, step: Any, model: ImageModel, images: Any, settings: RunSettings, memo: DerivedCache) -> Batch:
        """What becomes of one batch of the stream. Raises AdapterError where the model breaks its contract."""
        return reconstruct(model, images, step, settings, memo)

    def results(self, made: Sequence[tuple[TokenTransform, Result]]) -> list[Result]:
        """What is kept of the steps' results."""
        return [result for _, result in made]


RECONSTRUCT = Task()


@dataclass(frozen=True)
class Truncate(Task):
    """The first k tokens alone, for every k of `counts`, each a result of its own; for tokenizers of which any first
    tokens decode. counts: None for 1, 2, 4 ... and all."""

    counts: tuple[int, ...] | None = None

    @property
    def label(self) -> TaskName:
        return TaskName("truncate")

    def steps(self, model: ImageModel) -> Sequence[TokenTransform]:
        name, most = model.spec.name, model.spec.num_tokens
        if not (isinstance(model, Tokenizer) and model.spec.prefixes):
            raise NotApplicable(
                f"{name}: its first tokens alone do not decode; truncate is for tokenizers that were trained with "
                "dropped tails, whose spec says `prefixes`"
            )
        assert most is not None  # every spec with `prefixes` has it
        if self.counts and max(self.counts) > most:
            raise NotApplicable(f"{name}: has {most} tokens an image, not {max(self.counts)}")
        counts = self.counts or sorted({2**power for power in range(most.bit_length())} | {most})
        return [KeepFirst(str(TaskName("truncate", tokens=count)), count=count) for count in counts]


@dataclass(frozen=True)
class Perturb(Task):
    """Tokens replaced by near misses, on the grid of `tokbench.metric_names`; one result of all cells."""

    anchor: Anchor = "latent"

    @property
    def label(self) -> TaskName:
        return TaskName("perturb", anchor=self.anchor)

    def steps(self, model: ImageModel) -> Sequence[TokenTransform]:
        if not isinstance(model, Tokenizer):
            raise NotApplicable(f"{model.spec.name}: there are no tokens to perturb, only images")
        perturber = model.perturber(self.anchor)
        size = perturber.codebook_size
        found: Sequence[int | None] = [None] if size is None else deltas(size)
        most = max(delta or 1 for delta in found)
        return [
            PerturbTokens(self.name, perturber=perturber, alpha=alpha, delta=delta, most=most)
            for alpha in ALPHAS
            for delta in found
        ]

    def results(self, made: Sequence[tuple[TokenTransform, Result]]) -> list[Result]:
        first = made[0][0]
        if not isinstance(first, PerturbTokens):  # it was refused
            return super().results(made)
        cells = [(step.cell, result) for step, result in made]
        return [aggregate_cells(cells, first.perturber.extension, self.anchor)]


@dataclass(frozen=True)
class Generate(Task):
    """Samples of a prior, or of a folder of them, paired with nothing: it runs through `Slots`.

    guidance: None for each generator's own.
    """

    paired: ClassVar[bool] = False
    guidance: float | None = None

    def __post_init__(self) -> None:
        """The scale stands in names of files, and is read from them: in six digits, without an exponent."""
        if not self.label.is_exact:
            raise UsageError(f"--cfg {self.guidance:g}: give a scale of at most six digits, such as 1.5")

    @property
    def label(self) -> TaskName:
        return TaskName("generate", guidance=self.guidance)

    def steps(self, model: ImageModel) -> Sequence[TokenTransform]:
        if isinstance(model, Generator):
            return [DrawSamples(self.name, guidance=model.guidance if self.guidance is None else self.guidance)]
        if not isinstance(model, PrecomputedImages):
            raise NotApplicable(
                f"{model.spec.name}: a tokenizer draws no tokens of its own; generate is for generators (tokbench list "
                "adapters) and for images:DIR"
            )
        if self.guidance is not None:
            raise NotApplicable(f"{model.spec.name}: --cfg is for generators; these samples are made already")
        return [ReadSamples(self.name)]

    def produce(self, step: Any, model: ImageModel, images: Any, settings: RunSettings, memo: DerivedCache) -> Batch:
        return step.sample(model, images, settings)


def parse_task(name: str) -> Task:
    """The task that makes a result of that name alone: `truncate-8` is Truncate((8,)). Raises UsageError."""
    parsed = TaskName.parse(name)
    if parsed.kind == "reconstruct":
        return RECONSTRUCT
    if parsed.kind == "perturb":
        return Perturb(parsed.anchor)
    if parsed.kind == "generate":
        return Generate(parsed.guidance)
    if parsed.tokens is None:
        raise UsageError(f"no task '{name}': it does not say how many tokens, as truncate-8 does")
    return Truncate((parsed.tokens,))
