"""`tokbench.compare`: two results on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokbench.analysis.compare import Difference, Verdict, differences, made_otherwise
from tokbench.analysis.render import comparison
from tokbench.results.result import Result, load

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """The paired differences of two results on the same images, the second less the first.

    first, second: the names of the two. differences: one for each number that both have. not_compared: numbers that
    both have and that were made in different ways (another network, device or setting).
    """

    first: str
    second: str
    differences: tuple[Difference, ...]
    not_compared: tuple[str, ...]

    def __getitem__(self, number: str) -> Difference:
        """The difference of one number: first, second, gap, low, high, n, verdict. Raises KeyError."""
        for one in self.differences:
            if one.number == number:
                return one
        raise KeyError(f"no difference of '{number}'; compared are {', '.join(one.number for one in self.differences)}")

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """By number, what the second result is: better, worse, same, cannot tell, no error bar or no direction."""
        return {one.number: one.verdict for one in self.differences}

    def to_frame(self) -> pd.DataFrame:
        """One row for each number, by its name: first, second, gap, low, high, n, first_only, second_only, verdict."""
        import pandas as pd

        return pd.DataFrame([one.to_dict() for one in self.differences]).set_index("number")

    def to_markdown(self) -> str:
        """The table that `tokbench compare` prints."""
        return comparison(self.differences, self.first, self.second)


def compare(first: Result | str | Path, second: Result | str | Path) -> Comparison:
    """The paired difference of every number of two results, each with a 95 % interval and a verdict.

    first, second: results, or the paths of result files. Means over images are resampled together, and distances are
    compared on the same random halves of the images.

    Raises ResultError where the two are of different images, protocols or tasks, or where a file cannot be read.

    >>> import torch, tokbench
    >>> images = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    >>> options = {"metrics": ["psnr"], "progress": False}
    >>> coarse = tokbench.evaluate("jpeg.q10", images, **options)
    >>> fine = tokbench.evaluate("jpeg.q90", images, **options)
    >>> tokbench.compare(coarse, fine)["psnr"].verdict
    'better'
    """
    ours, theirs = (one if isinstance(one, Result) else load(Path(one)) for one in (first, second))
    alike = ours.adapter == theirs.adapter
    return Comparison(
        "A" if alike else ours.adapter,
        "B" if alike else theirs.adapter,
        tuple(differences(ours, theirs)),
        tuple(made_otherwise(ours, theirs)),
    )
