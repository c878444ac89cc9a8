"""How well the labels of images can be read from their tokens, by a linear probe and by nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tokbench.errors import NotApplicable
from tokbench.metrics.base import WholeSetMetric
from tokbench.metrics.batch import Batch
from tokbench.metrics.classify import nearest_classes, ridge_classes, scaled
from tokbench.tokenizers.base import ImageModel, Tokenizer
from tokbench.tokenizers.tokens import Tokens

FOLDS = 5
"""Number of parts of the images. The classes of each part are predicted from the images of the others."""

FEWEST = 50
"""The smallest number of images; with fewer, hardly any image of a class is left to learn from."""

MAX_VALUES = 1 << 15
"""The largest number of values of an image's tokens: 2,000 images then take 256 MiB."""

FIRST = (1, 10)
"""Numbers of first tokens that are probed."""

Classifier = Callable[[Tensor, Tensor, Tensor, int], Tensor]


class Probe(WholeSetMetric):
    """Accuracy, in 0..1, of the dataset's labels predicted from tokens: of a ridge regression (`probe_linear`) and of
    10 nearest neighbours (`probe_knn`) on all values of the tokens, and of both on their mean over positions
    (`..._pooled`). For continuous tokens also `probe_knn_noisy`: of nearest neighbours on all values, each standardised
    and mixed with Gaussian noise in equal parts. That is what a flow model sees in the middle of its path, at t = 0.5
    (RecTok).

    Tokens are vectors as `Tokenizer.vectors` returns them. The images are divided into five random parts of equal size,
    with a seed that depends on their number only, and the class of each image is predicted from the other four parts.
    So all images count, none is predicted from itself, and all rows have the same split. Each feature is divided by its
    standard deviation over all images. Nothing is tuned on the predicted images: the penalty of the ridge regression is
    chosen by leaving out one of the images that it is fitted on. Intervals come from resampling the images' results;
    they do not contain the variation of the fitted probes. Chance is the share of the most frequent class.

    The cost grows with the cube of the smaller of the number of images and that of values: about 4 seconds of one CPU
    core for 2,000 images with 1,024 values each.
    """

    def __init__(self, model: ImageModel) -> None:
        super().__init__()
        self._model = model

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return the values of all tokens (B, V), their number per token, and the label.

        Raises NotApplicable where tokens are not vectors or are too many, or where images were cut into tiles.
        """
        rows, used = self._rows(batch)
        if rows[0].numel() > MAX_VALUES:
            raise NotApplicable(f"an image's tokens have {rows[0].numel():,} values; at most {MAX_VALUES:,} are probed")
        pooled = rows.sum(1) / used.sum(1, keepdim=True).clamp(min=1)
        return {"all": rows.flatten(1).numpy(), "pooled": pooled.numpy()} | _labels(batch)

    def _rows(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the tokens of each image as vectors (B, N, D), 0 after its last token, and whether it uses each token,
        bool (B, N)."""
        tokens: Tokens = batch.require("tokens")
        model = self._model
        if not isinstance(model, Tokenizer):
            raise NotApplicable(f"{model.spec.name}: it is not a tokenizer, so its tokens are not vectors")
        if batch.tiles > 1:
            cut = f"each item is cut into {batch.tiles} pieces, whose tokens are no single set"
            raise NotApplicable(f"{model.spec.name}: {cut}; give --size")
        with torch.inference_mode():
            vectors = model.vectors(tokens).float().cpu()
        rows = vectors.flatten(1, -2) if vectors.dim() > 2 else vectors[:, None]
        lengths = tokens.length.cpu()
        used = torch.ones(rows.shape[:2], dtype=torch.bool)
        if len(tokens.streams) == 1 and int(lengths.max()) <= rows.shape[1]:  # positions after the last token are empty
            used = torch.arange(rows.shape[1]) < lengths[:, None]
        return rows * used[..., None], used

    def provenance(self) -> dict[str, str]:
        return {
            "split": f"{FOLDS} random parts, seed 0; each is predicted from the others",
            "features": "Tokenizer.vectors, divided by the standard deviation over the images",
        }

    def measure(self) -> dict[str, np.ndarray]:
        """Return whether each image's class was predicted, float64 (n,), by number.

        Raises NotApplicable where there are too few images or only one class.
        """
        count = len(self.rows)
        if count < FEWEST:
            raise NotApplicable(f"needs {FEWEST} or more images to learn from, not {count}")
        present, labels = np.unique(self.rows.column("label"), return_inverse=True)
        if len(present) < 2:
            raise NotApplicable("all images have the same label")
        fold = np.random.default_rng(0).permutation(count) % FOLDS
        results = {}
        for number, column, classify in self._probes():
            features = scaled(torch.from_numpy(self.rows.column(column)).double())
            if number.endswith(_NOISY):
                noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(0), dtype=features.dtype)
                features = (features + noise * features.ne(0).any(0)) / 2
            results[number] = _correct(features, labels, fold, classify, len(present))
        return results

    def _probes(self) -> list[tuple[str, str, Classifier]]:
        """Return the name of each number, its column of features and its classifier."""
        kinds: list[tuple[str, Classifier]] = [("linear", ridge_classes), ("knn", nearest_classes)]
        columns = (("all", ""), ("pooled", "_pooled"))
        found = [(f"probe_{kind}{end}", column, classify) for column, end in columns for kind, classify in kinds]
        continuous = self._model.spec.kind == "continuous"
        return found + ([(f"probe_knn{_NOISY}", "all", nearest_classes)] if continuous else [])


_NOISY = "_noisy"
"""The ending of a number whose features are mixed with noise."""


class FirstTokensProbe(Probe):
    """`probe_first_1`, `probe_first_10`: accuracy of the same linear probe on the first token, and on the first 10
    tokens, in the order in which they are stored (arXiv:2605.06207). A tokenizer with fewer tokens lacks the number.
    """

    def per_sample(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return the values of the first tokens, and the label. Raises NotApplicable where tokens are not vectors."""
        rows, _ = self._rows(batch)
        return {f"first {count}": rows[:, :count].flatten(1).numpy() for count in FIRST if count <= rows.shape[1]} | (
            _labels(batch)
        )

    def _probes(self) -> list[tuple[str, str, Classifier]]:
        present = [count for count in FIRST if f"first {count}" in self.rows.names]
        return [(f"probe_first_{count}", f"first {count}", ridge_classes) for count in present]


def _labels(batch: Batch) -> dict[str, np.ndarray]:
    labels: Tensor = batch.require("labels")
    return {"label": labels.cpu().numpy()}


def _correct(features: Tensor, labels: np.ndarray, fold: np.ndarray, classify: Classifier, classes: int) -> np.ndarray:
    known, found = torch.from_numpy(labels), np.zeros(len(labels))
    for part in range(FOLDS):
        test, train = (torch.from_numpy(np.flatnonzero(side)) for side in (fold == part, fold != part))
        predicted = classify(features[train], known[train], features[test], classes)
        found[test.numpy()] = (predicted == known[test]).numpy()
    return found
