"""Stand-in for vision_tokenizer/tokenizer/dualvitok_model.py of huangrh99/illume at cf0676b."""

import torch.nn.functional as F
from torch import cat, nn

from tokenizer.builder import MODELS, build_quantizer


class Qwen2VLVisionConfig:
    def __init__(self, depth=32, hidden_size=3584):
        self.depth, self.hidden_size = depth, hidden_size


class PreTrainedModel(nn.Module):
    @classmethod
    def from_pretrained(cls, name, attn_implementation):
        raise OSError(f"{name} is not a local folder")


class Qwen2VisionTransformerPretrainedModel(PreTrainedModel):
    def __init__(self, config):
        super().__init__()
        assert config._attn_implementation == "sdpa"
        self.config = config
        self.patch_embed = nn.Conv2d(3, 8, 28, 28)

    def forward(self, x):
        return self.patch_embed(x)


class SemanticEncoder(nn.Module):
    def __init__(self, semantic_encoder, z_channels, attn_implementation, **_):
        super().__init__()
        load = Qwen2VisionTransformerPretrainedModel.from_pretrained
        self.model = load(semantic_encoder, attn_implementation=attn_implementation)
        assert self.model.config.hidden_size == 3584
        self.proj_out = nn.Conv2d(8, z_channels, 1)

    def forward(self, x):
        return self.proj_out(self.model(F.interpolate(x, (252, 252), mode="bicubic")))


@MODELS.register_module()
class DualViTok(nn.Module):
    def __init__(self, config):
        super().__init__()
        print("Current model is: DualViTok")
        self.semantic_encoder = SemanticEncoder(**config.semantic_encoder)
        self.semantic_quantizer = build_quantizer(config.semantic_quantizer)
        self.semantic_decoder = nn.Linear(config.semantic_decoder.z_channels, 8)
        self.pixel_encoder = nn.Conv2d(3, config.pixel_encoder.embed_dim, 16, 16)
        self.pixel_quantizer = build_quantizer(config.pixel_quantizer)
        self.pixel_decoder = nn.ConvTranspose2d(config.pixel_decoder.embed_dim, 3, 16, 16)

    def encode_code(self, image):
        assert image.shape[1:] == (3, 256, 256)
        assert image.min() < 0
        semantic = self.semantic_quantizer(self.semantic_encoder(image).float())[2]
        return semantic, self.pixel_quantizer(self.pixel_encoder(image).float())[2]

    def decode_code(self, semantic_indices, pixel_indices):
        semantic = self.semantic_quantizer.indices_to_codes(semantic_indices)
        pixel = self.pixel_quantizer.indices_to_codes(pixel_indices)
        larger = F.interpolate(semantic.float(), pixel.shape[-2:], mode="bicubic")
        return self.pixel_decoder(cat([larger, pixel], 1)).tanh()
