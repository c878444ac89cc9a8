"""The vision-language models that are trained in this repository, as the reduction of visual tokens sees them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.data.dataset import Dataset
from tokbench.data.questions import BEGIN, decode_words, encode_words, parse, questions_of
from tokbench.data.synthetic.raster import Draws
from tokbench.errors import DataError, UsageError
from tokbench.evaluation.seeds import image_seeds
from tokbench.io.hashing import sha256_of
from tokbench.nn.masks import causal
from tokbench.nn.vit import Past
from tokbench.nn.vlm import DEMONSTRATIONS, LENGTH, InContextVLM, VisionLanguage, episode
from tokbench.pruning.vit import Attended
from tokbench.pruning.vlm.model import Asked, DecoderSizes, Prompt, VisionLanguageModel, Visual
from tokbench.tokenizers.registry import network_files
from tokbench.training.zoo import open_network
from tokbench.weights.shards import shard_paths

PATCH = 4
"""Height and width in pixels of the patch of one visual token, before tokens are averaged."""

POOL = 64
"""Images among which the demonstrations of an episode are chosen."""


class MiniModel(VisionLanguageModel):
    """A VisionLanguage network with the interface of VisionLanguageModel."""

    def __init__(self, name: str, network: VisionLanguage, device: str, weights: dict[str, str]) -> None:
        shape = network.shape
        sizes = DecoderSizes(shape.depth, shape.width, shape.width, shape.width, shape.width, 2)
        super().__init__(name, sizes, shape.side * PATCH, device, weights)
        network.to(device).eval().requires_grad_(False)
        network.encoder.to(device).eval()
        self.network, self.blocks = network, list(network.decoder.body.blocks)

    @property
    def several(self) -> bool:
        """Whether prompts consist of several images."""
        return isinstance(self.network, InContextVLM)

    def questions(self, dataset: Dataset, batch: int) -> Iterator[Asked]:
        if self.several:
            yield from _read(dataset, POOL, self.device, _episodes)
        else:
            yield from scene_questions(dataset, batch, self.device)

    def embed(self, asked: Asked, side: int) -> Prompt:
        network, decoder = self.network, self.network.decoder
        count, images = asked.images.shape[:2]
        pixels = asked.images.flatten(0, 1)
        if side != self.side:
            size = (side, side)
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
        vision = network.encoder.vision
        embedded = vision.embed(pixels)
        *earlier, last = vision.body.blocks
        for block in earlier:
            embedded = block(embedded)
        seen = _pooled(_attended(last, embedded), network.pool)
        features = vision.body.norm(last(embedded))
        tokens = network.visual_tokens(features).unflatten(0, (count, images))
        parts = [decoder.embed_words(torch.full((count, 1), BEGIN, device=pixels.device))]
        image, follows = [-1], [-1]
        cells = side // PATCH // network.pool
        visual = []
        for run, texts in enumerate(asked.texts):
            words = torch.tensor([encode_words(text) for text in texts], device=pixels.device)
            own = run + len(decoder.runs) - images  # the last image is the query, also without demonstrations
            parts += [tokens[:, run] + decoder.runs[own], decoder.embed_words(words, own)]
            image += [run] * tokens.shape[2] + [-1] * words.shape[1]
            follows += [run] * (tokens.shape[2] + words.shape[1])
            rows = torch.arange(run, count * images, images, device=pixels.device)
            attended = Attended(seen.query[rows], seen.key[rows], seen.value[rows])
            visual.append(Visual(attended, 1, (pixels[rows] + 1) / 2, (cells, cells)))
        hidden = torch.cat(parts, 1)
        structure = torch.tensor([image, follows], device=pixels.device)[:, None].expand(-1, count, -1)
        places = torch.arange(hidden.shape[1], device=pixels.device).expand(count, -1)
        return Prompt(hidden, places, structure[0], structure[1], tuple(visual), asked.seeds, following=words.shape[1])

    def sides(self) -> Sequence[tuple[int, int]]:
        step = PATCH * self.network.pool
        return [(side, (side // step) ** 2) for side in range(step, self.side + 1, step)]

    def cache(self) -> list[Past]:
        return [Past() for _ in self.blocks]

    def split_cache(self, cache: list[Past], rows: Tensor) -> list[Past]:
        return [
            Past() if past.key is None or past.value is None else Past(past.key[rows], past.value[rows])
            for past in cache
        ]

    def fork_cache(self, cache: list[Past]) -> list[Past]:
        return [Past(past.key, past.value) for past in cache]  # appending makes new tensors

    def layer(self, index: int, hidden: Tensor, positions: Tensor, cache: list[Past]) -> Tensor:
        n = hidden.shape[1]
        mask = None if n == 1 else causal(n).to(hidden.device)
        return self.blocks[index](hidden, mask, past=cache[index])

    def attended(self, index: int, hidden: Tensor, positions: Tensor) -> Attended:
        return _attended(self.blocks[index], hidden)

    def norm(self, hidden: Tensor) -> Tensor:
        return self.network.decoder.body.norm(hidden)

    def logits(self, features: Tensor) -> Tensor:
        return self.network.decoder.head(features)

    def embed_next(self, words: Tensor, prompt: Prompt, step: int) -> tuple[Tensor, Tensor]:
        place = min(prompt.following + step, LENGTH - 1)  # only timing generates more than the answer and its end
        decoder = self.network.decoder
        embedded = decoder.embed_words(words[:, None], len(decoder.runs) - 1, place)
        return embedded, torch.full_like(words[:, None], place)

    def read(self, generate: Any, first: Tensor) -> list[str]:
        return decode_words(first.tolist())


def _attended(block: Any, hidden: Tensor) -> Attended:
    """Return queries, keys and values of a block of `tokbench.nn.vit` for its inputs (B, n, D)."""
    attention, normed = block.attention, block.norm(hidden)
    query = attention.query(normed).unflatten(2, (attention.heads, -1)).transpose(1, 2)
    key, value = attention.key_value(normed).unflatten(2, (2, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    return Attended(query, key, value)


def _pooled(seen: Attended, pool: int) -> Attended:
    """Return the attention over CLS and averaged patches, whose queries, keys and values are averaged as well."""
    if pool == 1:
        return seen

    def mean(given: Tensor) -> Tensor:
        patches = given[:, :, 1:].transpose(2, 3)
        side = round(patches.shape[3] ** 0.5)
        grid = F.avg_pool2d(patches.flatten(0, 1).unflatten(2, (side, side)), pool).flatten(2)
        return torch.cat([given[:, :, :1], grid.unflatten(0, given.shape[:2]).transpose(2, 3)], 2)

    return Attended(mean(seen.query), mean(seen.key), mean(seen.value))


Make = Callable[[Tensor, Sequence[str], Sequence[str], Sequence[int]], Iterator[Asked]]


def _read(dataset: Dataset, batch: int, device: str, make: Make) -> Iterator[Asked]:
    """Yield what `make` makes of pixels (B, 3, H, W) in [-1, 1], captions, names and seeds of each batch of images.

    Raises DataError if the data set has no captions.
    """
    reader = dataset.batches(batch)
    for images in reader:
        reader.prefetch()
        if not images.captions:
            raise DataError(
                f"{dataset.name} has no captions, from which questions are derived; use --data scenes or "
                "--data scenes-heldout"
            )
        pixels = (images.reference * 2 - 1).to(device)
        yield from make(pixels, images.captions, list(images.names), image_seeds(0, images.index.tolist(), 1))


def scene_questions(dataset: Dataset, batch: int, device: str) -> Iterator[Asked]:
    """Yield the questions about a data set of scenes, one `Asked` for each batch of images and type."""
    return _read(dataset, batch, device, _questions)


def _questions(pixels: Tensor, captions: Sequence[str], names: Sequence[str], seeds: Sequence[int]) -> Iterator[Asked]:
    """Yield the questions about images (B, 3, H, W), one `Asked` for each type."""
    found = defaultdict(list)
    for place, (caption, name) in enumerate(zip(captions, names, strict=True)):
        for one in questions_of(caption, Draws(f"tokbench questions 1/{name}")):
            found[one.kind].append((place, one))
    for kind, asked in sorted(found.items()):
        places = [place for place, _ in asked]
        yield Asked(
            kind,
            tuple(f"{names[place]} {kind}" for place in places),
            pixels[places][:, None],
            (tuple(one.words for _, one in asked),),
            tuple(one.answer for _, one in asked),
            torch.tensor([seeds[place] for place in places]),
        )


def _episodes(pixels: Tensor, captions: Sequence[str], names: Sequence[str], seeds: Sequence[int]) -> Iterator[Asked]:
    """Yield one episode for each of the images (B, 3, H, W) that can be a query."""
    colours = [parse(caption).objects[0].colour for caption in captions]
    drawn = [episode(colours, place, Draws(f"tokbench episodes 1/{name}")) for place, name in enumerate(names)]
    found = [one for one in drawn if one is not None]
    if not found:
        return
    texts = [tuple(("?", one.words[run]) for one in found) for run in range(DEMONSTRATIONS)]
    queries = [one.places[-1] for one in found]
    yield Asked(
        "binding",
        tuple(f"{names[query]} binding" for query in queries),
        torch.stack([pixels[list(one.places)] for one in found]),
        (*texts, tuple(("?",) for _ in found)),
        tuple(one.words[-1] for one in found),
        torch.tensor([seeds[query] for query in queries]),
    )


def without_demonstrations(asked: Asked) -> Asked:
    """Return the same queries without the demonstrations, the control of in-context learning."""
    return Asked(asked.kind, asked.ids, asked.images[:, -1:], asked.texts[-1:], asked.answers, asked.seeds)


def load_mini(name: str, device: str, root: Path | None = None) -> MiniModel:
    """Load a trained vision-language model. Raises UsageError for another network, MissingWeights without weights."""
    toml = network_files(root)[name]
    variant, network = open_network(name, toml)
    if not isinstance(network, VisionLanguage):
        raise UsageError(f"{name} is a {type(network).__name__}, not a vision-language model")
    weights = {path.name: sha256_of(path) for path in shard_paths(variant.file)}
    return MiniModel(name, network, device, weights)
