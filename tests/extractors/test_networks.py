"""The frozen networks against the libraries they come from, and their refusal of weights that are not right."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import lpips
import numpy as np
import pyarrow.parquet as pq
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from tokbench.errors import MissingWeights, UsageError
from tokbench.extractors.efficientnet import EfficientNetLite0
from tokbench.extractors.inception import BLOCKS, Inception, resize_like_tensorflow1
from tokbench.extractors.lpips import LAYERS, LPIPSNetwork
from tokbench.io.hashing import sha256_of
from tokbench.protocol.rounding import from_uint8, to_uint8
from tokbench.weights.registry import KNOWN_WEIGHTS, LocalWeights, resolve

CUT = "inception-2015-12-05-to-mixed6e.safetensors"
TRUNK = "alexnet-features.safetensors"


def found_at(path: Path, network: str = "inception-2015-12-05") -> LocalWeights:
    return LocalWeights(path, KNOWN_WEIGHTS[network][0], sha256_of(path))


def weights_file(name: str) -> Path:
    path = Path(os.environ.get("TOKBENCH_WEIGHTS", "")) / name
    if not os.environ.get("TOKBENCH_WEIGHTS") or not path.is_file():
        pytest.skip(f"needs {name} in the folder that TOKBENCH_WEIGHTS names")
    return path


def photos(count: int, size: int) -> Tensor:
    """Crops of scikit-image's photos, (count, 3, size, size), on the 8-bit grid."""
    sources = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    pixels = []
    for i in range(count):
        source, step = sources[i % 3], 1 if size > 100 else 3  # thumbnails, so that small crops show something
        top, left = 5 * (i // 3), 7 * (i // 3)
        pixels.append(source[top : top + size * step : step, left : left + size * step : step])
    return from_uint8(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))


def relative_error(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a.double() - b.double()).norm() / b.double().norm())


def random_state(blocks: list[str]) -> dict[str, Tensor]:
    """Random blocks of the FID network: activations neither vanish nor explode, and the batch norms do something."""
    generator = torch.Generator().manual_seed(7)
    state = {}
    for block in blocks:
        for key, value in BLOCKS[block]().state_dict().items():
            noise = torch.randn(value.shape, generator=generator)
            if key.endswith(("conv.weight", "weight")) and value.dim() > 1:
                noise *= (2 / value[0].numel()) ** 0.5
            elif key.endswith(("running_var", "bn.weight")):
                noise = 0.8 + 0.4 * torch.rand(value.shape, generator=generator)
            else:
                noise *= 0.1
            if not key.endswith("num_batches_tracked"):
                state[f"{block}.{key}"] = noise
    return state


def torch_fidelity(path: Path, layers: list[str]) -> FeatureExtractorInceptionV3:
    return FeatureExtractorInceptionV3("inception-v3-compat", layers, feature_extractor_weights_path=str(path))


@pytest.fixture(scope="module")
def full_random(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / "full.pth"
    torch.save(random_state(list(BLOCKS)), path)
    return path


@pytest.mark.slow
@pytest.mark.finds
def test_inception_equals_torch_fidelity_with_the_real_weights(tmp_path: Path) -> None:
    cut = weights_file(CUT)
    network = Inception(found_at(cut))
    layers = ["64", "192", "768"]
    for layer in [*layers, "sfid"]:
        network.request_layer(layer)
    # torch-fidelity only loads whole files: random blocks stand for those that the cut lacks and that are not compared.
    rest = random_state(["Mixed_7a", "Mixed_7b", "Mixed_7c", "fc"])
    torch.save(load_file(cut) | rest, tmp_path / "full.pth")
    port = torch_fidelity(tmp_path / "full.pth", layers)
    caught: list[Tensor] = []
    port.Mixed_6d.branch1x1.register_forward_hook(lambda module, args, output: caught.append(output.clone()))

    images = photos(4, 256)
    features = network(images)
    with torch.inference_mode():
        expected = dict(zip(layers, port(to_uint8(images)), strict=True))
    for layer in layers:
        assert relative_error(features[layer], expected[layer]) < 1e-5, layer
    # ADM flattens TensorFlow's (17, 17, 7): channels last.
    assert features["sfid"].shape == (4, 2023)
    assert relative_error(features["sfid"], caught[0].permute(0, 2, 3, 1)[..., :7].flatten(1)) < 1e-5


@pytest.mark.finds
def test_inception_refuses_layers_that_the_file_does_not_reach() -> None:
    network = Inception(found_at(weights_file(CUT)))
    with pytest.raises(MissingWeights, match="needs Mixed_7a, Mixed_7b, Mixed_7c,") as caught:
        network.request_layer("2048")
    assert CUT in str(caught.value)
    assert "weights-inception-2015-12-05-6726825d.pth" in str(caught.value)
    with pytest.raises(MissingWeights, match="Mixed_7c, fc"):
        network.request_layer("logits_unbiased")
    with pytest.raises(UsageError, match="no layer '2047'"):
        network.request_layer("2047")
    assert network.layers == set()


@pytest.mark.slow
def test_inception_equals_torch_fidelity_to_the_end(full_random: Path) -> None:
    network = Inception(found_at(full_random))
    layers = ["64", "192", "768", "2048", "logits_unbiased"]
    for layer in layers:
        network.request_layer(layer)
    images = photos(2, 200)
    features = network(images)
    with torch.inference_mode():
        expected = dict(zip(layers, torch_fidelity(full_random, layers)(to_uint8(images)), strict=True))
    for layer in layers:
        assert relative_error(features[layer], expected[layer]) < 1e-5, layer
        assert expected[layer].std() > 1e-3, "a network with constant outputs would pass any comparison"


@pytest.mark.slow
def test_inception_runs_no_deeper_than_asked(full_random: Path) -> None:
    network = Inception(found_at(full_random))
    network.request_layer("sfid")
    network.request_layer("64")
    ran: list[str] = []
    for name, block in network.blocks.items():
        block.register_forward_hook(lambda module, args, output, name=name: ran.append(name))
    assert set(network(photos(1, 64))) == {"64", "sfid"}
    assert ran == list(BLOCKS)[: list(BLOCKS).index("Mixed_6d") + 1]


@pytest.mark.slow
def test_inception_features_do_not_depend_on_the_batch(full_random: Path) -> None:
    network = Inception(found_at(full_random))
    for layer in ("sfid", "768"):
        network.request_layer(layer)
    images = photos(5, 256)
    together = network(images, chunk=4)
    for i in (2, 4):
        alone = network(images[i : i + 1], chunk=4)
        for layer, features in alone.items():
            assert torch.equal(features[0], together[layer][i]), (layer, i)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (100, 310), (512, 300), (299, 299)])
