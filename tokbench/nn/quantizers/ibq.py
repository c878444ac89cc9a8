"""Index backpropagation quantization: gradients reach all entries of the codebook (IBQ, arXiv:2412.02692)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tokbench.nn.quantizers.quantizer import Quantized, distances, exact, straight_through, usage
from tokbench.nn.quantizers.vq import VectorQuantizer


class IndexBackpropagation(VectorQuantizer):
    """A vector quantizer whose gradient estimator is the choice of the index, not the identity.

    The nearest entry is chosen. For gradients, the choice is the softmax of the negative squared distances, divided by
    `temperature`, over all entries, so that the gradients of the decoder's input reach the latents through the
    distances, and the codebook directly. The paper uses dot products and no temperature. The other arguments and the
    codebook and commitment losses are those of `VectorQuantizer`.
    """

    def __init__(self, codebook_size: int, dim: int, *, temperature: float = 0.1, commitment: float = 0.25) -> None:
        super().__init__(codebook_size, dim, normalised=False, commitment=commitment)
        self.temperature = temperature

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize (B, N, D), with the statistics `perplexity` and `used` (share of the entries) of this batch."""
        anchors, table = self.anchors(latents), self.table()
        gaps = distances(anchors, table)[:, :, 0]
        indices = gaps.argmin(-1)
        soft = F.softmax(-gaps / self.temperature, dim=-1)
        choice = straight_through(soft, F.one_hot(indices, self.codebook_size).to(soft))
        chosen = F.embedding(indices, table[0])
        with exact(latents):
            vectors = straight_through(choice @ table[0], chosen)
        loss = self.match(anchors[:, :, 0], chosen)
        return Quantized(vectors, indices[..., None], loss, usage(indices[..., None], self.codebook_size))
