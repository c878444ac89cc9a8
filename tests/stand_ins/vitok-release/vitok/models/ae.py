"""Stand-in for vitok/models/ae.py of Na-VAE/vitok-release at a90f23b: the same calls and names, tiny networks."""

import torch
from torch import nn


class AE(nn.Module):
    def __init__(self, pixels_per_token=768, channels_per_token=32, spatial_stride=16, temporal_stride=1, encoder=True,
                 decoder=True, attn_backend="flash", **kwargs):  # fmt: skip
        super().__init__()
        if attn_backend == "flash":
            raise ImportError("flash_attn is not available")
        assert {"encoder_width", "decoder_depth", "mlp_factor"} <= kwargs.keys()
        self.spatial_stride, self.channels_per_token = spatial_stride, channels_per_token
        self.to_code, self.to_pixels = (
            nn.Linear(pixels_per_token, channels_per_token),
            nn.Linear(channels_per_token, pixels_per_token),
        )
        self.output_fn = nn.LayerNorm(channels_per_token, elementwise_affine=False)

    def encode(self, patch_dict):
        assert patch_dict["patch_mask"].dtype == torch.bool and patch_dict["patches"].min() < 0
        place = (patch_dict["row_idx"] + patch_dict["col_idx"])[..., None]
        return {"z": self.output_fn(self.to_code(patch_dict["patches"] + 0.01 * place))}

    def decode(self, encode_dict):
        place = 0.01 * (encode_dict["row_idx"] - encode_dict["col_idx"])[..., None]
        kept = {key: encode_dict.get(key) for key in ("patch_mask", "row_idx", "col_idx")}
        return {**kept, "patches": (self.to_pixels(encode_dict["z"]) + place).tanh()}


def decode_variant(variant):
    sizes, _, shape = variant.partition("/")
    assert sizes in ("Ld4-Ld24", "Td4-T")
    temporal, patch, channels = map(int, shape.split("x"))
    return {
        "encoder_width": 1024, "decoder_width": 1024, "encoder_depth": 4, "decoder_depth": 24, "encoder_heads": 16,
        "decoder_heads": 16, "mlp_factor": 2.67, "temporal_stride": temporal, "spatial_stride": patch,
        "channels_per_token": channels, "pixels_per_token": patch * patch * temporal * 3,
    }  # fmt: skip
