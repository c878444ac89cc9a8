"""A checkpoint of this stand-in: a state dict with EVA-CLIP-g apart and parts that the model removes, and a tiny
pipeline of Stable Diffusion unCLIP, whose folder diffusers writes."""

import json
import os
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableUnCLIPImg2ImgPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from models.seed_qformer import blip2, eva_vit, qformer_causual
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

METADATA = {"format": "pt"}
OPTIONS = {
    "img_size": 224, "patch_size": 14, "use_mean_pooling": False, "embed_dim": 1408, "depth": 39, "num_heads": 16,
    "mlp_ratio": 4.3637, "qkv_bias": True,
}  # fmt: skip


def files(given):
    folder = Path(os.environ["TOKBENCH_WEIGHTS"]) / "stable-diffusion-2-1-unclip"
    pipeline(folder)
    parts = ("unet", "vae", "text_encoder", "image_encoder", "image_normalizer")
    held = {part: state(folder / part) for part in parts}
    vision = eva_vit.VisionTransformer(**OPTIONS, norm_layer=nn.LayerNorm).state_dict()
    eva = vision | {"blocks.39.norm1.weight": torch.zeros(2)}
    return {**held, "index": json.loads((folder / "model_index.json").read_text()), "eva": eva, "model": quantizer()}


def quantizer():
    """The weights without those of EVA-CLIP-g, and with those that the model removes."""
    from models.seed_qformer.qformer_quantizer import Blip2QformerQuantizer

    kept = blip2.BertTokenizer, blip2.BertConfig, blip2.BertLMHeadModel, blip2.create_eva_vit_g

    class Given:
        def __init__(self, made):
            self.made = made

        def from_pretrained(self, *_, **options):
            return self.made(**{key: value for key, value in options.items() if key == "config"})

    blip2.BertTokenizer = Given(lambda: type("Tokenizer", (), {"add_special_tokens": lambda *_: None})())
    blip2.BertConfig, blip2.BertLMHeadModel = Given(qformer_causual.BertConfig), Given(qformer_causual.BertLMHeadModel)
    blip2.create_eva_vit_g = lambda *_: eva_vit.VisionTransformer(**OPTIONS, norm_layer=nn.LayerNorm)
    model = Blip2QformerQuantizer("fp32")
    blip2.BertTokenizer, blip2.BertConfig, blip2.BertLMHeadModel, blip2.create_eva_vit_g = kept
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("visual_encoder.")}
    return state | {"Qformer.cls.weight": torch.zeros(2, 2)}


def state(folder):
    from safetensors.torch import load_file

    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def pipeline(folder):
    """Write a pipeline with the classes of stabilityai/stable-diffusion-2-1-unclip."""
    vocabulary = folder.parent / "vocabulary"
    vocabulary.mkdir(parents=True)
    (vocabulary / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1, "!": 2}))
    (vocabulary / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(vocabulary / "vocab.json"), str(vocabulary / "merges.txt"), model_max_length=6)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(vocab_size=3, max_position_embeddings=6, **small)
    vision = CLIPVisionConfig(image_size=32, patch_size=16, projection_dim=1024, **small)
    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(8,), norm_num_groups=4, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",), cross_attention_dim=16,
        class_embed_type="projection", projection_class_embeddings_input_dim=2048,
    )  # fmt: skip
    made = StableUnCLIPImg2ImgPipeline(
        feature_extractor=CLIPImageProcessor(crop_size=32, size=32),
        image_encoder=CLIPVisionModelWithProjection(vision),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=1024),
        image_noising_scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=tokenizer,
        text_encoder=CLIPTextModel(text),
        unet=unet,
        scheduler=DDIMScheduler(prediction_type="v_prediction", set_alpha_to_one=False, clip_sample=False),
        vae=AutoencoderKL(block_out_channels=(4, 4), norm_num_groups=2, down_block_types=("DownEncoderBlock2D",) * 2,
                          up_block_types=("UpDecoderBlock2D",) * 2),
    )  # fmt: skip
    made.save_pretrained(folder)
