"""torchmetrics' defaults, which VTBench uses, on its truncated pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tokbench.protocol.protocol import load_protocol

LIBRARY = "torchmetrics"


@pytest.fixture(scope="module")
def bytes_of(pixels):
    """References and images as in VTBench's PNG files, uint8 (B, 3, H, W)."""

    def read(images: Tensor) -> Tensor:
        return torch.from_numpy(pixels(images, "vtbench")).permute(0, 3, 1, 2)

    return read


@pytest.mark.parametrize("layer", [64, 192])
def test_fid(record, ours, inception, inception_file, references, images, bytes_of, layer: int) -> None:
    references, images = references[::2], images[::2]  # the network is torch-fidelity's, compared there on all
    fid = pytest.importorskip("torchmetrics.image.fid").FrechetInceptionDistance(
        feature=layer, feature_extractor_weights_path=str(inception_file), antialias=False
    )
    name = f"rfid_{layer}"
    found = ours([(load_protocol("vtbench"), name)], references, images, inception)
    with torch.inference_mode():
        for side, real in ((references, True), (images, False)):
            for batch in bytes_of(side).split(8):
                fid.update(batch, real=real)
    record(
        "vtbench", f"FID {layer}, antialias=False", LIBRARY, found["vtbench", name], fid.compute(), 1e-5, relative=True
    )


def test_psnr(record, ours, references, images, bytes_of) -> None:
    library = pytest.importorskip("torchmetrics.image")
    found = ours([(load_protocol("vtbench"), "psnr")], references, images)["vtbench", "psnr"]
    image, reference = (bytes_of(side).float() / 255 for side in (images, references))
    assert (reference.min(), reference.max()) == (0, 1), "or the range is not 255 levels"
    # Up to 1.7 the range was taken from the target by default; now it must be given.
    psnr = library.PeakSignalNoiseRatio(data_range=float(reference.max() - reference.min()))
    record("vtbench", "PSNR, pooled", LIBRARY, found, psnr(image, reference), 1e-4)


@pytest.mark.parametrize(
    ("kind", "bound"),
    [(torch.float64, 1e-5), (torch.float32, 3e-5)],  # float32 sums on dark photos err by 1e-5
)
def test_ssim(record, ours, references, images, bytes_of, kind: torch.dtype, bound: float) -> None:
    library = pytest.importorskip("torchmetrics.image")
    references, images = references[:4], images[:4]
    found = ours([(load_protocol("vtbench"), "ssim")], references, images)["vtbench", "ssim"]
    image, reference = (bytes_of(side).to(kind) / 255 for side in (images, references))
    assert (image.min(), image.max()) == (0, 1), "or the range, which is taken from the data, is not 255 levels"
    theirs = library.StructuralSimilarityIndexMeasure()(image, reference)
    record("vtbench", f"SSIM, reflected border, {str(kind).removeprefix('torch.')}", LIBRARY, found, theirs, bound)


def test_lpips(record, ours, perceptual, trunk, references, images, bytes_of, private_cache: Path) -> None:
    """Fed with [0, 1], which its default takes for [-1, 1]."""
    library = pytest.importorskip("torchmetrics.image.lpip")
    place = private_cache / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    # torchvision's whole classifier, of which LPIPS drops the end. Zeros of stride 0: their file is small.
    ends = {"1": (4096, 9216), "4": (4096, 4096), "6": (1000, 4096)}
    state = torch.load(trunk("alex"), weights_only=True)
    for layer, shape in ends.items():
        state[f"classifier.{layer}.weight"] = torch.zeros(1).expand(shape)
        state[f"classifier.{layer}.bias"] = torch.zeros(1).expand(shape[0])
    torch.save(state, place / "alexnet-owt-7be5be79.pth")

    found = ours([(load_protocol("vtbench"), "lpips")], references, images, perceptual("alex"))
    lpips = library.LearnedPerceptualImagePatchSimilarity(net_type="alex")
    with torch.inference_mode():
        for image, reference in zip(bytes_of(images).split(8), bytes_of(references).split(8), strict=True):
            lpips.update(image.float() / 255, reference.float() / 255)
    value = np.float64(lpips.compute())
    assert value > 1e-3, "a distance near zero would pass any comparison"
    record("vtbench", "LPIPS (AlexNet), fed with [0, 1]", LIBRARY, found["vtbench", "lpips"], value, 1e-5)
