"""Tokens replaced by near misses: the operator of robust tokenizers' training, and of pFID.

Qiu et al., Robust Latent Matters (arXiv:2503.08354) and Image Tokenizer Needs Post-Training (arXiv:2509.12474). Their
code ranks codes by their distance to the encoder's latent, their papers by that to the chosen code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tokbench.errors import NotApplicable
from tokbench.metric_names import EXTENSIONS, Anchor
from tokbench.nn.nested_dropout import prefix
from tokbench.nn.quantizers.quantizer import Quantizer, distances, nearest
from tokbench.tokenizers.perturb import Change, Encode, Perturber, draw_uniform
from tokbench.tokenizers.tokens import Tokens

MOST_BITS = 58
"""Of a binary token: more would ask for more near codes than a draw of 53 bits can tell apart."""

Latents = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) to what enters the bottleneck, (B, *place, D)."""


def near(quantizer: Quantizer, latents: Tensor, count: int) -> Tensor:
    """The `count` codes nearest to latents (B, N, D), nearest first: int64 (B, N, G, count)."""
    return nearest(quantizer.anchors(latents), quantizer.table(), count)


def replaced(quantizer: Quantizer, latents: Tensor, alpha: float, delta: int) -> Tensor:
    """Indices (B, N, G), each with the chance `alpha` one of the `delta` codes nearest to its latent, each as likely.

    The nearest one, which quantization chooses, is among them: the share that changes is alpha (1 - 1 / delta). Drawn
    from torch's global generator.
    """
    codes = near(quantizer, latents, delta)
    shape = codes.shape[:-1]
    drawn, which = torch.rand(shape, device=codes.device), torch.randint(delta, shape, device=codes.device)
    return codes.gather(-1, torch.where(drawn < alpha, which, 0)[..., None])[..., 0]


def ranked(anchors: Tensor, table: Tensor, chosen: Tensor, count: int) -> Tensor:
    """The same as `near`, of anchors (B, N, G, d) and a table (G, K, d), with the code that was `chosen` (B, N, G) in
    front, whatever lies as near."""
    found = []
    # One image at a time: a product of other shape may round otherwise, and a batch of all distances has no room.
    for places, own in zip(anchors.split(1), chosen.split(1), strict=True):
        gaps = distances(places, table).scatter_(-1, own[..., None], -math.inf)
        found.append(gaps.topk(count, dim=-1, largest=False).indices)
    return torch.cat(found)


class CodePerturber(Perturber):
    """Each index with the chance alpha becomes one of the delta nearest in its codebook, each as likely; the chosen one
    is the first of them. In several codebooks the anchors are those of the unperturbed path."""

    def __init__(self, encode: Encode, latents: Latents, quantizer: Quantizer, anchor: Anchor, extension: str) -> None:
        self._encode, self._latents, self._quantizer, self._anchor = encode, latents, quantizer, anchor
        self.extension, self.codebook_size = EXTENSIONS[extension], quantizer.codebook_size

    def prepare(self, images: Tensor, seeds: Sequence[int], most: int) -> Change:
        tokens, table = self._encode(images), self._quantizer.table()
        chosen = tokens.tensor.flatten(1, -2)
        if self._anchor == "latent":
            anchors = self._quantizer.anchors(self._latents(images).flatten(1, -2))
        else:
            anchors = torch.stack([own[one] for own, one in zip(table, chosen.unbind(-1), strict=True)], dim=2)
        codes = ranked(anchors, table, chosen, most)
        whether, which = (drawn.to(codes.device) for drawn in draw_uniform(seeds, *chosen.shape[1:]))
        counts = prefix(tokens.length.to(codes.device), chosen.shape[1])[..., None]

        def change(alpha: float, delta: int) -> Tokens:
            rank = torch.where((whether < alpha) & counts, (which * delta).long(), 0)
            made = codes.gather(-1, rank[..., None])[..., 0]
            return tokens.with_data(made.view_as(tokens.tensor))

        return change


class BitPerturber(Perturber):
    """All bits of a token are one code of K = 2^bits. With the chance alpha an integer is drawn below delta, and where
    its j-th bit is set, the token's j-th least certain bit is flipped: delta different codes, the chosen one among
    them, each as likely.

    A bit is the more certain, the further its latent or chance lies from the middle between its two values.
    """

    def __init__(self, name: str, encode: Encode, latents: Latents, quantizer: Quantizer, anchor: Anchor) -> None:
        """name: whose tokens. Raises NotApplicable for the anchor `code`, and for more than MOST_BITS."""
        if anchor == "code":
            raise NotApplicable(f"{name}: at the code itself all bits are as certain; its anchor is the latent")
        self._each = (quantizer.codebook_size - 1).bit_length()
        self._bits = quantizer.groups * self._each
        if self._bits > MOST_BITS:
            raise NotApplicable(f"{name}: tokens of {self._bits} bits are too long; {MOST_BITS} can be perturbed")
        self._encode, self._latents, self._quantizer = encode, latents, quantizer
        self.extension, self.codebook_size = EXTENSIONS["binary"], 2**self._bits

    def prepare(self, images: Tensor, seeds: Sequence[int], most: int) -> Change:
        tokens, quantizer = self._encode(images), self._quantizer
        chosen = tokens.tensor.flatten(1, -2)
        anchors = quantizer.anchors(self._latents(images).flatten(1, -2))
        certainty = (anchors - quantizer.table().mean(1)).abs().flatten(2)
        order = certainty.argsort(dim=-1, stable=True)
        whether, which = (drawn[..., 0].to(order.device) for drawn in draw_uniform(seeds, chosen.shape[1], 1))
        counts = prefix(tokens.length.to(order.device), chosen.shape[1])
        places, own = (torch.arange(count, device=order.device) for count in (self._bits, self._each))

        def change(alpha: float, delta: int) -> Tokens:
            drawn = torch.where((whether < alpha) & counts, (which * delta).long(), 0)
            flips = torch.zeros_like(order).scatter_(-1, order, drawn[..., None] >> places & 1)
            masks = (flips.unflatten(-1, (-1, self._each)) << own).sum(-1)
            return tokens.with_data((chosen ^ masks).view_as(tokens.tensor))

        return change