def test_resize_equals_the_tensorflow_1_resize(height: int, width: int) -> None:
    images = 255 * torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    expected = interpolate_bilinear_2d_like_tensorflow1x(images, size=(299, 299), align_corners=False)
    torch.testing.assert_close(resize_like_tensorflow1(images, 299), expected, rtol=0, atol=1e-4)  # of 255


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.path,))


def test_a_pickle_that_is_not_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"fc.weight": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    torch.save({"model": random_state(["Conv2d_1a_3x3"])}, tmp_path / "nested.pth")
    (tmp_path / "noise.pth").write_bytes(b"not a pickle" * 100)
    (tmp_path / "noise.safetensors").write_bytes(b"not a header" * 100)
    for name in ("trap.pth", "nested.pth", "noise.pth", "noise.safetensors"):
        with pytest.raises(MissingWeights, match=f"{name} is not a .*replace it") as caught:
            Inception(found_at(tmp_path / name))
        assert len(str(caught.value)) < 600 + len(str(tmp_path))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("Conv2d_2a_3x3.bn.bias"), "lacks Conv2d_2a_3x3.bn.bias"),
        (lambda state: state.update({"head.weight": torch.ones(1)}), "has unknown head.weight"),
        (lambda state: state.update({"Conv2d_1a_3x3.bn.bias": torch.ones(1)}), "another shape in Conv2d_1a_3x3.bn"),
        (lambda state: state.update({f"x{i}": torch.ones(1) for i in range(500)}), "x0, x1, x10 and 497 more"),
    ],
)
def test_inception_refuses_a_file_of_another_network(
    change: Callable[[dict[str, Tensor]], object], message: str, tmp_path: Path
) -> None:
    state = random_state(["Conv2d_1a_3x3", "Conv2d_2a_3x3"])
    change(state)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(MissingWeights, match=message):
        Inception(found_at(tmp_path / "other.safetensors"))


@pytest.fixture(scope="module")
def efficientnet() -> EfficientNetLite0:
    try:
        found = resolve("efficientnet-lite0", KNOWN_WEIGHTS["efficientnet-lite0"])
    except MissingWeights as error:
        pytest.skip(str(error))
    network = EfficientNetLite0(found)
    network.request_layer("pooled")
    network.request_layer("logits")
    return network


