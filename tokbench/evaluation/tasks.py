"""Tasks: which token transforms are applied to a model, and how their results are combined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tokbench.data.stream import ImageBatch, PairedBatch
from tokbench.errors import MetricUnavailable, NotApplicable, UsageError
from tokbench.evaluation.decode import DecodeVariant, ReferenceDecode, decode_batch, move_to_device_of
from tokbench.evaluation.generate import DrawSamples, ReadSamples, Sampled
from tokbench.evaluation.perturb_result import aggregate_cells
from tokbench.evaluation.provenance import describe_adapter
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import KeepFirst, PerturbTokens, TokenTransform, plain_step
from tokbench.metric_names import ALPHAS, Anchor, TaskName, deltas
from tokbench.metrics.batch import Batch, DerivedCache
from tokbench.results.result import Result
from tokbench.tokenizers.base import Generator, ImageModel, PrecomputedImages, Tokenizer
from tokbench.tokenizers.decoder_variant import DecoderVariant, build_decoder
from tokbench.tokenizers.registry import load_adapter


@dataclass(frozen=True)
class Task:
    """The task `reconstruct`, and the base class of tasks.

    paired: whether each output belongs to one reference image, so that the pass runs over the references.
    """

    paired: ClassVar[bool] = True

    @property
    def label(self) -> TaskName:
        """The kind and the arguments of the task, which determine its name."""
        return TaskName("reconstruct")

    @property
    def name(self) -> str:
        """The name of the task, which results record unless their token transform has its own name."""
        return str(self.label)

    def steps(self, model: ImageModel) -> Sequence[TokenTransform]:
        """Return one or more token transforms.

        Raises NotApplicable where a model cannot do the task, AdapterError where its spec and its class disagree.
        """
        return [plain_step(model)]

    def run(
        self, step: TokenTransform, model: ImageModel, images: ImageBatch, settings: RunSettings, memo: DerivedCache
    ) -> Batch:
        """Run one batch of the stream through a token transform. Raises AdapterError where the model breaks its
        contract."""
        assert isinstance(images, PairedBatch)
        return reconstruct(model, images, step, settings, memo)

    def results(self, step_results: Sequence[tuple[TokenTransform, Result]]) -> list[Result]:
        """Return the results of the task from those of its token transforms."""
        return [result for _, result in step_results]


RECONSTRUCT = Task()


@dataclass(frozen=True)
class Truncate(Task):
    """Keeps only the first k tokens, for every k of `counts`, with a result for each. It is for tokenizers whose first
    tokens decode to an image. counts: None for 1, 2, 4 ... and all."""

    counts: tuple[int, ...] | None = None

    @property
    def label(self) -> TaskName:
        return TaskName("truncate")

    def steps(self, model: ImageModel) -> Sequence[TokenTransform]:
        name, most = model.spec.name, model.spec.num_tokens
        if not (isinstance(model, Tokenizer) and model.spec.prefixes):
            raise NotApplicable(
                f"{name}: its first tokens alone do not decode; truncate is for tokenizers that were trained with "
                "nested dropout, whose spec declares `prefixes`"
            )
        assert most is not None  # every spec with `prefixes` declares num_tokens
        if self.counts and max(self.counts) > most:
            raise NotApplicable(f"{name}: has {most} tokens per image, fewer than {max(self.counts)}")
        counts = self.counts or sorted({2**power for power in range(most.bit_length())} | {most})
        return [KeepFirst(str(TaskName("truncate", tokens=count)), count=count) for count in counts]


@dataclass(frozen=True)
class Perturb(Task):
    """Replaces codes by similar codes, or adds noise to latents, on the grid of `tokbench.metric_names`; one result for
    all cells."""

    anchor: Anchor = "latent"

    @property
    def label(self) -> TaskName:
        return TaskName("perturb", anchor=self.anchor)

    def steps(self, model: ImageModel) -> Sequence[TokenTransform]:
        if not isinstance(model, Tokenizer):
            raise NotApplicable(f"{model.spec.name}: it has no tokens to perturb, only images")
        perturber = model.perturber(self.anchor)
        size = perturber.codebook_size
        deltas_of_grid: Sequence[int | None] = [None] if size is None else deltas(size)
        most = max(delta or 1 for delta in deltas_of_grid)
        return [
            PerturbTokens(self.name, perturber=perturber, alpha=alpha, delta=delta, most=most, anchor=self.anchor)
            for alpha in ALPHAS
            for delta in deltas_of_grid
        ]

    def results(self, step_results: Sequence[tuple[TokenTransform, Result]]) -> list[Result]:
        first = step_results[0][0]
        if not isinstance(first, PerturbTokens):  # the model cannot do this task
            return super().results(step_results)
        cells = [(step.cell, result) for step, result in step_results]
        return [aggregate_cells(cells, first.perturber.extension, self.anchor)]


@dataclass(frozen=True)
class Generate(Task):
    """Draws samples from a prior, or reads them from a folder. They are not paired with references; the stream is a
    `SamplePlan`.

    guidance: the scale of classifier-free guidance; None for each generator's default.
    """

    paired: ClassVar[bool] = False
    guidance: float | None = None

    def __post_init__(self) -> None:
        """Check that the scale can be written in file names: in at most six digits, without an exponent. Raises
        UsageError."""
        if not self.label.is_exact:
            raise UsageError(f"--cfg {self.guidance:g}: give a scale with at most six digits, such as 1.5")

    @property
    def label(self) -> TaskName:
        return TaskName("generate", guidance=self.guidance)

    def steps(self, model: ImageModel) -> Sequence[TokenTransform]:
        if isinstance(model, Generator):
            return [DrawSamples(self.name, guidance=model.guidance if self.guidance is None else self.guidance)]
        if not isinstance(model, PrecomputedImages):
            raise NotApplicable(
                f"{model.spec.name}: a tokenizer cannot draw samples; generate is for generators (tokbench list "
                "adapters) and for images:DIR"
            )
        if self.guidance is not None:
            raise NotApplicable(f"{model.spec.name}: --cfg is for generators; these samples exist already")
        return [ReadSamples(self.name)]

    def run(
        self, step: TokenTransform, model: ImageModel, images: ImageBatch, settings: RunSettings, memo: DerivedCache
    ) -> Batch:
        assert isinstance(step, Sampled)
        return step.sample(model, images, settings)


@dataclass(frozen=True)
class Decode(Task):
    """Decodes the same tokens by the decoder itself (whole images in float32) and by variants of it, with a result for
    each.

    variants: the variants, and None for the decoder itself. root, allow_download: where the adapters of other decoders
    are found, and whether their weights may be downloaded.
    """

    variants: tuple[DecoderVariant | None, ...]
    root: Path | None = None
    allow_download: bool = False

    @classmethod
    def of(cls, variants: Sequence[str] = (), root: Path | None = None, allow_download: bool = False) -> Decode:
        """Return the task for the decoder itself and these variants, tiles of 256 px and bfloat16 by default.

        Raises UsageError for an unknown variant.
        """
        parsed = [DecoderVariant.parse(text) for text in variants or ("tiles=256", "bf16")]
        return cls((None, *dict.fromkeys(parsed)), root, allow_download)

    @property
    def label(self) -> TaskName:
        return TaskName("decode")

    def steps(self, model: ImageModel) -> Sequence[TokenTransform]:
        if not isinstance(model, Tokenizer):
            raise NotApplicable(f"{model.spec.name}: it has no tokens to decode, only images")
        return [self._step(model, variant) for variant in self.variants]

    def _step(self, model: Tokenizer, variant: DecoderVariant | None) -> TokenTransform:
        task = str(TaskName("decode", decoder=str(variant or "")))
        if variant is None:
            return ReferenceDecode(task)
        try:
            if not variant.adapter:
                return DecodeVariant(task, decoder=build_decoder(model, variant))
            loaded = load_adapter(variant.adapter, root=self.root, allow_download=self.allow_download)
            if not isinstance(loaded.model, Tokenizer):
                raise NotApplicable(f"{loaded.name}: it is not a tokenizer, so it cannot decode tokens")
            move_to_device_of(model, loaded.model)
            decoder = build_decoder(model, variant, loaded.model)
            return DecodeVariant(task, decoder=decoder, other=describe_adapter(loaded))
        except MetricUnavailable as error:  # the other variants are evaluated
            return DecodeVariant(task, decoder=None, why=str(error))

    def run(
        self, step: TokenTransform, model: ImageModel, images: ImageBatch, settings: RunSettings, memo: DerivedCache
    ) -> Batch:
        assert isinstance(images, PairedBatch)
        assert isinstance(step, ReferenceDecode)
        return decode_batch(model, images, step, settings, memo)


def parse_task(name: str) -> Task:
    """Return the task whose result has this name: `truncate-8` is Truncate((8,)). Raises UsageError."""
    parsed = TaskName.parse(name)
    if parsed.kind == "reconstruct":
        return RECONSTRUCT
    if parsed.kind == "perturb":
        return Perturb(parsed.anchor)
    if parsed.kind == "generate":
        return Generate(parsed.guidance)
    if parsed.kind == "decode":
        return Decode((DecoderVariant.parse(parsed.decoder) if parsed.decoder else None,))
    if parsed.tokens is None:
        raise UsageError(f"no task '{name}': the number of tokens is missing, as in truncate-8")
    return Truncate((parsed.tokens,))
