"""The parts of the checks of outputs: thumbnails, orientations, and warnings of several runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokbench.metrics.output_checks import orientations, thumbnails
from tokbench.results import warning as result_warning
from tokbench.results.warning import ResultWarning
from tokbench.tokenizers.decoded import READINGS, DecodedValues

MEAN, STD = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def test_the_warning_of_a_later_run_replaces_that_of_an_earlier_one() -> None:
    old, new, other = ResultWarning("range", "old"), ResultWarning("range", "new"), ResultWarning("few", "x")
    assert result_warning.merged([old, other], [new], None) == [new, other]


def test_thumbnails_are_means_of_cells() -> None:
    ramp = torch.arange(8.0).repeat_interleave(8)
    image = (ramp[:, None] * 8 + ramp)[None, None].repeat(1, 3, 1, 1) / 255
    assert thumbnails(image)[0, 0].tolist() == [[8 * row + column for column in range(8)] for row in range(8)]
    assert thumbnails(torch.rand(2, 3, 5, 301)).shape == (2, 3, 5, 8)
    assert thumbnails(torch.rand(2, 3, 1, 1)).shape == (2, 3, 1, 1)


def test_seven_turns_and_none_twice() -> None:
    image = np.arange(9).reshape(3, 3)
    assert len({one.tobytes() for one in [image, *orientations(image)]}) == 8
    assert len({one.tobytes() for one in [image[:2], *orientations(image[:2])]}) == 4


@pytest.mark.parametrize("reading", range(len(READINGS)))
def test_every_reading_finds_what_it_is_for(reading: int) -> None:
    """The values for which it gives back the image; for the range [-1, 1] of a spec."""
    wanted = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    made = {
        0: wanted, 1: None, 2: wanted - 0.5, 3: wanted * 255, 4: wanted, 5: (wanted - MEAN) / STD,
        6: 2 * wanted.flip(1) - 1, 7: 2 * (wanted * 219 / 255 + 16 / 255) - 1, 8: 2 * (wanted * 255 - 16) / 219 - 1,
        9: 2 * wanted**2.2 - 1, 10: 2 * wanted ** (1 / 2.2) - 1,
    }[reading]  # fmt: skip
    low = -1.0
    if made is None:  # that a spec of [0, 1] gives [-1, 1]
        low, made = 0.0, 2 * wanted - 1
    values = DecodedValues((low, 1.0), 2)
    flat = made.flatten(1)
    values.add(made, (flat.amin(1), flat.amax(1)), wanted)
    errors = values.columns(1)["readings"].mean(0)
    assert errors[1 + reading] < 1e-6 < errors[0]
