"""A small causal language model that describes images from visual tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.data.vocabulary import LENGTH, PADDING, SIZE
from tokbench.nn.masks import causal
from tokbench.nn.vit import Past, Transformer, initialise, random_parameter


class CaptionDecoder(nn.Module):
    """A decoder-only transformer over `count` visual tokens (B, count, dim) and then the words of a caption.

    A perceptron with GELU projects the visual tokens to the width of the transformer. PADDING ends a caption.
    """

    mask: Tensor

    def __init__(self, count: int, dim: int, width: int = 96, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.count = count
        self.projector = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, width))
        self.projector.apply(initialise)
        self.words, self.places = random_parameter(SIZE, width), random_parameter(count + LENGTH, width)
        self.body, self.head = Transformer(width, depth, heads), nn.Linear(width, SIZE)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("mask", causal(count + LENGTH), persistent=False)

    def forward(self, visual: Tensor, captions: Tensor) -> Tensor:
        """Return logits (B, L, SIZE) of the L words, each given the visual tokens and the earlier words of captions
        (B, L)."""
        inputs = torch.cat([self.projector(visual), self.words[captions[:, :-1]]], 1)
        length = inputs.shape[1]
        features = self.body(inputs + self.places[:length], self.mask[:length, :length])
        return self.head(features[:, self.count - 1 :])

    def loss(self, visual: Tensor, captions: Tensor) -> Tensor:
        """Return the mean cross-entropy of the words of captions (B, L) and of their ends, in nats."""
        logits = self(visual, captions).float()
        present = captions != PADDING
        counted = torch.cat([torch.ones_like(present[:, :1]), present[:, :-1]], 1)  # the words, and the end after them
        return F.cross_entropy(logits[counted], captions[counted])

    @torch.no_grad()
    def describe(self, visual: Tensor) -> Tensor:
        """Return the captions int64 (B, LENGTH) whose words have the highest probability, one after the other."""
        pasts = [Past() for _ in self.body.blocks]
        inputs = self.projector(visual) + self.places[: self.count]
        features = self.body(inputs, self.mask[: self.count, : self.count], pasts=pasts)[:, -1]
        words, ended = [], torch.zeros(len(visual), dtype=torch.bool, device=visual.device)
        for place in range(LENGTH):
            word = self.head(features).argmax(-1).masked_fill(ended, PADDING)
            words.append(word)
            ended = ended | (word == PADDING)
            if place + 1 < LENGTH:
                following = self.words[word] + self.places[self.count + place]
                features = self.body(following[:, None], pasts=pasts)[:, 0]
        return torch.stack(words, 1)
