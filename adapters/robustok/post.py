"""Post-training of the decoder on tokens that a prior samples (Qiu et al., arXiv:2509.12474)."""

from __future__ import annotations

import torch
from torch import Tensor

from tokbench.errors import AdapterError
from tokbench.nn.priors.gpt import GPT
from tokbench.nn.priors.prior import tokens_and_labels
from tokbench.nn.quantizers.vq import VectorQuantizer
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch, TrainingData
from tokbench.nn.vit import Shape
from tokbench.tokenizers.config import AdapterConfig
from tokbench.training.zoo import base, base_prior, load_trained

from . import RobusTok


class PostTrained(RobusTok):
    """The model `of`, of which only the decoder is trained further.

    The decoder's input is a sequence that `prior` samples token by token, in which a random share `kept` of the tokens
    is taken from the image's own; its target is that image.
    """

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

    def prepare_data(self, data: TrainingData, *rest: object) -> TrainingData:
        return self.prior.prepare_data(data, *rest)  # type: ignore[arg-type]

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        assert isinstance(self.bottleneck, VectorQuantizer)
        rows, labels = tokens_and_labels(batch)
        own = torch.rand(rows.shape[:2]).to(rows.device) < self.kept
        seeds = torch.randint(2**31, (len(rows),)).tolist()
        sampled = self.prior.sample(labels, seeds, 1.0, known=(rows, own))
        return self.compare(self.pixels(self.bottleneck.lookup(sampled)), batch.images, progress)


def model(variant: AdapterConfig) -> PostTrained:
    """Build the model before post-training. Raises MissingWeights if its base or prior is not trained."""
    given = variant.config["model"]
    prior, trained_on = base_prior(variant, GPT)
    if trained_on.spec.name != variant.config["base"]:
        raise AdapterError(f"{variant.name}: its prior was trained on {trained_on.spec.name}, not on its base")
    shape, quantizer = Shape(**given["shape"]), VectorQuantizer(**given["quantizer"])
    return PostTrained(base(variant, RobusTok), prior, shape, quantizer, given["kept"])


def load(variant: AdapterConfig, device: str) -> LearnedTokenizer:
    """Load the post-trained tokenizer; the prior is not needed. Raises MissingWeights if it is not trained."""
    given = variant.config["model"]
    untrained = RobusTok(Shape(**given["shape"]), VectorQuantizer(**given["quantizer"]), 0.0)
    return LearnedTokenizer(variant.name, load_trained(variant, untrained))
