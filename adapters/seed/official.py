"""The authors' SEED checkpoint, second version (AILab-CVC/SEED, commit 93b3cf4, Apache-2.0).

Sources: models/seed_qformer/{qformer_quantizer,blip2,eva_vit}.py and models/seed_llama_tokenizer.py. Images are 224 px
and normalised by CLIP's mean and deviation. `get_codebook_indices` returns indices (B, 32) first, `get_codebook_entry`
an image embedding (B, 1024), from which Stable Diffusion 2.1 unCLIP draws an image of 768 px. The authors' constructor
downloads BERT's config and weights and EVA-CLIP-g; here they are created without weights and filled from the files.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokbench.errors import MissingWeights
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, silent, tensors
from tokbench.tokenizers.tokens import Tokens

SIZE, COUNT, CODES = 224, 32, 8192
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
VISION = "visual_encoder."
"""Prefix of the names of EVA-CLIP-g's weights in the model."""

EVA: dict[str, Any] = {
    "img_size": SIZE,
    "patch_size": 14,
    "use_mean_pooling": False,
    "embed_dim": 1408,
    "depth": 39,
    "num_heads": 16,
    "mlp_ratio": 4.3637,
    "qkv_bias": True,
}
"""The options of EVA-CLIP-g without its last block."""

PARTS = ("unet", "vae", "text_encoder", "image_encoder", "image_normalizer")
"""The parts of the diffusion pipeline that have weights."""


class OfficialSEED(Tokenizer):
    """The authors' tokenizer: 32 causal indices, decoded by a diffusion model from the embedding that they predict.

    The noise comes from the seed of each image. steps, guidance: of the diffusion model, as in the authors' code. Its
    images of 768 px are reduced to 224 px.
    """

    def __init__(self, name: str, net: Any, pipeline: Any, steps: int, guidance: float) -> None:
        self._net, self._pipeline, self._steps, self._guidance = net, pipeline, steps, guidance
        self.module = nn.ModuleDict({"quantizer": net} | {part: getattr(pipeline, part) for part in PARTS})
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(0.0, 1.0),
            size=SIZE,
            num_tokens=COUNT,
            codebook={"codes": CODES},
            bits_per_token=math.log2(CODES),
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, 224, 224) in [0, 1] to indices (B, 32)."""
        mean, deviation = (images.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        return Tokens.from_indices(self._net.get_codebook_indices((images - mean) / deviation)[0], CODES)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        indices = tokens.tensor
        drawn = self._pipeline(
            prompt=[""] * len(indices),
            image_embeds=self._net.get_codebook_entry(indices),
            num_inference_steps=self._steps,
            guidance_scale=self._guidance,
            noise_level=0,
            generator=[torch.Generator(indices.device).manual_seed(seed) for seed in seeds],
            output_type="pt",
        ).images
        return F.interpolate(drawn.float(), size=(SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1)


def load(variant: AdapterConfig, device: str) -> OfficialSEED:
    """Load the authors' model. Raises MissingWeights if their code, the weights or diffusers are not available."""
    code, given = import_upstream(variant, "models.seed_qformer.qformer_quantizer"), variant.config["official"]
    state, found = tensors(variant, "model")
    with silent(), _without_downloads():
        net: nn.Module = code.Blip2QformerQuantizer(vit_precision="fp32")
    if not any(name.startswith(VISION) for name in state):
        vision, _ = tensors(variant, "eva")
        state |= {f"{VISION}{name}": tensor for name, tensor in vision.items()}
    own = net.state_dict().keys()
    net = load_checkpoint(variant, net, {name: state[name] for name in state if name in own}, found)
    pipeline = _pipeline(variant).to(device)
    return OfficialSEED(variant.name, net.to(device), pipeline, given["steps"], given["guidance"])


def _pipeline(variant: AdapterConfig) -> Any:
    """Return the diffusion pipeline of the folder that contains its index; all of its weight files are recorded."""
    try:
        from diffusers import StableUnCLIPImg2ImgPipeline
    except ImportError as error:
        raise MissingWeights(f"{variant.name} draws images with diffusers; pip install 'tokbench[hf]'") from error
    folder = variant.weights("index").path.parent
    for part in PARTS:
        if variant.weights(part).path.parent.parent != folder:
            raise MissingWeights(f"{variant.name}: the files of its pipeline must be in one folder, {folder}")
    try:
        pipeline = StableUnCLIPImg2ImgPipeline.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError) as error:
        raise MissingWeights(
            f"{variant.name}: {folder} is incomplete ({str(error)[:200]}); download it again"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    for part in PARTS:
        getattr(pipeline, part).eval().requires_grad_(False)
    return pipeline


@contextmanager
def _without_downloads() -> Iterator[None]:
    """Make the authors' constructor create BERT and EVA-CLIP-g without weights, which the checkpoint holds."""
    code: Any = importlib.import_module("models.seed_qformer.blip2")
    vision: Any = importlib.import_module("models.seed_qformer.eva_vit")
    names = ("BertTokenizer", "BertConfig", "BertLMHeadModel", "create_eva_vit_g")
    originals = {name: getattr(code, name) for name in names}
    bert, config = originals["BertLMHeadModel"], originals["BertConfig"]
    tokenizer = SimpleNamespace(add_special_tokens=lambda tokens: None)  # it is for texts, and nothing here has one

    def norm(width: int) -> nn.Module:
        return nn.LayerNorm(width, eps=1e-6)

    code.BertTokenizer = SimpleNamespace(from_pretrained=lambda name, **options: tokenizer)
    code.BertConfig = SimpleNamespace(from_pretrained=lambda name: config())  # the defaults are bert-base-uncased's
    code.BertLMHeadModel = SimpleNamespace(from_pretrained=lambda name, config: bert(config))
    code.create_eva_vit_g = lambda *_: vision.VisionTransformer(**EVA, norm_layer=norm)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(code, name, original)
