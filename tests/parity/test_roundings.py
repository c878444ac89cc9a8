"""Roundings: each repository's formula (conftest writes them out) against `tokbench.protocol.rounding.quantize`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokbench.protocol.protocol import load_protocol
from tokbench.protocol.rounding import from_uint8, quantize, to_uint8

EIGHT_BITS = from_uint8(torch.arange(256, dtype=torch.uint8))
REPOSITORIES = ("titok", "llamagen", "adm", "vtbench", "rae", "seed-voken", "cosmos")
LIBRARY = "its formula, numpy"


@pytest.fixture
def both(eight_bits):
    """Levels of values by tokbench under a protocol, and by a repository's formula, int64."""

    def levels(values: torch.Tensor, protocol: str, formula: str) -> tuple[np.ndarray, np.ndarray]:
        read = load_protocol(protocol)
        ours = to_uint8(quantize(values, read.rounding_of(read.psnr))).numpy()
        return ours.astype(np.int64), eight_bits[formula](values.numpy()).astype(np.int64)

    return levels


@pytest.mark.parametrize("repository", [name for name in REPOSITORIES if name != "adm"])  # which rounds no originals
def test_all_levels(record, both, repository: str) -> None:
    """An 8-bit original comes out as it went in, but for SEED-Voken, where levels 1 to 95 lose one."""
    signed = repository == "seed-voken"
    ours, theirs = both(EIGHT_BITS, repository, "seed-voken original" if signed else repository)
    record(repository, "rounding of 256 levels", LIBRARY, ours, theirs, 0)
    lost = np.isin(np.arange(256), np.arange(1, 96)) & signed
    np.testing.assert_array_equal(ours, np.arange(256) - lost)


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_floats(record, both, repository: str) -> None:
    """A million floats. Formulas that err otherwise in float32 may differ by one level right at an edge between two."""
    signed = torch.rand(1_000_000, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    values = (signed + 1) / 2
    ours, theirs = both(values, repository, repository)
    scaled = values.double().numpy() * 255
    edge = np.zeros(len(values), bool)
    if repository in ("llamagen", "cosmos"):
        edge = np.abs(scaled - np.floor(scaled) - 0.5) < 1e-4
    elif repository == "seed-voken":
        edge = np.abs(scaled - np.round(scaled)) < 1e-4
    assert edge.mean() < 3e-4
    assert np.abs(ours - theirs)[edge].max(initial=0) <= 1
    number = "rounding of a million floats" + (" but 1e-4 around edges" if edge.any() else "")
    record(repository, number, LIBRARY, ours[~edge], theirs[~edge], 0)
