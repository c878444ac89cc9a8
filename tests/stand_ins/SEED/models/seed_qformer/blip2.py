"""Stand-in for models/seed_qformer/blip2.py of AILab-CVC/SEED at 93b3cf4: the same calls and names."""

import torch
from torch import nn

from .eva_vit import create_eva_vit_g
from .qformer_causual import BertConfig, BertLMHeadModel


class BertTokenizer:
    @classmethod
    def from_pretrained(cls, name, truncation_side):
        raise AssertionError("this downloads a vocabulary")


class Blip2Base(nn.Module):
    @classmethod
    def init_tokenizer(cls, truncation_side="right"):
        tokenizer = BertTokenizer.from_pretrained("bert-base-uncased", truncation_side=truncation_side)
        tokenizer.add_special_tokens({"bos_token": "[DEC]"})
        return tokenizer

    @classmethod
    def init_Qformer(cls, num_query_token, vision_width, cross_attention_freq=2):
        config = BertConfig.from_pretrained("bert-base-uncased")
        config.encoder_width = vision_width
        config.add_cross_attention, config.cross_attention_freq = True, cross_attention_freq
        config.query_length = num_query_token
        query_tokens = nn.Parameter(torch.zeros(1, num_query_token, config.hidden_size).normal_())
        return BertLMHeadModel.from_pretrained("bert-base-uncased", config=config), query_tokens

    def init_vision_encoder(self, img_size, drop_path_rate, use_grad_checkpoint, precision):
        assert precision == "fp32"
        encoder = create_eva_vit_g(img_size, drop_path_rate, use_grad_checkpoint, precision)
        return encoder, nn.LayerNorm(encoder.num_features)
