"""Latent perturbation, which replaces tokens by nearby codes; it is used to train robust tokenizers and for pFID.

Qiu et al., Robust Latent Matters (arXiv:2503.08354) and Image Tokenizer Needs Post-Training (arXiv:2509.12474). The
authors' code ranks the codes by distance to the encoder's latent, the papers by distance to the chosen code.
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

MAX_BITS = 58
"""The longest binary token, in bits, that can be perturbed: a float64 draw has 53 bits to select one of delta codes."""

Latents = Callable[[Tensor], Tensor]
"""A function from images (B, 3, H, W) to the inputs of the bottleneck (B, *position, D)."""


def nearest_codes(quantizer: Quantizer, latents: Tensor, count: int) -> Tensor:
    """Return the `count` codes nearest to latents (B, N, D), nearest first, int64 (B, N, G, count)."""
    return nearest(quantizer.anchors(latents), quantizer.table(), count)


def replace_codes(quantizer: Quantizer, latents: Tensor, alpha: float, delta: int) -> Tensor:
    """Quantize latents (B, N, D) to indices int64 (B, N, G), of which a random part is perturbed.

    With probability `alpha` an index is drawn uniformly from the `delta` codes nearest to its latent. These include the
    nearest code, which quantization chooses, so the expected share of changed indices is alpha (1 - 1 / delta). The
    random numbers come from torch's global generator.
    """
    codes = nearest_codes(quantizer, latents, delta)
    shape = codes.shape[:-1]
    drawn, code_draws = torch.rand(shape, device=codes.device), torch.randint(delta, shape, device=codes.device)
    return codes.gather(-1, torch.where(drawn < alpha, code_draws, 0)[..., None])[..., 0]


def rank_codes(anchors: Tensor, table: Tensor, chosen: Tensor, count: int) -> Tensor:
    """Return the `count` entries of a table (G, K, d) nearest to anchors (B, N, G, d), int64 (B, N, G, count).

    The `chosen` code (B, N, G) comes first even if other codes are equally near; the others follow, nearest first.
    """
    found = []
    # One image at a time: rounding may depend on the shape of a product, and all distances of a batch need much memory.
    for single, own in zip(anchors.split(1), chosen.split(1), strict=True):
        squared = distances(single, table).scatter_(-1, own[..., None], -math.inf)
        found.append(squared.topk(count, dim=-1, largest=False).indices)
    return torch.cat(found)


class CodePerturber(Perturber):
    """Replaces each index, with probability alpha, by one of the delta nearest codes of its codebook, drawn uniformly.

    The delta codes include the chosen one. With several codebooks the anchors are those of the unperturbed encoding.
    """

    def __init__(self, encode: Encode, latents: Latents, quantizer: Quantizer, anchor: Anchor, extension: str) -> None:
        self._encode, self._latents, self._quantizer, self._anchor = encode, latents, quantizer, anchor
        self.extension, self.codebook_size = EXTENSIONS[extension], quantizer.codebook_size

    def prepare(self, images: Tensor, seeds: Sequence[int], most: int) -> Change:
        tokens = self._encode(images)
        chosen = tokens.tensor.flatten(1, -2)
        segments = self._quantizer.segments(chosen)
        if self._anchor == "latent":
            latents = self._quantizer.segments(self._latents(images).flatten(1, -2))
            anchors = [quantizer.anchors(piece) for quantizer, piece in latents]
        else:
            anchors = [_entries(quantizer.table(), own) for quantizer, own in segments]
        ranked = [
            rank_codes(near, quantizer.table(), own, most)
            for near, (quantizer, own) in zip(anchors, segments, strict=True)
        ]
        codes = torch.cat(ranked, dim=1)
        replace_draws, code_draws = (drawn.to(codes.device) for drawn in draw_uniform(seeds, *chosen.shape[1:]))
        counts = prefix(tokens.length.to(codes.device), chosen.shape[1])[..., None]

        def change(alpha: float, delta: int) -> Tokens:
            rank = torch.where((replace_draws < alpha) & counts, (code_draws * delta).long(), 0)
            made = codes.gather(-1, rank[..., None])[..., 0]
            return tokens.with_data(made.view_as(tokens.tensor))

        return change


def _entries(table: Tensor, chosen: Tensor) -> Tensor:
    """Return the entries (B, N, G, d) of a table (G, K, d) that the indices (B, N, G) choose."""
    return torch.stack([own[one] for own, one in zip(table, chosen.unbind(-1), strict=True)], dim=2)


class BitPerturber(Perturber):
    """Perturbs binary tokens; all bits of a token form one code of K = 2^bits.

    With probability alpha an integer is drawn uniformly from 0 to delta - 1, and for each bit j of it that is set, the
    token's j-th least certain bit is flipped. This gives delta different codes with equal probability, among them the
    chosen one. The certainty of a bit is the distance of its latent, or of its probability, from the midpoint of the
    two values.
    """

    def __init__(self, name: str, encode: Encode, latents: Latents, quantizer: Quantizer, anchor: Anchor) -> None:
        """name: the tokenizer's name, for messages. Raises NotApplicable for the anchor `code` or too many bits."""
        if anchor == "code":
            raise NotApplicable(f"{name}: at its code all bits of a token are equally certain; use the anchor 'latent'")
        self._each = (quantizer.codebook_size - 1).bit_length()
        self._bits = quantizer.groups * self._each
        if self._bits > MAX_BITS:
            raise NotApplicable(f"{name}: tokens of {self._bits} bits cannot be perturbed; the limit is {MAX_BITS}")
        self._encode, self._latents, self._quantizer = encode, latents, quantizer
        self.extension, self.codebook_size = EXTENSIONS["binary"], 2**self._bits

    def prepare(self, images: Tensor, seeds: Sequence[int], most: int) -> Change:
        tokens, quantizer = self._encode(images), self._quantizer
        chosen = tokens.tensor.flatten(1, -2)
        anchors = quantizer.anchors(self._latents(images).flatten(1, -2))
        certainty = (anchors - quantizer.table().mean(1)).abs().flatten(2)
        order = certainty.argsort(dim=-1, stable=True)
        replace_draws, code_draws = (
            drawn[..., 0].to(order.device) for drawn in draw_uniform(seeds, chosen.shape[1], 1)
        )
        counts = prefix(tokens.length.to(order.device), chosen.shape[1])
        shifts, own = (torch.arange(count, device=order.device) for count in (self._bits, self._each))

        def change(alpha: float, delta: int) -> Tokens:
            drawn = torch.where((replace_draws < alpha) & counts, (code_draws * delta).long(), 0)
            flips = torch.zeros_like(order).scatter_(-1, order, drawn[..., None] >> shifts & 1)
            masks = (flips.unflatten(-1, (-1, self._each)) << own).sum(-1)
            return tokens.with_data((chosen ^ masks).view_as(tokens.tensor))

        return change
