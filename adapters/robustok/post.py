"""Post-training: the decoder learns to live with what a prior really draws (Qiu et al., arXiv:2509.12474)."""

from __future__ import annotations

import torch
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.nn.priors.gpt import GPT
from tokbench.nn.priors.prior import PriorGenerator, examples_of
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base, load_trained, part

from . import RobusTok


class PostTrained(RobusTok):
    """The model of `of`, whose decoder alone goes on learning: from rows that `prior` draws token after token, in which
    the share `kept` of the tokens are the image's own, back to that image."""

    def __init__(self, of: RobusTok, prior: GPT, shape: Shape, quantizer: VectorQuantizer, kept: float) -> None:
        super().__init__(shape, quantizer, share=0.0)
        self.bases = {"prior": prior, "before": of}
        self.load_state_dict(of.state_dict())
        self.kept = kept
        for frozen in (self.encoder, self.bottleneck):
            frozen.requires_grad_(False)

    @property
    def prior(self) -> GPT:
        found = self.bases["prior"]
        assert isinstance(found, GPT)
        return found

    def prepare_data(self, material: TrainingData, *rest: object) -> TrainingData:
        return self.prior.prepare_data(material, *rest)  # type: ignore[arg-type]

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        assert isinstance(self.bottleneck, VectorQuantizer)
        rows, labels = examples_of(batch)
        own = torch.rand(rows.shape[:2]).to(rows.device) < self.kept
        seeds = torch.randint(2**31, (len(rows),)).tolist()
        drawn = self.prior.sample(labels, seeds, 1.0, known=(rows, own))
        return self.compare(self.pixels(self.bottleneck.lookup(drawn)), batch.images, progress)


def model(variant: AdapterConfig) -> PostTrained:
    """Raises MissingWeights where the base, or the prior to learn from, is not trained."""
    given = variant.config["model"]
    prior = part(variant, variant.config["prior"])
    if not isinstance(prior, PriorGenerator) or not isinstance(prior.prior, GPT):
        raise AdapterError(f"{variant.name}: its prior {variant.config['prior']} is no GPT")
    if prior.tokenizer.spec.name != variant.config["base"]:
        raise AdapterError(f"{variant.name}: its prior is over {prior.tokenizer.spec.name}, not its base")
    shape, quantizer = Shape(**given["shape"]), VectorQuantizer(**given["quantizer"])
    return PostTrained(base(variant, RobusTok), prior.prior, shape, quantizer, given["kept"])


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Raises MissingWeights where it, or its base, is not trained. The prior is not needed."""
    given = variant.config["model"]
    bare = RobusTok(Shape(**given["shape"]), VectorQuantizer(**given["quantizer"]), 0.0)
    return LearnedTokenizer(variant.name, load_trained(variant, bare))
