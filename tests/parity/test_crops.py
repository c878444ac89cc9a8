"""Crops, pixel for pixel: the library that a repository calls, or its steps in our own words."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import to_tensor

from tokbench.data.preprocess import prepare
from tokbench.protocol.protocol import TOKBENCH, load_protocol

# (width, height): no side divides another, both orientations. 128 shrinks all, ADM's box halves the larger ones; 320
# enlarges the first.
PHOTOS = ((451, 300), (640, 427), (513, 700))
SIZES = (128, 256, 320)


@pytest.fixture(params=product(PHOTOS, SIZES), ids=str)
def case(request: pytest.FixtureRequest, sources: list[np.ndarray]) -> tuple[Image.Image, int]:
    """A photo and the size of its crop."""
    (width, height), size = request.param
    photo = next(photo for photo in sources if photo.shape[0] >= height and photo.shape[1] >= width)
    top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
    return Image.fromarray(photo[top : top + height, left : left + width]), size


def adm_steps(image: Image.Image, size: int) -> np.ndarray:
    """guided-diffusion's center_crop_arr: box halvings, then a bicubic resize, then the middle."""
    while min(image.size) >= 2 * size:
        image = image.resize(tuple(side // 2 for side in image.size), Image.Resampling.BOX)
    factor = size / min(image.size)
    image = image.resize(tuple(round(side * factor) for side in image.size), Image.Resampling.BICUBIC)
    pixels = np.array(image)
    top, left = ((side - size) // 2 for side in pixels.shape[:2])
    return pixels[top : top + size, left : left + size]


def vtbench_steps(image: Image.Image, size: int) -> np.ndarray:
    """VTBench's data_processing: a Lanczos resize, then the middle."""
    factor = size / min(image.size)
    image = image.resize(tuple(round(side * factor) for side in image.size), Image.Resampling.LANCZOS)
    left, top = ((side - size) // 2 for side in image.size)
    return np.array(image.crop((left, top, left + size, top + size)))


def smallest_max_size_steps(image: Image.Image, size: int) -> np.ndarray:
    """albumentations 1.4.4, SmallestMaxSize and CenterCrop (IBQ, taming-transformers): OpenCV's bilinear."""
    pixels = np.array(image)
    height, width = pixels.shape[:2]
    factor = size / min(height, width)
    pixels = cv2.resize(pixels, (round(width * factor), round(height * factor)), interpolation=cv2.INTER_LINEAR)
    top, left = ((side - size) // 2 for side in pixels.shape[:2])
    return pixels[top : top + size, left : left + size]


@pytest.mark.parametrize(
    ("protocol", "mode"), [("titok", InterpolationMode.BICUBIC), ("seed-voken", InterpolationMode.BILINEAR)]
)
def test_torchvision_on_pillow(record, case, protocol: str, mode: InterpolationMode) -> None:
    image, size = case
    theirs = transforms.Compose([transforms.Resize(size, mode), transforms.CenterCrop(size)])(image)
    record(protocol, "crop", "torchvision", prepare(image, size, load_protocol(protocol))[0], np.array(theirs), 0)


@pytest.mark.parametrize(
    ("protocol", "steps"), [("adm", adm_steps), ("llamagen", adm_steps), ("rae", adm_steps), ("vtbench", vtbench_steps)]
)
def test_pillow(record, case, protocol: str, steps) -> None:
    image, size = case
    record(
        protocol, "crop", "its steps, pillow", prepare(image, size, load_protocol(protocol))[0], steps(image, size), 0
    )


def test_opencv(record, case) -> None:
    """No shipped protocol crops so; one that does is two lines of TOML."""
    image, size = case
    protocol = TOKBENCH.with_changes("opencv", library="opencv", filter="bilinear", antialias=False)
    theirs = smallest_max_size_steps(image, size)
    record(
        'library = "opencv"', "crop", "SmallestMaxSize's steps, opencv-python-headless",
        prepare(image, size, protocol)[0], theirs, 0,
    )  # fmt: skip


@pytest.mark.parametrize("antialias", [True, False])
def test_torchvision_on_tensors(record, case, antialias: bool) -> None:
    """LightningDiT makes a tensor first. Floats: levels are interpolated here, [0, 1] there, which rounding tells."""
    image, size = case
    protocol = TOKBENCH.with_changes(
        "tensor", crop="torchvision", filter="bilinear", library="tensor", antialias=antialias
    )
    resize = transforms.Resize(size, InterpolationMode.BILINEAR, antialias=antialias)
    theirs = transforms.CenterCrop(size)(resize(to_tensor(image)))
    name = f'library = "tensor", antialias = {str(antialias).lower()}'
    ours = torch.from_numpy(prepare(image, size, protocol)[0].copy())
    record(name, "crop", "torchvision", ours, theirs.permute(1, 2, 0) * 255, 1e-3)
