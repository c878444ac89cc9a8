"""How well the codes of an image can be predicted from its earlier codes, by a small GPT that is trained for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import NotApplicable
from tokbench.metrics.batch import Batch
from tokbench.metrics.token_metric import TokenMetric
from tokbench.stats.bootstrap import Interval, bootstrap, mean
from tokbench.tokenizers.tokens import Tokens

FEWEST = 64
"""The smallest number of images; with fewer, the network has too few to learn from."""

BASE = 1024
"""The largest codebook whose codes are predicted as a whole; larger codes are split into digits."""

LONGEST = 2048
"""The largest number of digits of an image."""

WIDTH, DEPTH, HEADS = 64, 2, 4
"""Size of the network: about 100,000 parameters, and 128 for each code of a codebook."""

STEPS, DIGITS_PER_STEP, RATE = 500, 1024, 3e-3
"""Number of training steps, digits per step (at least one image), and the peak learning rate of AdamW, which grows over
the first 5 % of the steps and then falls to 0 as a cosine."""


@dataclass(frozen=True)
class Digits:
    """The codes of images as rows of digits (n, L), each with its own alphabet.

    kind: int64 (L,), which alphabet the digit has. sizes: the number of values of each kind. counts: bool (n, L), which
    digits an image uses. tokens: float64 (n,), the number of tokens of each image. nominal: the bits of each digit if
    all codes are equally likely (L,), which add up to log2 K per code.
    """

    rows: Tensor
    kind: Tensor
    sizes: list[int]
    counts: Tensor
    tokens: np.ndarray
    nominal: np.ndarray


class CodePrediction(TokenMetric):
    """`gpt_bits_per_token`: cross-entropy, in bits per token, of a small GPT on the codes of images that it was not
    trained on; the mean over these images. `gpt_bits_share`: the same relative to the bits of equally likely codes,
    log2 K each, which compares tokenizers with codebooks of different sizes: 1 means that nothing can be predicted.
    `gpt_order0_share`: relative to the bits of the frequencies of codes, which compares how much follows from earlier
    codes even if one tokenizer uses fewer of its codes.

    The network is the same for every tokenizer: a decoder-only transformer (2 blocks of width 64) without labels, which
    reads the codes of an image in the order in which they are stored, stream after stream, and the indices of a token
    one after the other. Codes of more than 1,024 values are split into digits, which are predicted one after the other,
    so the bits of a code are the sum of those of its digits. It is trained for 500 steps of about 1,024 digits on four
    fifths of the images (random, with a seed that depends on their number only), and measured on the others. A larger
    network or more images would give fewer bits: the numbers compare tokenizers on the same images and are no limits.
    Intervals come from resampling the measured images; they do not contain the variation of the training. Where images
    differ in length, the bits of the lengths are not counted.

    It takes about 14 seconds of one CPU core, or more where an image has more than 1,024 digits.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cached: tuple[int, dict[str, tuple[np.ndarray, np.ndarray]]] | None = None

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return the codes and each image's length. Raises NotApplicable where not all tokens are codes."""
        columns = super().per_sample(batch)
        tokens: Tokens = batch.require("tokens")
        if others := [name for name, stream in tokens.streams.items() if stream.kind != "index"]:
            raise NotApplicable(f"the tokens of stream '{others[0]}' are not codes")
        return columns

    def compute(self) -> dict[str, float]:
        return {name: mean(values) for name, (_, values) in self.per_image().items()}

    def per_image(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        count = len(self.rows)
        if self._cached is None or self._cached[0] != count:
            self._cached = count, self._measure(count)
        return self._cached[1]

    def intervals(self, seed: int) -> dict[str, Interval]:
        found = self.per_image().items()
        return {name: bootstrap(values, seed).within((0.0, math.inf)) for name, (_, values) in found}

    def provenance(self) -> dict[str, str]:
        return {
            "network": f"GPT, {DEPTH} blocks of width {WIDTH}, {STEPS} steps of {DIGITS_PER_STEP} digits, seed 0",
            "images": "trained on four fifths, measured on one fifth",
        }

    def _measure(self, count: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        if count < FEWEST:
            raise NotApplicable(f"needs {FEWEST} or more images to train a network on, not {count}")
        digits = self._digits()
        if digits.rows.shape[1] > LONGEST:
            raise NotApplicable(f"an image has {digits.rows.shape[1]:,} digits; at most {LONGEST:,} are predicted")
        order = np.random.default_rng(0).permutation(count)
        test, train = np.sort(order[: count // 5]), order[count // 5 :]
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.manual_seed(0)
            network = train_network(digits, torch.from_numpy(train))
        bits = network.bits(digits, torch.from_numpy(test))
        nominal = (digits.counts[torch.from_numpy(test)].numpy() * digits.nominal).sum(1)
        order0 = frequency_bits(digits, torch.from_numpy(train), torch.from_numpy(test))
        found = {
            "gpt_bits_per_token": bits / digits.tokens[test],
            "gpt_bits_share": bits / np.maximum(nominal, 1e-9),
            "gpt_order0_share": bits / np.maximum(order0, 1e-9),
        }
        every = {name: np.full(count, np.nan) for name in found}  # images of the training have no value
        for name, values in found.items():
            every[name][test] = values
        return {name: (self.rows.index(), values) for name, values in every.items()}

    def _digits(self) -> Digits:
        lengths, single = self.lengths(), len(self.streams()) == 1
        columns, kinds, sizes, counts, nominal = [], list[int](), list[int](), [], list[float]()
        for name in self.streams():
            codes, size, groups = self.rows.column(name).astype(np.int64), int(self.size(name)), self.groups(name)
            bases = split_base(size)
            first = len(sizes)
            sizes += bases * groups
            used = np.arange(codes.shape[1]) // groups < (lengths[:, None] if single else codes.shape[1])
            columns.append(np.stack(to_digits(codes, bases), axis=2).reshape(len(codes), -1))
            counts.append(np.repeat(used, len(bases), axis=1))
            per_token = [first + at for at in range(len(bases) * groups)]
            kinds += per_token * (codes.shape[1] // groups)
            whole = sum(math.log2(base) for base in bases)
            shares = [math.log2(base) / whole * math.log2(size) if whole else 0.0 for base in bases]
            nominal += shares * codes.shape[1]
        return Digits(
            torch.from_numpy(np.concatenate(columns, axis=1)),
            torch.tensor(kinds),
            sizes,
            torch.from_numpy(np.concatenate(counts, axis=1)),
            np.maximum(lengths, 1).astype(np.float64),
            np.array(nominal),
        )


def frequency_bits(digits: Digits, train: Tensor, test: Tensor) -> np.ndarray:
    """Return the bits of the images `test` (m,), float64 (m,), if each digit costs what the frequency of its value in
    the images `train` (n,) says. Half an occurrence is added to each value, so that new ones have a frequency."""
    bits = np.zeros(len(test))
    for kind, size in enumerate(digits.sizes):
        at = digits.kind == kind
        rows, used = digits.rows[:, at], digits.counts[:, at]
        counts = torch.bincount(rows[train][used[train]], minlength=size).double() + 0.5
        costs = -(counts / counts.sum()).log2()
        bits += (costs[rows[test]] * used[test]).sum(1).numpy()
    return bits


def split_base(size: int) -> list[int]:
    """Return the bases of the digits of codes below `size`: one if `size` is at most BASE, else few equal ones."""
    digits = max(1, math.ceil(math.log(size) / math.log(BASE) - 1e-12)) if size > 1 else 1
    base = math.ceil(size ** (1 / digits) - 1e-9)
    return [size] if digits == 1 else [base] * digits


def to_digits(codes: np.ndarray, bases: list[int]) -> list[np.ndarray]:
    """Return the digits of codes, the highest first, each in the shape of `codes`."""
    found = []
    for base in reversed(bases):
        codes, digit = np.divmod(codes, base)
        found.append(digit)
    return found[::-1]


class _Network(nn.Module):
    """A decoder-only transformer over digits, with one table of embeddings and one output layer for each kind."""

    def __init__(self, kind: Tensor, sizes: list[int]) -> None:
        super().__init__()
        self.kind, self.sizes = kind, sizes
        self.offsets = torch.tensor([0, *np.cumsum(sizes)[:-1].tolist()])
        self.table = nn.Parameter(torch.randn(sum(sizes), WIDTH) * 0.5)
        self.positions = nn.Parameter(torch.randn(len(kind), WIDTH) * 0.1)
        self.start = nn.Parameter(torch.randn(WIDTH) * 0.5)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, F.gelu, batch_first=True, norm_first=True)
            for _ in range(DEPTH)
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Parameter(torch.zeros(sum(sizes), WIDTH))
        self.bias = nn.Parameter(torch.zeros(sum(sizes)))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the cross-entropy of each digit of rows (B, L), given the earlier ones, in nats (B, L)."""
        embedded = F.embedding(rows + self.offsets[self.kind], self.table)
        features = torch.cat([self.start.expand(len(rows), 1, -1), embedded[:, :-1]], 1) + self.positions
        mask = nn.Transformer.generate_square_subsequent_mask(rows.shape[1])
        for block in self.blocks:
            features = block(features, src_mask=mask, is_causal=True)
        features = self.norm(features)
        losses = torch.zeros(rows.shape)
        for kind, size in enumerate(self.sizes):
            at, first = self.kind == kind, int(self.offsets[kind])
            logits = features[:, at] @ self.head[first : first + size].T + self.bias[first : first + size]
            losses[:, at] = F.cross_entropy(logits.flatten(0, 1), rows[:, at].flatten(), reduction="none").unflatten(
                0, (len(rows), -1)
            )
        return losses

    @torch.no_grad()
    def bits(self, digits: Digits, images: Tensor) -> np.ndarray:
        """Return the bits of all digits that each image uses, float64 (n,)."""
        parts = [(self(digits.rows[some]) * digits.counts[some]).double().sum(1) for some in images.split(64)]
        return torch.cat(parts).numpy() / math.log(2)


def train_network(digits: Digits, images: Tensor) -> _Network:
    """Return the network trained on some images, int64 (n,). It depends on the global random numbers."""
    network = _Network(digits.kind, digits.sizes)
    decayed = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, RATE, betas=(0.9, 0.95))
    batch = max(1, round(DIGITS_PER_STEP / len(digits.kind)))
    for step in range(STEPS):
        share = step / STEPS
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (share + 1 / STEPS) / 0.05) * 0.5 * (1 + math.cos(math.pi * share))
        some = images[torch.randint(len(images), (batch,))]
        counts = digits.counts[some]
        loss = (network(digits.rows[some]) * counts).sum() / counts.sum().clamp(min=1)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    return network.eval()
