"""A small vision-language model: a patch encoder, a projector, and a causal decoder over visual tokens and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.data.questions import BEGIN, END, PADDING, Question, encode_words, questions_of
from tokbench.data.questions import SIZE as WORD_COUNT
from tokbench.data.synthetic.raster import Draws
from tokbench.data.vocabulary import SIZE as CAPTION_WORDS
from tokbench.data.vocabulary import decode_captions
from tokbench.errors import DataError
from tokbench.nn.trainable import Trainable, TrainingBatch
from tokbench.nn.vit import ADDED, Transformer, initialise, mlp, random_parameter, sincos_positions

LENGTH = 16
"""Largest number of words of a question with its answer."""

ROUNDS = 3
"""Draws of questions per image and training step."""


@dataclass(frozen=True)
class VlmShape:
    """Sizes of a vision-language model for images of 64 x 64 px, which give 16 x 16 visual tokens.

    width, depth, heads: of the decoder, whose MLPs have the hidden width `width`. vision_width, vision_depth,
    vision_heads: of the transformer blocks of the patch encoder.
    """

    width: int = 192
    depth: int = 6
    heads: int = 6
    vision_width: int = 96
    vision_depth: int = 2
    vision_heads: int = 3
    side: int = 16


class PatchEncoder(nn.Module):
    """Encodes images (B, 3, H, W) in [-1, 1] to features (B, 1 + N, D): CLS and one token per 4 x 4 px.

    A convolutional stem (arXiv:2106.14881) with strides of 2 and 2 replaces the patch embedding, because it learns
    faster in a short training.
    """

    def __init__(self, shape: VlmShape) -> None:
        super().__init__()
        width = shape.vision_width
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1), nn.GELU(), nn.Conv2d(32, 64, 3, 2, 1), nn.GELU(), nn.Conv2d(64, width, 3, 1, 1)
        )
        self.cls, self.positions = random_parameter(1, width), sincos_positions(shape.side, width)
        self.body = narrow_transformer(width, shape.vision_depth, shape.vision_heads)

    def embed(self, images: Tensor) -> Tensor:
        """Return the input of the blocks, (B, 1 + N, D). Positions are interpolated for images of another size."""
        grid = self.stem(images)
        side, positions = round(len(self.positions) ** 0.5), self.positions
        if grid.shape[-1] != side:
            square = positions.T.unflatten(1, (side, side))[None]
            positions = F.interpolate(square, grid.shape[-2:], mode="bilinear").flatten(2)[0].T
        patches = grid.flatten(2).transpose(1, 2) + positions
        return torch.cat([self.cls.expand(len(images), 1, -1), patches], 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.embed(images))


def narrow_transformer(width: int, depth: int, heads: int) -> Transformer:
    """Return a transformer whose MLPs have the hidden width `width`, instead of four times as much."""
    body = Transformer(width, depth, heads)
    for block in body.blocks:
        narrow = mlp(width, 1)
        narrow.apply(initialise)
        with torch.no_grad():
            narrow[2].weight.mul_(ADDED)  # type: ignore[operator]
        block.mlp = narrow
    return body


class WordDecoder(nn.Module):
    """A causal transformer over embedded tokens (B, L, D) that predicts the next word."""

    def __init__(self, shape: VlmShape, runs: int = 1) -> None:
        super().__init__()
        self.words, self.places = random_parameter(WORD_COUNT, shape.width), random_parameter(LENGTH, shape.width)
        self.runs = random_parameter(runs, shape.width)
        self.body = narrow_transformer(shape.width, shape.depth, shape.heads)
        self.head = nn.Linear(shape.width, WORD_COUNT)

    def embed_words(self, numbers: Tensor, run: int = 0, start: int = 0) -> Tensor:
        """Return the embeddings (B, T, D) of words (B, T) that follow the image at position `run`.

        start: the place of the first word among the words of this image.
        """
        return self.words[numbers] + self.places[start : start + numbers.shape[1]] + self.runs[run]

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Return the features (B, L, D) of all positions. mask: bool, broadcastable to (B, heads, L, L)."""
        return self.body(embedded, mask)


