"""Stand-in for models/seed_qformer/qformer_quantizer.py of AILab-CVC/SEED at 93b3cf4: the same calls and names, tiny
networks."""

import torch
from torch import nn

from .blip2 import Blip2Base


class VectorQuantizer2(nn.Module):
    def __init__(self, n_e, e_dim):
        super().__init__()
        self.embedding = nn.Embedding(n_e, e_dim)


class Blip2QformerQuantizer(Blip2Base):
    def __init__(self, vit_precision="fp16"):
        super().__init__()
        self.tokenizer = self.init_tokenizer()
        self.visual_encoder, self.ln_vision = self.init_vision_encoder(224, 0, False, vit_precision)
        self.Qformer, self.query_tokens = self.init_Qformer(32, self.visual_encoder.num_features)
        self.Qformer.cls = None
        self.Qformer.bert.embeddings.word_embeddings = None
        self.Qformer.bert.embeddings.position_embeddings = None
        self.quantize = VectorQuantizer2(8192, 4)
        self.encode_task_layer = nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 4))
        self.decode_task_layer = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 12))
        self.distill_image_proj = nn.Linear(32 * 12, 1024)

    def get_codebook_indices(self, image):
        assert image.shape[1:] == (3, 224, 224) and image.min() < 0
        seen = self.ln_vision(self.visual_encoder(image))
        queries = self.query_tokens.expand(len(image), -1, -1)
        output = self.Qformer.bert(
            query_embeds=queries,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:-1], dtype=torch.long),
            return_dict=True,
        )
        down = self.encode_task_layer(output.last_hidden_state)
        return torch.cdist(down, self.quantize.embedding.weight[None]).argmin(2), self.decode_task_layer(down)

    def get_codebook_entry(self, indices):
        return self.distill_image_proj(self.decode_task_layer(self.quantize.embedding(indices)).flatten(1))
