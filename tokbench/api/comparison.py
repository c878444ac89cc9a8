"""`tokbench.compare`: comparison of two results on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokbench.analysis.compare import Difference, Verdict, differences, made_otherwise
from tokbench.analysis.outcomes import outcome_of
from tokbench.analysis.render import comparison
from tokbench.metric_names import Tolerance
from tokbench.results.result import Result, load

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """The paired differences of two results on the same images, second minus first.

    first, second: the names of the results. differences: one per number that both results have. not_compared: numbers
    that both have but computed with different networks, devices or settings.
    """

    first: str
    second: str
    differences: tuple[Difference, ...]
    not_compared: tuple[str, ...]

    def __getitem__(self, number: str) -> Difference:
        """Return the difference of one number (first, second, gap, low, high, n, verdict). Raises KeyError."""
        for one in self.differences:
            if one.number == number:
                return one
        raise KeyError(
            f"no difference of '{number}'; compared numbers: {', '.join(one.number for one in self.differences)}"
        )

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Verdicts on the second result by number: better, worse, same, cannot tell, no error bar or no direction."""
        return {one.number: one.verdict for one in self.differences}

    def worse(self, drops: Mapping[str, Tolerance]) -> list[str]:
        """Return which of the numbers in `drops` are worse in the second result by more than the given amount.

        The images are the same, so whether an interval contains 0 does not matter. Numbers that were not compared are
        left out.
        """
        compared = [one for one in self.differences if one.number in drops]
        return [one.number for one in compared if outcome_of(one, drops[one.number]) == "regression"]

    def to_frame(self) -> pd.DataFrame:
        """Return a data frame indexed by number.

        The columns are first, second, gap, low, high, n, first_only, second_only and verdict.
        """
        import pandas as pd

        return pd.DataFrame([one.to_dict() for one in self.differences]).set_index("number")

    def to_markdown(self) -> str:
        """Return the Markdown table that `tokbench compare` prints."""
        return comparison(self.differences, self.first, self.second)


def compare(first: Result | str | Path, second: Result | str | Path) -> Comparison:
    """Compare two results on the same images: paired differences with 95 % intervals and verdicts.

    first, second: results, or paths of result files. For means over images, both results are resampled with the same
    images; distances are compared on the same random halves of the images.

    Raises ResultError if the results differ in images, protocol or task, or if a file cannot be read.

    >>> import torch, tokbench
    >>> images = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> options = {"metrics": ["psnr"], "progress": False}
    >>> coarse = tokbench.evaluate("jpeg.q10", images, **options)
    >>> fine = tokbench.evaluate("jpeg.q90", images, **options)
    >>> tokbench.compare(coarse, fine)["psnr"].verdict
    'better'
    """
    left, right = (one if isinstance(one, Result) else load(Path(one)) for one in (first, second))
    same_name = left.adapter == right.adapter
    return Comparison(
        "A" if same_name else left.adapter,
        "B" if same_name else right.adapter,
        tuple(differences(left, right)),
        tuple(made_otherwise(left, right)),
    )
