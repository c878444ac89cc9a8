"""`torchscript:`: small scripted modules in the layout of NVIDIA's Cosmos image tokenizers."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tokbench.data.stream import PairedBatch
from tokbench.errors import AdapterError
from tokbench.evaluation.reconstruct import RunSettings, reconstruct
from tokbench.evaluation.steps import plain_step
from tokbench.metrics.batch import DerivedCache
from tokbench.tokenizers.base import ImageModel, Tokenizer
from tokbench.tokenizers.registry import load_adapter
from tokbench.weights.hashing import hash_module


class Encode(nn.Module):
    """Cosmos CI: (latents, (0, 0)), latents (B, 16, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return self.conv(x), (torch.zeros(1), torch.zeros(1))


class EncodeVariational(nn.Module):
    """A VAE: (sample, (mean, log variance))."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        mean = self.conv(x)
        return mean + torch.randn_like(mean), (mean, torch.zeros_like(mean))


class Decode(nn.Module):
    def __init__(self, factor: int = 8) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(16, 3, factor, factor)

    def forward(self, z: Tensor) -> Tensor:
        return self.conv(z)


class EncodeIndices(nn.Module):
    """Cosmos DI: (int32 indices (B, h, w), codes (B, 3, h, w), loss), FSQ with 5 levels on each of 3 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        digits = ((self.conv(x).float().tanh() + 1) / 2 * 4).round()
        indices = (digits[:, 0] * 25 + digits[:, 1] * 5 + digits[:, 2]).to(torch.int32)
        return indices, digits, torch.zeros(1)


class DecodeIndices(nn.Module):
    def __init__(self, in_bfloat16: bool = False) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(3, 3, 8, 8)
        self.in_bfloat16 = in_bfloat16

    def forward(self, indices: Tensor) -> Tensor:
        assert indices.dtype == torch.int32
        digits = torch.stack([indices // 25, indices // 5 % 5, indices % 5], dim=1)
        codes = digits / 2 - 1
        return self.conv(codes.to(torch.bfloat16) if self.in_bfloat16 else codes.to(self.conv.weight.dtype))


class Autoencode(nn.Module):
    """Cosmos' autoencoder: (reconstruction, latent)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encode(), Decode()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        latent = self.encoder(x)[0]
        return self.decoder(latent), latent


def save(folder: Path, **modules: nn.Module) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, module in modules.items():
            torch.jit.save(torch.jit.script(module.eval()), folder / f"{name}.jit")
    return folder


def load(folder: Path) -> Tokenizer:
    model = load_adapter(f"torchscript:{folder}").model
    assert isinstance(model, Tokenizer)
    return model


@pytest.fixture
def images(photos: Tensor) -> Tensor:
    return photos[:2, :, :48, :64] * 2 - 1


@pytest.fixture
def seeded() -> None:
    torch.manual_seed(0)


pytestmark = pytest.mark.usefixtures("seeded")


@torch.inference_mode()
def test_continuous(tmp_path: Path, images: Tensor) -> None:
    encoder, decoder = Encode(), Decode()
    model = load(save(tmp_path / "ci", encoder=encoder, decoder=decoder))
    spec = model.spec
    assert spec.name == f"torchscript:{tmp_path / 'ci'}"
    assert (spec.kind, spec.range, spec.multiple, spec.downsample) == ("continuous", (-1.0, 1.0), 8, 8)
    assert (spec.size, spec.codebook, spec.bits_per_token) == (None, {}, 256)
    tokens = model.encode(images)
    latents = encoder(images)[0]
    assert torch.equal(tokens.tensor, latents.half())
    assert tokens.length.tolist() == [48, 48]
    assert tokens.bits.tolist() == [48 * 256.0] * 2
    assert torch.allclose(model.decode(tokens, [0, 1]), decoder(latents.half().float()), atol=1e-6)


@torch.inference_mode()
def test_discrete(tmp_path: Path, images: Tensor) -> None:
    encoder, decoder = EncodeIndices(), DecodeIndices()
    folder = save(tmp_path / "fsq", encoder=encoder, decoder=decoder)
    (folder / "tokbench.toml").write_text("codebook_size = 125\n")
    model = load(folder)
    assert (model.spec.kind, model.spec.codebook, model.spec.downsample) == ("discrete", {"codes": 125}, 8)
    assert model.spec.bits_per_token == math.log2(125)
    tokens = model.encode(images)
    indices = encoder(images)[0]
    assert torch.equal(tokens.tensor, indices.long())
    assert tokens.tensor.unique().numel() > 1
    assert tokens.bits.tolist() == pytest.approx([48 * math.log2(125)] * 2)
    assert torch.allclose(model.decode(tokens, [0, 1]), decoder(indices), atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "Cosmos-0.1-Tokenizer-DI8x8",
        "Cosmos-Tokenizer-DI16x16",
        "CosmosDI_f8x8",
        "models--nvidia--Cosmos-0.1-Tokenizer-DI8x8/snapshots/0a1b2c",
    ],
)
def test_the_codebook_of_cosmos_is_known_by_name(name: str, tmp_path: Path) -> None:
    model = load(save(tmp_path / name, encoder=EncodeIndices(), decoder=DecodeIndices()))
    assert model.spec.codebook == {"codes": 64000}


@pytest.mark.parametrize("name", ["fsq", "Cosmos-0.1-Tokenizer-CI8x8", "Cosmos-Tokenizer-DI8x8/mine", "di8x8"])
def test_an_unknown_codebook_is_asked_for(name: str, tmp_path: Path) -> None:
    folder = save(tmp_path / name, encoder=EncodeIndices(), decoder=DecodeIndices())
    with pytest.raises(AdapterError, match=r"tokbench\.toml:\ncodebook_size = N  # the number of codes"):
        load(folder)


def test_indices_beyond_the_stated_codebook_are_an_error(tmp_path: Path, images: Tensor) -> None:
    folder = save(tmp_path / "fsq", encoder=EncodeIndices(), decoder=DecodeIndices())
    (folder / "tokbench.toml").write_text("codebook_size = 10\n")
    with pytest.raises(AdapterError, match="outside its codebook of 10"):
        load(folder).encode(images)


@torch.inference_mode()
def test_a_variational_encoder_gives_its_mean(tmp_path: Path, images: Tensor) -> None:
    encoder = EncodeVariational()
    model = load(save(tmp_path / "vae", encoder=encoder, decoder=Decode()))
    assert torch.equal(model.encode(images).tensor, encoder.conv(images).half())


def test_settings_reach_the_spec(tmp_path: Path, photos: Tensor) -> None:
    folder = save(tmp_path / "ci", encoder=Encode(), decoder=Decode())
    (folder / "tokbench.toml").write_text('range = [0, 1]\nmultiple = 32\nsize = 96\ndtype = "bfloat16"\n')
    model = load(folder)
    assert (model.spec.range, model.spec.multiple, model.spec.size) == ((0.0, 1.0), 32, 96)
    assert model.module is not None
    assert {p.dtype for p in model.module.parameters()} == {torch.bfloat16}
    batch = run(model, photos[:2, :, :100, :90])
    assert batch.image.shape == (2, 3, 100, 90)
    assert batch.tokens.length.tolist() == [2 * 12 * 12] * 2


def run(model: ImageModel, images: Tensor):
    given = PairedBatch(torch.arange(len(images)), [str(i) for i in range(len(images))], images)
    return reconstruct(model, given, plain_step(model), RunSettings("cpu", 16), DerivedCache())


def test_bfloat16_files_run_in_float32(tmp_path: Path, images: Tensor) -> None:
    encoder, decoder = Encode().bfloat16(), Decode().bfloat16()
    model = load(save(tmp_path / "ci", encoder=encoder, decoder=decoder))
    assert model.module is not None
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in model.module.parameters())
    assert not model.module.training
    assert torch.equal(model.encode(images).tensor, encoder.float()(images)[0].half())


def test_files_that_cast_inside_run_in_their_own_type(tmp_path: Path, images: Tensor) -> None:
    encoder, decoder = EncodeIndices().bfloat16(), DecodeIndices(in_bfloat16=True).bfloat16()
    folder = save(tmp_path / "Cosmos-DI8x8", encoder=encoder, decoder=decoder)
    model = load(folder)
    assert model.module is not None
    assert {p.dtype for p in model.module.parameters()} == {torch.bfloat16}
    tokens = model.encode(images)
    assert torch.equal(tokens.tensor, encoder(images.bfloat16())[0].long())
    assert model.decode(tokens, [0, 1]).dtype == torch.float32
    (folder / "tokbench.toml").write_text('dtype = "float32"\n')
    with pytest.raises(AdapterError, match='dtype = "bfloat16"'):
        load(folder)


def test_an_autoencoder_alone_has_no_tokens(tmp_path: Path, photos: Tensor) -> None:
    whole = Autoencode()
    model = load_adapter(f"torchscript:{save(tmp_path / 'whole', autoencoder=whole)}").model
    assert not isinstance(model, Tokenizer)
    assert (model.spec.kind, model.spec.multiple, model.spec.bits_per_token) == ("images", 16, None)
    odd = photos[:2, :, :50, :64]
    batch = run(model, odd)
    assert batch.tokens is None
    padded = nn.functional.pad(odd * 2 - 1, (0, 0, 0, 14), mode="replicate")
    expected = ((whole(padded)[0][:, :, :50] + 1) / 2).clamp(0, 1)
    assert (batch.image - expected).abs().max() <= 0.51 / 255


def test_a_pair_is_preferred_to_the_whole(tmp_path: Path) -> None:
    folder = save(tmp_path / "ci", encoder=Encode(), decoder=Decode(), autoencoder=Autoencode())
    model = load(folder)
    assert isinstance(model.module, nn.ModuleDict)
    assert set(model.module) == {"encoder", "decoder"}


def test_results_tell_frozen_files_and_settings_apart(tmp_path: Path) -> None:
    """A frozen module shows no parameters, so their hash alone would be the same for all of them."""
    hashes = set()
    for name in ("a", "b"):
        folder = save(tmp_path / name, encoder=Encode(), decoder=Decode())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for path in folder.glob("*.jit"):
                torch.jit.save(torch.jit.freeze(torch.jit.load(path)), path)
        for text in ("", "range = [0, 1]\n"):
            (folder / "tokbench.toml").write_text(text)
            model = load(folder)
            assert model.module is not None
            assert not list(model.module.parameters())
            hashes.add(hash_module(model.module))
    assert len(hashes) == 4


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_half_a_pair_is_refused(part: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "half", **{part: Encode()})
    with pytest.raises(AdapterError, match=rf"has {part}\.jit but not the other one.*hf download nvidia/Cosmos"):
        load(folder)


def test_an_empty_or_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"no encoder\.jit and decoder\.jit, and no autoencoder\.jit; .*hf download"):
        load(tmp_path)
    with pytest.raises(AdapterError, match=r"no folder '.*absent'; .*hf download"):
        load(tmp_path / "absent")


@pytest.mark.parametrize("part", ["encoder", "decoder", "autoencoder"])
def test_a_corrupt_file_is_named_on_one_line(part: str, tmp_path: Path) -> None:
    modules = {"autoencoder": Autoencode()} if part == "autoencoder" else {"encoder": Encode(), "decoder": Decode()}
    folder = save(tmp_path / "ci", **modules)
    path = folder / f"{part}.jit"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(AdapterError) as caught:
        load_adapter(f"torchscript:{folder}")
    message = str(caught.value)
    assert f"{path} is not a readable TorchScript file" in message
    assert "download it again" in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))


def test_a_decoder_of_another_size_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "ci", encoder=Encode(), decoder=Decode(factor=4))
    with pytest.raises(AdapterError, match=r"decoder\.jit returned \(1, 3, 32, 32\) for an image \(1, 3, 64, 64\)"):
        load(folder)


def test_an_autoencoder_of_another_size_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "whole", autoencoder=Encode())
    with pytest.raises(AdapterError, match=r"autoencoder\.jit returned \(1, 16, 8, 8\)"):
        load_adapter(f"torchscript:{folder}")


def test_codes_without_a_grid_are_refused(tmp_path: Path) -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    with pytest.raises(AdapterError, match=r"encoder\.jit returned \(1, 12288\) for a 64x64 image"):
        load(save(tmp_path / "flat", encoder=Flat(), decoder=Decode()))


def test_files_that_take_another_size_say_how_to_tell(tmp_path: Path) -> None:
    class OneSize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Encode()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.reshape(-1, 3, 96, 96))[0]

    folder = save(tmp_path / "fixed", encoder=OneSize(), decoder=Decode())
    with pytest.raises(AdapterError, match=r"cannot reconstruct a 64x64 image \(.*shape.*\).*\nsize = 256"):
        load(folder)
    (folder / "tokbench.toml").write_text("size = 96\n")
    assert load(folder).spec.size == 96


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("codebook = 5", "unknown key codebook;"),
        ("codebook_size = 5.5", "codebook_size must be an integer or null, but it is 5.5"),
        ("multiple = 0", "multiple must be an integer >= 1, but it is 0"),
        ("size = true", "size must be an integer or null, but it is True"),
        ("range = [1, 0]", "lower number first"),
        ("range = 255", "range must be a list, but it is 255"),
        ("range = [0, 1, 2]", "range must be a list of length 2"),
        ("range = [0, '1']", "range[1] must be a number"),
        ('dtype = "int8"', "float32, bfloat16, float16"),
        ("not toml", "tokbench.toml"),
    ],
)
def test_wrong_settings_are_named(text: str, message: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "ci", encoder=Encode(), decoder=Decode())
    (folder / "tokbench.toml").write_text(text)
    with pytest.raises(AdapterError, match=r"tokbench\.toml: .*its keys are codebook_size") as caught:
        load(folder)
    assert message in str(caught.value)


def test_loading_is_silent(tmp_path: Path) -> None:
    folder = save(tmp_path / "ci", encoder=Encode(), decoder=Decode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(folder)
