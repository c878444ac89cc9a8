"""Autoencoders of waveforms: shapes, causality, linear maps, the spectral loss, and prefixes of residual codes."""

from __future__ import annotations

import math

import pytest
import torch

from tokbench.nn.quantizers.fsq import FSQ
from tokbench.nn.quantizers.residual import ResidualVQ
from tokbench.nn.tokenizer import LearnedTokenizer
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.waveforms import WaveAutoencoder, WaveShortcut, spectral_loss


def codec(causal: bool = True, linear: bool = False) -> WaveAutoencoder:
    torch.manual_seed(0)
    return WaveAutoencoder(FSQ([5, 5, 5]), [4, 6], [2, 5], causal=causal, units=2, linear=linear).eval()


def noise(count: int, samples: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, samples, generator=torch.Generator().manual_seed(seed)) - 0.5


def test_a_codec_has_one_token_per_step_for_any_length():
    tokenizer = LearnedTokenizer("codec", codec())
    spec = tokenizer.spec
    assert (spec.modalities, spec.multiple, spec.causal, spec.tokens_of((1, 400))) == (("sound",), 10, True, 40)
    with torch.inference_mode():
        for samples in (400, 10):
            tokens = tokenizer.encode(noise(2, samples))
            assert tokens.tensor.shape == (2, samples // 10, 1)
            assert tokens.bits.tolist() == pytest.approx([samples / 10 * math.log2(125)] * 2)
            assert tokenizer.decode(tokens, [0, 0]).shape == (2, 1, samples)


def test_later_input_changes_no_earlier_frame_of_a_causal_codec():
    wave = noise(1, 400)
    changed = wave.clone()
    changed[..., 205:] = noise(1, 195, seed=1)
    first = {}
    for causal in (True, False):
        model = codec(causal)
        with torch.inference_mode():
            latents = [model.latents(waves) for waves in (wave, changed)]
            outputs = [model.pixels(one) for one in latents]
        first[causal] = int((outputs[0] != outputs[1]).any(1).int().argmax())
        assert (latents[0] != latents[1]).any()
    assert first[True] == 200  # the frame of sample 205
    assert first[False] < 190


def test_the_number_of_widths_and_strides_must_agree():
    with pytest.raises(ValueError, match="1 widths for 2 strides"):
        WaveAutoencoder(FSQ([5, 5]), [4], [2, 5])


def test_linear_maps_start_a_codec_above_silence():
    waves = torch.sin(
        torch.arange(400) * (0.1 + 0.2 * torch.rand(32, 1, 1, generator=torch.Generator().manual_seed(0)))
    )
    shortcut = WaveShortcut(FSQ([5, 5, 5]), 10)
    assert shortcut.cut(waves).shape == (32, 40, 10)
    assert torch.equal(shortcut.paste(shortcut.cut(waves)), waves)
    model = codec(linear=True)
    model.start(TrainingBatch(waves))
    with torch.inference_mode():
        error = (model.reconstruct(TrainingBatch(waves)) - waves).square().mean()
    assert error < 0.1 * waves.square().mean()


def test_the_loss_of_an_attenuated_waveform_follows_from_the_factor():
    waves = noise(2, 2000)[:, 0]
    assert float(spectral_loss(waves, waves)) == 0
    assert float(spectral_loss(0.5 * waves, waves)) == pytest.approx(0.5 + math.log(2), rel=1e-2)
    terms = codec().compare(0.5 * waves[:, None], waves[:, None], 0.0)
    assert float(terms["waveform"]) == pytest.approx(0.25 / 2, rel=0.05)
    assert float(terms["spectral"]) == pytest.approx(0.1 * (0.5 + math.log(2)), rel=1e-2)


def test_the_first_levels_of_residual_codes_are_a_quantizer():
    torch.manual_seed(0)
    quantizer = ResidualVQ(4, 16, 3).eval()
    latents = torch.randn(2, 5, 3)
    indices = quantizer(latents).indices
    kept = torch.cat([indices[..., :2], torch.full((2, 5, 2), -1)], -1)
    expected = quantizer.lookup(kept)
    with pytest.raises(ValueError, match="1 to 4, not 5"):
        quantizer.keep_first(5)
    quantizer.keep_first(2)
    assert quantizer.groups == 2
    assert torch.equal(quantizer(latents).indices, indices[..., :2])
    assert torch.equal(quantizer.lookup(indices[..., :2]), expected)
