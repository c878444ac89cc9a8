"""clean-fid: the resize of its mode `clean`, which is all that sets it apart (its FID is in test_pytorch_fid.py)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokbench.extractors.inception import _clean
from tokbench.protocol.rounding import from_uint8


@pytest.mark.parametrize(("width", "height"), [(256, 256), (451, 300), (299, 299), (700, 513)])
def test_resize(record, sources, width: int, height: int) -> None:
    resize = pytest.importorskip("cleanfid.resize").build_resizer("clean")
    photo = next(photo for photo in sources if photo.shape[0] >= height and photo.shape[1] >= width)[:height, :width]
    ours = _clean(from_uint8(torch.from_numpy(photo.copy()).permute(2, 0, 1)[None])) * 128 + 128
    record(
        "clean-fid", "resize to 299", "clean-fid", ours[0].permute(1, 2, 0).numpy(),
        np.asarray(resize(photo)), 1e-4,
    )  # fmt: skip