@pytest.mark.slow
@pytest.mark.finds
def test_efficientnet_knows_imagenet(efficientnet: EfficientNetLite0) -> None:
    path = Path(os.environ.get("TOKBENCH_DATA", "")) / "imagenet-256" / "sample.parquet"
    if not os.environ.get("TOKBENCH_DATA") or not path.is_file():
        pytest.skip("needs imagenet-256/sample.parquet in the folder that TOKBENCH_DATA names")
    rows = pq.read_table(path).to_pylist()[::5]
    arrays = [np.array(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")) for row in rows]
    images = from_uint8(torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2))
    guesses = efficientnet(images)["logits"].argmax(1)
    assert len(rows) == 200
    right = int((guesses == torch.tensor([row["label"] for row in rows])).sum())
    # Measured: 173 of 200. The nearest mistakes give less: symmetric padding 168, ImageNet's mean and deviation 152,
    # both 143. Two images are left for other rounding.
    assert right > 170


def test_efficientnet_layers_fit_together(efficientnet: EfficientNetLite0) -> None:
    features = efficientnet(photos(2, 256))
    head = torch.load(resolve("", KNOWN_WEIGHTS["efficientnet-lite0"]).path, map_location="cpu", weights_only=True)
    logits = features["pooled"] @ head["_fc.weight"].T + head["_fc.bias"]
    assert features["pooled"].shape == (2, 1280)
    assert relative_error(features["logits"], logits) < 1e-5
    assert features["pooled"].min() >= 0
    assert features["pooled"].max() <= 6


@pytest.mark.slow
def test_efficientnet_features_do_not_depend_on_the_batch(efficientnet: EfficientNetLite0) -> None:
    images = photos(5, 256)
    together = efficientnet(images, chunk=4)
    for i in (0, 2, 4):
        alone = efficientnet(images[i : i + 1], chunk=4)
        for layer, features in alone.items():
            assert torch.equal(features[0], together[layer][i]), (layer, i)


def test_efficientnet_is_loaded_strictly(tmp_path: Path) -> None:
    try:
        source = resolve("efficientnet-lite0", KNOWN_WEIGHTS["efficientnet-lite0"]).path
    except MissingWeights as error:
        pytest.skip(str(error))
    state = torch.load(source, map_location="cpu", weights_only=True)
    del state["_blocks.7._bn1.running_var"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(MissingWeights, match=r"lacks _blocks\.7\._bn1\.running_var;"):
        EfficientNetLite0(found_at(tmp_path / "short.pth", "efficientnet-lite0"))
    save_file(random_state(["Conv2d_1a_3x3"]), tmp_path / "other.safetensors")
    with pytest.raises(MissingWeights, match="has unknown Conv2d_1a_3x3"):
        EfficientNetLite0(found_at(tmp_path / "other.safetensors", "efficientnet-lite0"))


def package(net: str, trunk: dict[str, Tensor] | None = None) -> lpips.LPIPS:
    """The lpips package's own model, its trunk random or from torchvision's keys."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(3)
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    if trunk is not None:
        keys = model.net.state_dict()
        model.net.load_state_dict({key: trunk["features." + key.split(".", 1)[1]] for key in keys})
    return model


def torchvision_keys(model: lpips.LPIPS) -> dict[str, Tensor]:
    """The trunk as torchvision's whole classifier names it, with a classifier that LPIPS does not use."""
    trunk = {"features." + key.split(".", 1)[1]: value for key, value in model.net.state_dict().items()}
    return trunk | {"classifier.1.weight": torch.zeros(2, 2)}


def assert_equals_package(network: LPIPSNetwork, model: lpips.LPIPS) -> None:
    reference = photos(3, 96)
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    image = from_uint8(to_uint8(reference + 0.1 * noise))
    features, others = network(reference), network(image)
    with torch.inference_mode():
        expected = model(reference, image, normalize=True).flatten()
    distance = network.distance(features, others)
    assert distance.shape == (3,)
    assert expected.min() > 0.01, "distances near zero would pass any comparison"
    torch.testing.assert_close(distance, expected, rtol=0, atol=1e-6)
    assert torch.equal(network.distance(features, features), torch.zeros(3))
    for layer in LAYERS:
        norms = features[layer].square().sum(1)
        assert norms.max() < 1 + 1e-5, layer


@pytest.mark.finds
def test_lpips_equals_the_package_with_the_real_alexnet() -> None:
    path = weights_file(TRUNK)
    assert_equals_package(LPIPSNetwork(found_at(path, "lpips-alex"), net="alex"), package("alex", load_file(path)))


@pytest.mark.slow
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_equals_the_package(net: str, tmp_path: Path) -> None:
    model = package(net)
    torch.save(torchvision_keys(model), tmp_path / "trunk.pth")
    random = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torchvision's, of lpips's old arguments, must not reach users
        network = LPIPSNetwork(found_at(tmp_path / "trunk.pth", f"lpips-{net}"), net=net)  # type: ignore[arg-type]
    assert torch.equal(random, torch.get_rng_state())
    assert network.name == f"lpips-{net}"
    assert_equals_package(network, model)


def test_lpips_refuses_a_trunk_with_a_layer_missing(tmp_path: Path) -> None:
    trunk = torchvision_keys(package("alex"))
    del trunk["features.8.bias"]
    save_file(trunk, tmp_path / "trunk.safetensors")
    with pytest.raises(MissingWeights, match=r"lpips-alex.*lacks features\.8\.bias"):
        LPIPSNetwork(found_at(tmp_path / "trunk.safetensors", "lpips-alex"), net="alex")
    with pytest.raises(MissingWeights, match="lpips-vgg"):
        LPIPSNetwork(found_at(tmp_path / "trunk.safetensors", "lpips-vgg"), net="vgg")
