"""The autoencoder classes of the diffusers library: which of them reconstruct images, and how they are called.

Video autoencoders take an image as a video of one frame where their network allows it. Classes for other data are
listed with the reason why they are refused. Imports neither torch nor diffusers.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AutoencoderClass:
    """How a class is called.

    stages: the config entry that lists the encoder's stages; each but one halves height and width. "" where the network
    states the factor itself. frames: whether it takes videos (B, 3, T, H, W). one_by_one: whether it takes only one
    image at a time. range: the value range of its images. refused: the reason why images cannot be evaluated with it.
    """

    stages: str = ""
    frames: bool = False
    one_by_one: bool = False
    range: tuple[float, float] = (-1.0, 1.0)
    refused: str | None = None


_BLOCKS = AutoencoderClass("block_out_channels")
_VIDEO = AutoencoderClass(frames=True)
_SOUND = AutoencoderClass(refused="it is an autoencoder of sound")
_NO_ENCODER = AutoencoderClass(refused="it has no encoder")

CLASSES: dict[str, AutoencoderClass] = {
    # Images
    "AutoencoderKL": _BLOCKS,
    "VQModel": _BLOCKS,
    "AutoencoderTiny": AutoencoderClass("encoder_block_out_channels"),
    "AutoencoderDC": AutoencoderClass("encoder_block_out_channels"),
    "AsymmetricAutoencoderKL": AutoencoderClass("down_block_out_channels"),
    "AutoencoderKLFlux2": _BLOCKS,
    "AutoencoderKLHunyuanImage": AutoencoderClass(),
    "AutoencoderKLKVAE": AutoencoderClass("ch_mult"),
    "AutoencoderKLTemporalDecoder": _BLOCKS,
    "AutoencoderRAE": AutoencoderClass(range=(0.0, 1.0)),
    "ConsistencyDecoderVAE": AutoencoderClass("encoder_block_out_channels"),
    # Videos, one frame of which is an image
    "AutoencoderKLCogVideoX": AutoencoderClass("block_out_channels", frames=True),
    "AutoencoderKLCosmos": _VIDEO,
    "AutoencoderKLHunyuanImageRefiner": _VIDEO,
    "AutoencoderKLHunyuanVideo": _VIDEO,
    "AutoencoderKLHunyuanVideo15": AutoencoderClass(frames=True, one_by_one=True),
    "AutoencoderKLKVAEVideo": AutoencoderClass("ch_mult", frames=True),
    "AutoencoderKLLTX2Video": _VIDEO,
    "AutoencoderKLLTXVideo": _VIDEO,
    "AutoencoderKLMagvit": _VIDEO,
    "AutoencoderKLMochi": _VIDEO,
    "AutoencoderKLQwenImage": _VIDEO,
    "AutoencoderKLQwenImage21": _VIDEO,
    "AutoencoderKLWan": _VIDEO,
    "AutoencoderVidTok": _VIDEO,
    "Kandinsky6SRVAE": _VIDEO,
    # Videos of several frames
    "AutoencoderKLAllegro": AutoencoderClass(refused="it takes only videos of several frames"),
    "AutoencoderKLMiniMaxH3": AutoencoderClass(refused="it does not decode a video of one frame"),
    # Other data, and parts of an autoencoder
    "AutoencoderKLKVAEAudio": _SOUND,
    "AutoencoderKLLTX2Audio": _SOUND,
    "AutoencoderKLMiniMaxH3Audio": _SOUND,
    "AutoencoderOobleck": _SOUND,
    "AutoencoderSAME": _SOUND,
    "Cosmos3AVAEAudioTokenizer": _SOUND,
    "LongCatAudioDiTVae": _SOUND,
    "MMAudioVAE": _SOUND,
    "MMAudioVocoder": _NO_ENCODER,
    "MiniMaxMusic3Vocoder": _NO_ENCODER,
    "LTX2VideoDiffusionDecoderModel": _NO_ENCODER,
    "RFD4ProteinaAutoencoder": AutoencoderClass(refused="it is an autoencoder of molecules"),
}
"""Every autoencoder class of diffusers 0.42 by name."""

SUPPORTED = tuple(name for name, how in CLASSES.items() if how.refused is None)
"""The classes with which images are evaluated."""
