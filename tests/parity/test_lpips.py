"""The lpips package, fed with [-1, 1]."""

from __future__ import annotations

from functools import cache

import lpips
import pytest
import torch

from tokbench.protocol.protocol import load_protocol

NAMES = {"alex": "AlexNet", "vgg": "VGG-16"}


@pytest.fixture(scope="module")
def package(trunk):
    """The package's model, `alex` or `vgg`, its trunk from a file with torchvision's names."""

    @cache
    def model(net: str) -> lpips.LPIPS:
        made, state = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval(), torch.load(trunk(net))
        made.net.load_state_dict({key: state["features." + key.split(".", 1)[1]] for key in made.net.state_dict()})
        return made

    return model


@pytest.mark.parametrize(
    ("protocol", "net", "rounding"),
    [
        ("tokbench", "alex", "titok"),
        ("seed-voken", "alex", None),
        ("seed-voken", "vgg", None),
        ("cosmos", "vgg", "cosmos"),
        ("rae", "vgg", "rae"),
    ],
)
def test_lpips(record, ours, perceptual, package, references, images, pixels, protocol, net, rounding) -> None:
    count, size = (4, 96) if net == "vgg" else (len(images), 192)  # VGG-16 is slow
    references, images = (side[:count, :, :size, :size] for side in (references, images))
    name = "lpips" if net == "alex" else "lpips_vgg"
    found = ours([(load_protocol(protocol), name)], references, images, perceptual(net))
    seen = images
    if rounding:
        seen = torch.from_numpy(pixels(images, rounding)).permute(0, 3, 1, 2).float() / 255
    model = package(net)
    with torch.inference_mode():
        pairs = zip(seen.split(8), references.split(8), strict=True)
        value = torch.cat([model(2 * image - 1, 2 * reference - 1).flatten() for image, reference in pairs]).mean()
    assert value > 1e-3, "a distance near zero would pass any comparison"
    number = f"LPIPS ({NAMES[net]})" + ("" if rounding else ", unrounded")
    record(protocol, number, "lpips", found[protocol, name], value, 1e-5)
