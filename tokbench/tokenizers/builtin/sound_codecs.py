"""`opus.k12`, `mp3.k16`: Opus and MP3 at a constant bitrate in kbit/s; `pcm.b8`: samples of that many bits."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokbench.errors import NotApplicable, UsageError
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.builtin.video_codecs import require_codec
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.tokens import Tokens

_CODECS = {"opus": ("libopus", "opus", "flt"), "mp3": ("libmp3lame", "mp3", "fltp")}
"""Encoder and decoder of a family, and the format of the samples that the encoder takes."""

_RATES = {
    "opus": (8000, 12000, 16000, 24000, 48000),
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
}
"""The sampling rates that a family encodes."""

_OPUS_RATE = 48000
"""Opus decodes at this rate, whatever the rate of the input."""

_CLEAR, _NEAR = 48000, 2
"""The bitrate, in bits a second, at which the delay of a codec is measured first, and by how many samples it may differ
at another bitrate."""

_LACING = 255
"""The size of a packet is written before it as in Ogg (RFC 3533): bytes of 255 and a smaller one, whose sum it is."""


class SoundCodec(Tokenizer):
    """One codec at one constant bitrate, mono.

    A recording's file consists of its packets, each after its size (one byte up to 254), without a container. The
    constant bitrate makes the silence of padded recordings cost as much as the rest. The codec's delay is measured once
    on a chirp and removed, so that output and input are aligned.
    """

    def __init__(self, name: str, family: str, kbps: float) -> None:
        self._family, self._bitrate, self._rate = family, round(kbps * 1000), 0
        self.spec = TokenizerSpec(name, "codec", range=(-1.0, 1.0), modalities=("sound",))
        self._delay = 0

    def bind_rate(self, rate: int) -> None:
        """Set the sampling rate in Hz, and measure the delay. Raises NotApplicable for a rate without an encoder."""
        if rate == self._rate:
            return
        if rate not in _RATES[self._family]:
            rates = ", ".join(map(str, _RATES[self._family]))
            raise NotApplicable(f"{self.spec.name}: it encodes {rates} Hz, not {rate} Hz; give --size with one of them")
        self._rate, self._delay = rate, 0
        time = np.arange(rate) / rate
        chirp = (0.5 * np.sin(2 * np.pi * (100 * time + rate / 16 * time * time))).astype(np.float32)
        bitrate, self._bitrate = self._bitrate, max(self._bitrate, _CLEAR)  # a poor chirp could fit at another delay
        coarse = int(self._match(chirp)[: rate // 2].argmax())
        self._bitrate = bitrate
        near = range(max(0, coarse - _NEAR), coarse + _NEAR + 1)  # the modes of one codec differ by a sample
        self._delay = near[int(self._match(chirp)[near.start : near.stop].argmax())]

    def _match(self, wave: np.ndarray) -> np.ndarray:
        """Return the scalar products of a waveform and its output, delayed by 0, 1, 2 ... samples."""
        decoded = self._decode(self._encode(wave), 2 * len(wave))
        size = 1 << (len(decoded) + len(wave)).bit_length()
        return np.asarray(np.fft.irfft(np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(wave, size)), size))

    def encode(self, images: Tensor) -> Tokens:
        waves = images.cpu().numpy()
        if waves.shape[1] != 1:
            raise NotApplicable(f"{self.spec.name}: it encodes one channel, not {waves.shape[1]}")
        return Tokens.from_bytes([_SAMPLES.pack(waves.shape[2]) + self._encode(wave[0]) for wave in waves])

    def _encode(self, wave: np.ndarray) -> bytes:
        import av

        encoder, _, form = _CODECS[self._family]
        context: Any = av.CodecContext.create(encoder, "w")
        context.sample_rate, context.layout, context.format = self._rate, "mono", form
        context.bit_rate, context.time_base = self._bitrate, Fraction(1, self._rate)
        context.options = {"vbr": "off"} if self._family == "opus" else {"reservoir": "0"}
        context.open()
        # Some frames of silence after the end let the encoder write what its delay holds back; the packets of the
        # silence alone are dropped below.
        size = context.frame_size
        needed = -(-(len(wave) + self._delay + size) // size)
        padded = np.zeros((needed + 4) * size, np.float32)
        padded[: len(wave)] = wave
        packets = []
        for start in range(0, len(padded), size):
            frame = av.AudioFrame.from_ndarray(padded[None, start : start + size], format=form, layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = self._rate, start, Fraction(1, self._rate)
            packets += [bytes(packet) for packet in context.encode(frame)]
        packets += [bytes(packet) for packet in context.encode(None)]
        kept = [packet for packet in packets if packet][: needed if self._delay else None]
        return b"".join(_laced(len(packet)) + packet for packet in kept)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        waves = []
        for file in tokens.files:
            (count,) = _SAMPLES.unpack_from(file)
            waves.append(self._decode(file[_SAMPLES.size :], self._delay + count)[self._delay :])
        return torch.from_numpy(np.stack(waves))[:, None]

    def _decode(self, data: bytes, count: int) -> np.ndarray:
        """Return `count` decoded samples, with the delay; zeros after the last packet."""
        import av

        _, decoder, _ = _CODECS[self._family]
        context: Any = av.CodecContext.create(decoder, "r")
        if self._family == "opus":
            context.extradata = _opus_head()
        parts, at = [], 0
        while at < len(data):
            size = 0
            while data[at] == _LACING:
                size, at = size + _LACING, at + 1
            size, at = size + data[at], at + 1
            for frame in context.decode(av.Packet(data[at : at + size])):
                parts.append(_mono(frame.to_ndarray(), frame.format.is_planar))
            at += size
        wave = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        if self._family == "opus" and self._rate != _OPUS_RATE:
            from scipy.signal import resample_poly

            wave = resample_poly(wave.astype(np.float64), 1, _OPUS_RATE // self._rate).astype(np.float32)
        return np.pad(wave[:count], (0, max(0, count - len(wave))))


def _laced(size: int) -> bytes:
    """Return the size of a packet in the form of Ogg."""
    return bytes([_LACING] * (size // _LACING) + [size % _LACING])


_SAMPLES = struct.Struct("<I")
"""The number of samples of a recording, with which its file begins."""


def _opus_head() -> bytes:
    """Return the header of one channel without pre-skip (RFC 7845, section 5.1); the delay is measured instead."""
    return b"OpusHead" + struct.pack("<BBHIhB", 1, 1, 0, _OPUS_RATE, 0, 0)


def _mono(samples: np.ndarray, planar: bool) -> np.ndarray:
    """Return float32 samples (N,) of decoded mono samples in any integer or float format."""
    flat = samples.reshape(-1) if not planar else samples[0]
    return flat.astype(np.float32) / (1 << 15) if flat.dtype == np.int16 else flat.astype(np.float32)


class Pcm(Tokenizer):
    """Samples of `bits` bits, rounded to the nearest level."""

    def __init__(self, name: str, bits: int) -> None:
        self._bits = bits
        self.spec = TokenizerSpec(name, "codec", range=(-1.0, 1.0), modalities=("sound",), causal=True)

    def encode(self, images: Tensor) -> Tokens:
        levels = (images.double() * (1 << (self._bits - 1))).round().clamp(*self._limits()).long().cpu()
        shifted = (levels - self._limits()[0]).numpy().astype(np.uint32).reshape(len(images), -1)
        bits = (shifted[..., None] >> np.arange(self._bits)[::-1]) & 1
        return Tokens.from_bytes([np.packbits(one.astype(np.uint8)).tobytes() for one in bits.reshape(len(images), -1)])

    def _limits(self) -> tuple[int, int]:
        return -(1 << (self._bits - 1)), (1 << (self._bits - 1)) - 1

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        waves = []
        for file in tokens.files:
            bits = np.unpackbits(np.frombuffer(file, np.uint8))
            count = len(bits) // self._bits
            rows = bits[: count * self._bits].reshape(count, self._bits).astype(np.int64)
            waves.append(rows @ (1 << np.arange(self._bits)[::-1]) + self._limits()[0])
        samples = torch.from_numpy(np.stack(waves)).float() / (1 << (self._bits - 1))
        return samples[:, None]


def load(name: str) -> Tokenizer:
    """Return the codec for a name such as `opus.k12` or `pcm.b8`.

    Raises UsageError where the number is malformed, AdapterError where PyAV or its encoder is missing.
    """
    family, _, number = name.partition(".")
    if family == "pcm":
        if not re.fullmatch(r"b([2-9]|1[0-6])", number):
            raise UsageError(f"'{name}': the number of bits must be b2 to b16, as in pcm.b8")
        return Pcm(name, int(number[1:]))
    if not re.fullmatch(r"k[1-9][0-9]{0,2}", number):
        raise UsageError(f"'{name}': the bitrate in kbit/s must be k1 to k999, as in {family}.k16")
    require_codec(name, _CODECS[family][0])
    return SoundCodec(name, family, float(number[1:]))