class MiniVLM(Trainable):
    """Answers questions about an image with one word.

    Prompt: BEGIN, the visual tokens, the words of the question. In training, several questions follow one image, and
    each sees the image and itself only. CLS of the patch encoder learns which words the caption contains, a substitute
    for contrastive pre-training; that layer is not stored.
    """

    kept_out = ("caption_words.",)

    def __init__(self, shape: VlmShape) -> None:
        super().__init__()
        self.shape = shape
        self.vision = PatchEncoder(shape)
        self.projector = nn.Sequential(
            nn.Linear(shape.vision_width, shape.width), nn.GELU(), nn.Linear(shape.width, shape.width)
        )
        self.projector.apply(initialise)
        self.decoder = WordDecoder(shape)

    def ready(self, device: str) -> None:
        self.caption_words = nn.Linear(self.shape.vision_width, CAPTION_WORDS).to(device)

    def visual_tokens(self, features: Tensor) -> Tensor:
        """Return the visual tokens (B, N, width) of the encoder's features (B, 1 + N, D)."""
        return self.projector(features[:, 1:])

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        if batch.captions is None:
            raise DataError("training a vision-language model needs captions; use the data set scenes-train")
        features = self.vision(batch.images)
        seeds = torch.randint(2**62, (len(batch.images),)).tolist()
        asked = [
            _several(caption, seed) for caption, seed in zip(decode_captions(batch.captions), seeds, strict=True)
        ]
        words, segments, places = (value.to(batch.images.device) for value in pack(asked))
        visual = self.visual_tokens(features)
        begin = self.decoder.embed_words(words.new_full((len(words), 1), BEGIN))
        text = self.decoder.words[words] + self.decoder.places[places] + self.decoder.runs[0]
        prefix = 1 + visual.shape[1]
        found = self.decoder(torch.cat([begin, visual, text], 1), packed_mask(prefix, segments))[:, prefix:]
        answers, ends = answer_targets(words, segments)
        logits = self.decoder.head(found[answers >= 0]).float()
        terms = {"answers": F.cross_entropy(logits, answers[answers >= 0])}
        terms["ends"] = 0.1 * F.cross_entropy(self.decoder.head(found[ends]).float(), answers.new_full((int(ends.sum()),), END))
        if hasattr(self, "caption_words"):
            present = torch.zeros(len(words), CAPTION_WORDS, device=words.device).scatter_(1, batch.captions, 1.0)
            terms["caption"] = 10 * F.binary_cross_entropy_with_logits(
                self.caption_words(features[:, 0]).float(), present
            )
        return terms


def _several(caption: str, seed: int) -> list[Question]:
    """Return different questions about one image, from ROUNDS draws; those after numbers come from the first draw,
    since more draws would favour the rarer single objects."""
    rounds = [questions_of(caption, Draws(f"{seed}/{number}")) for number in range(ROUNDS)]
    chosen = rounds[0] + [one for later in rounds[1:] for one in later if one.kind != "count"]
    return list(dict.fromkeys(chosen))


def pack(asked: Sequence[Sequence[Question]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return words, segments and places, int64 (B, T), of several questions with their answers for each image.

    Segments number the questions of an image from 0, and are -1 in empty places. Places number a question's words.
    """
    rows = [[encode_words((*one.words, one.answer)) for one in questions] for questions in asked]
    length = max(sum(map(len, row)) for row in rows)
    words = torch.full((len(rows), length), PADDING)
    segments, places = torch.full_like(words, -1), torch.zeros_like(words)
    for place, row in enumerate(rows):
        flat = [(word, segment, at) for segment, numbers in enumerate(row) for at, word in enumerate(numbers)]
        words[place, : len(flat)], segments[place, : len(flat)], places[place, : len(flat)] = torch.tensor(flat).T
    return words, segments, places


def packed_mask(prefix: int, segments: Tensor) -> Tensor:
    """Return the mask (B, 1, L, L) over `prefix` tokens and then segments (B, T), all causal; each segment sees the
    prefix and itself."""
    full = F.pad(segments, (prefix, 0), value=-2)
    same = (full[:, :, None] == full[:, None, :]) | (full[:, None, :] == -2)
    return (same & torch.ones_like(same[0]).tril())[:, None]


def answer_targets(words: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
    """Return the answers (B, T) to predict at the last word of each question, -1 elsewhere, and where answers are.

    words, segments: as `pack` returns them.
    """
    following = F.pad(segments[:, 1:], (0, 1), value=-1)
    ends = (segments >= 0) & (segments != following)  # the answer is the last word of a segment
    before = F.pad(ends[:, 1:], (0, 1), value=False)
    answers = F.pad(words[:, 1:], (0, 1), value=PADDING)
    return answers.masked_fill(~before, -1), ends
