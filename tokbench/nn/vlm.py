"""A small vision-language model: a patch encoder, a projector, and a causal decoder over visual tokens and words."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.data.questions import BEGIN, END, NONSENSE, PADDING, Question, encode_words, parse, questions_of
from tokbench.data.questions import SIZE as WORD_COUNT
from tokbench.data.synthetic.raster import Draws
from tokbench.data.vocabulary import SIZE as CAPTION_WORDS
from tokbench.data.vocabulary import decode_captions
from tokbench.errors import DataError
from tokbench.nn.masks import causal
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
        side = round(len(self.positions) ** 0.5)
        positions: Tensor = self.positions
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


class VisionLanguage(Trainable):
    """A model whose prompts consist of images and words; base class of the two models below.

    encoder: the patch encoder and the projector come from it. pool: side of the squares of visual tokens that are
    averaged.
    """

    shape: VlmShape
    decoder: WordDecoder
    pool: int = 1

    @property
    @abstractmethod
    def encoder(self) -> MiniVLM:
        """The model whose patch encoder and projector make the visual tokens."""

    def visual_tokens(self, features: Tensor) -> Tensor:
        """Return the visual tokens (B, N, width) of the encoder's features (B, 1 + P, D), N = P / pool^2."""
        tokens = self.encoder.projector(features[:, 1:])
        if self.pool == 1:
            return tokens
        side = round(tokens.shape[1] ** 0.5)
        return F.avg_pool2d(tokens.transpose(1, 2).unflatten(2, (side, side)), self.pool).flatten(2).transpose(1, 2)


class MiniVLM(VisionLanguage):
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

    @property
    def encoder(self) -> MiniVLM:
        return self

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        if batch.captions is None:
            raise DataError("training a vision-language model needs captions; use the data set scenes-train")
        features = self.vision(batch.images)
        seeds = torch.randint(2**62, (len(batch.images),)).tolist()
        asked = [_several(caption, seed) for caption, seed in zip(decode_captions(batch.captions), seeds, strict=True)]
        words, segments, places = (value.to(batch.images.device) for value in pack(asked))
        visual = self.visual_tokens(features)
        begin = self.decoder.embed_words(words.new_full((len(words), 1), BEGIN))
        visual = visual + self.decoder.runs[0]
        text = self.decoder.words[words] + self.decoder.places[places] + self.decoder.runs[0]
        prefix = 1 + visual.shape[1]
        found = self.decoder(torch.cat([begin, visual, text], 1), packed_mask(prefix, segments))[:, prefix:]
        answers, ends = answer_targets(words, segments)
        logits = self.decoder.head(found[answers >= 0]).float()
        terms = {"answers": F.cross_entropy(logits, answers[answers >= 0])}
        ended = self.decoder.head(found[ends]).float()
        terms["ends"] = 0.1 * F.cross_entropy(ended, answers.new_full((len(ended),), END))
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


DEMONSTRATIONS = 4
"""Demonstrations in the prompt of an episode; all have different colours, and one has the colour of the query."""


@dataclass(frozen=True)
class Episode:
    """Demonstrations and a query. places: of the images, the query last. words: of the demonstrations and, last, of the
    answer, which is the word of the demonstration whose main object has the query's colour."""

    places: tuple[int, ...]
    words: tuple[str, ...]


def episode(colours: Sequence[str], query: int, draws: Draws) -> Episode | None:
    """Return an episode of images with these colours of their main objects, or None if no image can be its example.

    The words are drawn independently of the images, so that they say nothing without the demonstrations.
    """
    alike = [place for place, colour in enumerate(colours) if colour == colours[query] and place != query]
    others = [place for place, colour in enumerate(colours) if colour != colours[query]]
    if not alike or len({colours[place] for place in others}) < DEMONSTRATIONS - 1:
        return None
    chosen = [draws.one_of(alike)]
    while len(chosen) < DEMONSTRATIONS:
        taken = {colours[place] for place in chosen}
        chosen.append(draws.one_of([place for place in others if colours[place] not in taken]))
    shuffled = draws.some_of(chosen, len(chosen))
    words = draws.some_of(NONSENSE, len(chosen))
    return Episode((*shuffled, query), (*words, words[shuffled.index(chosen[0])]))


class InContextVLM(VisionLanguage):
    """Names the colour of an image by the words that the same prompt binds to colours (in-context learning).

    Prompt: BEGIN; for each demonstration its visual tokens, `?` and its word; the visual tokens of the query and `?`.
    Patch encoder and projector are those of a trained MiniVLM, and are not trained further. Visual tokens are averages
    of 2 x 2 tokens. Each batch gives one episode for `share` of its images.
    """

    pool = 2

    def __init__(self, base: MiniVLM, share: float = 0.25) -> None:
        super().__init__()
        self.bases: dict[str, nn.Module] = {"base": base.requires_grad_(False)}
        self.shape, self.share = base.shape, share
        self.decoder = WordDecoder(base.shape, DEMONSTRATIONS + 1)

    @property
    def encoder(self) -> MiniVLM:
        base = self.bases["base"]
        assert isinstance(base, MiniVLM)
        return base

    def loss(self, batch: TrainingBatch, progress: float) -> dict[str, Tensor]:
        if batch.captions is None:
            raise DataError("training a vision-language model needs captions; use the data set scenes-train")
        with torch.no_grad():
            visual = self.visual_tokens(self.encoder.vision(batch.images))
        colours = [parse(caption).objects[0].colour for caption in decode_captions(batch.captions)]
        seeds = torch.randint(2**62, (len(colours),)).tolist()
        wanted = max(1, int(self.share * len(colours)))
        found = [episode(colours, query, Draws(f"{seed}")) for query, seed in enumerate(seeds)]
        episodes = [one for one in found if one is not None][:wanted]
        if not episodes:
            raise DataError("no two images of a batch have the same colour; use larger batches of scenes-train")
        embedded = self.embed_episodes(visual, episodes)
        features = self.decoder(embedded, causal(embedded.shape[1]).to(embedded.device))
        answers = torch.tensor([encode_words(one.words[-1:])[0] for one in episodes], device=embedded.device)
        return {"answers": F.cross_entropy(self.decoder.head(features[:, -1]).float(), answers)}

    def embed_episodes(self, visual: Tensor, episodes: Sequence[Episode]) -> Tensor:
        """Return the embedded prompts (E, L, width) of episodes over visual tokens (B, N, width)."""
        begin = torch.full((len(episodes), 1), BEGIN, device=visual.device)
        parts = [self.decoder.embed_words(begin)]
        for run in range(DEMONSTRATIONS + 1):
            places = [one.places[run] for one in episodes]
            texts = [("?",) if run == DEMONSTRATIONS else ("?", one.words[run]) for one in episodes]
            words = torch.tensor([encode_words(text) for text in texts], device=visual.device)
            parts += [visual[places] + self.decoder.runs[run], self.decoder.embed_words(words, run)]
        return torch.cat(parts, 1)
