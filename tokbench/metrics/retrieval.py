"""How often the caption of an image is found from its tokens, and the image from its caption."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.errors import NotApplicable
from tokbench.metrics.base import WholeSetMetric
from tokbench.metrics.batch import Batch
from tokbench.tokenizers.base import ImageModel
from tokbench.tokenizers.captioned import TextAligned

RANKS = (1, 5)
"""The numbers of best candidates among which the right one must be."""


class TextAlignedMetric(WholeSetMetric):
    """A metric of tokenizers that embed tokens and captions in one space."""

    def __init__(self, model: ImageModel) -> None:
        """Raises NotApplicable for models that do not inherit TextAligned."""
        if not isinstance(model, TextAligned):
            raise NotApplicable(
                f"{model.spec.name}: it does not embed tokens and captions in one space; classes that inherit "
                "TextAligned do"
            )
        super().__init__()
        self._model: TextAligned = model


class Retrieval(TextAlignedMetric):
    """`image_to_caption_r1` and `_r5`: the share of images whose caption is among the 1 or 5 most similar of all
    different captions. `caption_to_image_r1` and `_r5`: the share of images for whose caption the 1 or 5 most similar
    images include one with that caption. All are in 0..1.

    Similarities are cosines of the embeddings that a `TextAligned` tokenizer computes from tokens and captions. Images
    with equal captions are equally correct. A candidate that is as similar as the right one is placed before it, so
    constant embeddings find nothing. The numbers depend on how many images there are. Intervals come from resampling
    the images' results, with all candidates kept.
    """

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        captions: list[str] = batch.require("captions")
        with torch.inference_mode():
            images = self._model.token_embeddings(batch.require("tokens"))
            texts = self._model.caption_embeddings(captions)
        columns = {name: F.normalize(part.float(), dim=1).cpu().numpy() for name, part in (("i", images), ("c", texts))}
        return columns | {"text": np.array(captions)}

    def measure(self) -> dict[str, np.ndarray]:
        """Return whether each image's result is right, float64 (n,), by number.

        Raises NotApplicable if there is only one caption.
        """
        different, first, own = np.unique(self.rows.texts("text"), return_index=True, return_inverse=True)
        if len(different) < 2:
            raise NotApplicable("all images have the same caption")
        images, captions = (torch.from_numpy(self.rows.column(name)).double() for name in ("i", "c"))
        ranks = rank_candidates(images @ captions[first].T, torch.from_numpy(own))
        return {
            f"{kind}_r{most}": (rank < most).double().numpy()
            for kind, rank in zip(("image_to_caption", "caption_to_image"), ranks, strict=True)
            for most in RANKS
        }


def rank_candidates(similarity: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rank from 0 of each image's caption among captions, and of the best right image for its caption among
    images, int64 (n,) each.

    similarity: (n, m) of n images and m captions. own: the position of each image's caption, int64 (n,).
    """
    right = own[:, None] == torch.arange(similarity.shape[1])
    score = similarity[right]
    by_image = (~(similarity < score[:, None]) & ~right).sum(1)  # `>=` would let NaN find everything
    best = similarity.masked_fill(~right, -torch.inf).amax(0)
    by_caption = (~(similarity < best) & ~right).sum(0)
    return by_image, by_caption[own]
