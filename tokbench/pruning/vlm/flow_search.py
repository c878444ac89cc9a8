"""Bayesian optimisation of VFlowOpt's parameters with scikit-learn's Gaussian process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch.nn.functional as F
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from tokbench.errors import UsageError
from tokbench.pruning.vlm.flow_parameters import FlowParameters, third_share
from tokbench.pruning.vlm.model import Prompt, VisionLanguageModel
from tokbench.pruning.vlm.prefill import prefill
from tokbench.pruning.vlm.pruner import VlmPruner

STARTS, CALLS = 12, 40
"""Random parameters that are tried first, and evaluations in all; the authors use 27 and 300."""

CANDIDATES = 512
"""Random parameters among which the next ones are chosen by their expected improvement."""


def search(
    pruner_of: Callable[[FlowParameters], VlmPruner],
    model: VisionLanguageModel,
    prompts: Sequence[Prompt],
    keep: float,
    start: FlowParameters,
    side: int,
) -> FlowParameters:
    """Return the parameters with the largest mean cosine between the decoder's final features with and without pruning.

    pruner_of: returns the pruner with given parameters. The features are those of the last token of each prompt. The
    third share follows from the budget `keep`. side: tokens along the image. The untuned `start` is tried as well, so
    that the result is never worse on these prompts.
    """
    rng = np.random.default_rng(0)
    whole = [prefill(model, prompt, None, 1.0).features for prompt in prompts]

    def value(parameters: FlowParameters) -> float:
        pruner = pruner_of(parameters)
        found = [prefill(model, prompt, pruner, keep).features for prompt in prompts]
        cosines = [float(F.cosine_similarity(a, b).mean()) for a, b in zip(found, whole, strict=True)]
        return float(np.mean(cosines))

    tried = [(start, value(start))]
    points = [_draw(rng, model.sizes.depth, keep, side) for _ in range(STARTS)]
    tried += [(point, value(point)) for point in points]
    kernel = Matern(np.ones(5), (0.1, 10.0), nu=2.5) + WhiteKernel(1e-4)
    while len(tried) < CALLS:
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        with warnings.catch_warnings():  # a parameter without effect has a length scale at its bound
            warnings.simplefilter("ignore", ConvergenceWarning)
            process.fit([_unit(point, side) for point, _ in tried], [found for _, found in tried])
        candidates = [_draw(rng, model.sizes.depth, keep, side) for _ in range(CANDIDATES)]
        mean, deviation = process.predict([_unit(point, side) for point in candidates], return_std=True)
        best = max(found for _, found in tried)
        scaled = (mean - best) / np.maximum(deviation, 1e-9)
        improvement = (mean - best) * norm.cdf(scaled) + deviation * norm.pdf(scaled)
        point = candidates[int(improvement.argmax())]
        tried.append((point, value(point)))
    return max(tried, key=lambda pair: pair[1])[0]


def _draw(rng: np.random.Generator, depth: int, keep: float, side: int) -> FlowParameters:
    """Return random parameters within the budget. Raises UsageError if the budget hardly leaves a choice."""
    for _ in range(10_000):
        first, second = rng.uniform(keep, min(1.0, 3 * keep)), rng.uniform(0.1, 1.0)
        third = third_share(depth, keep, first, second)
        if 0.05 <= third <= 1:
            threshold, cell, entropy = rng.uniform(0, 5), rng.uniform(side / 8, side), rng.uniform(-1, 1)
            return FlowParameters(first, second, third, threshold, cell, entropy)
    raise UsageError(f"VFlowOpt's parameters cannot be tuned for keep {keep:g}; use a smaller keep")


def _unit(point: FlowParameters, side: int) -> list[float]:
    return [point.first, point.second, point.threshold / 5, point.cell / side, (point.entropy + 1) / 2]
