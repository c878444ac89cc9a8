"""Neighbours: the tokens of images of the dataset that a run does not evaluate, encoded once and cached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from tokbench.data.stream import CHUNK, ImageBatch, ImageStream, PairedBatch
from tokbench.errors import NotApplicable
from tokbench.evaluation.config import EvalConfig
from tokbench.evaluation.reconstruct import RunSettings
from tokbench.io.hashing import code_of
from tokbench.metrics.feature_cache import ReferenceFeatures
from tokbench.metrics.latents import plan_of
from tokbench.paths import PACKAGE
from tokbench.tokenizers.base import ImageModel, Tokenizer
from tokbench.tokenizers.captioned import bind_captions
from tokbench.tokenizers.tokens import Tokens

COUNT = 4000
"""The largest number of images."""


class Neighbours:
    """The tokens of an even sample of at most 4,000 images that follow the first `limit` ones in the dataset.

    The tokenizer gets them as it gets the images of the run: degraded and restored where those are. Tokens are stored
    per chunk of images in the cache of the references' features, under the hash of the pixels and of everything that a
    result records about the adapter, its input and the code.
    """

    def __init__(
        self,
        model: ImageModel,
        images: ImageStream,
        description: Mapping[str, Any],
        config: EvalConfig,
        cache: ReferenceFeatures,
    ) -> None:
        """description: what a result records about the adapter. cache: the folder in which tokens are stored, if
        any."""
        self._model, self._images, self._config = model, images, config
        restorer = config.restorer.description if config.restorer else None
        facts = json.dumps([description, images.protocol.degrade, restorer], sort_keys=True)
        self._key = f"tokens/{config.device.partition(':')[0]}/{facts}/{code_of(PACKAGE)}"
        self._cache = cache
        self._tokens: Tokens | None = None

    def tokens(self) -> Tokens:
        """Return the tokens (one stream) of all these images. They are encoded in the first call.

        Raises NotApplicable if there are no other images, or if tokens are not one tensor of a fixed size.
        """
        if self._tokens is None:
            self._tokens = self._encoded()
        return self._tokens

    @torch.inference_mode()
    def _encoded(self) -> Tokens:
        template: Tokens | None = None
        rows, table = [], self._cache.separate()
        for number, images in enumerate(self._images.others(COUNT)):
            template = self._encode(images, slice(0, 1)) if template is None else template

            def compute(span: slice, images: ImageBatch = images) -> dict[str, np.ndarray]:
                return {"tokens": self._encode(images, span).tensor.cpu().numpy()}

            index = number * CHUNK + torch.arange(len(images.index))  # the cache is keyed by pixels; one file a batch
            key = f"{self._key}/{images.captions}"  # digests are those of the pixels
            rows.append(torch.from_numpy(table.arrays(key, index, images.digests, compute)["tokens"]))
        if template is None:
            raise NotApplicable(f"{self._images.name}: none of its other images can be read")
        data = torch.cat(rows)
        whole = template.select([0] * len(data))
        return whole.with_data(data)

    def _encode(self, images: ImageBatch, span: slice) -> Tokens:
        assert isinstance(images, PairedBatch)
        config = self._config
        if config.restorer is not None:
            images = config.restorer.restored(images, RunSettings(config.device, config.batch_size, config.seed))
        low, high = self._model.spec.range
        _, plan = plan_of(self._model, (images.reference.shape[2], images.reference.shape[3]))
        size, parts = config.batch_size, []
        captions = images.captions[span] if images.captions else None
        some = plan.cut(images.inputs[span])
        for start in range(0, len(some), size):
            part = slice(start, start + size)
            model = bind_captions(self._model, captions[part] if captions else None)
            assert isinstance(model, Tokenizer)
            parts.append(model.encode(some[part].to(config.device) * (high - low) + low))
        tokens = Tokens.cat(parts)
        if self._model.spec.variable or len(tokens.streams) != 1 or tokens.single_stream().kind == "bytes":
            raise NotApplicable(f"{self._model.spec.name}: its tokens are not one tensor of a fixed size")
        return tokens
