"""The authors' DualViTok checkpoint (huangrh99/illume, commit cf0676b, folder vision_tokenizer).

Sources: tokenizer/dualvitok_model.py, tokenizer/builder.py, utils/registry_utils.py and
configs/example/dualvitok/dualvitok_anyres_max512.py. Images are in [-1, 1]; of images of 256 px, the semantic branch
reads 252 px. `encode_code` returns the indices of both branches as grids, (B, 9, 9) and (B, 16, 16), and `decode_code`
takes them. The constructor loads Qwen2-VL's vision transformer from the Hugging Face hub by its name. Its weights are
expected in the checkpoint, too, so here it is built from its default configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, silent, tensors
from tokbench.tokenizers.tokens import Tokens

SIZE = 256
SIDES = {"semantic": 9, "pixel": 16}
"""Side of each branch's grid at 256 px."""


class OfficialDualViTok(Tokenizer):
    """The authors' tokenizer: a grid of semantic and a grid of pixel indices, each in its own stream."""

    def __init__(self, name: str, net: Any, codes: dict[str, int]) -> None:
        self.module, self._net, self._codes = net, net, codes
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(-1.0, 1.0),
            size=SIZE,
            num_tokens=sum(side**2 for side in SIDES.values()),
            codebook=codes,
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, 256, 256) in [-1, 1] to indices (B, 9, 9) and (B, 16, 16)."""
        found = self._net.encode_code(images)
        return Tokens.from_indices(dict(zip(SIDES, found, strict=True)), self._codes)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        return self._net.decode_code(*(tokens.streams[name].data for name in SIDES))


@contextmanager
def _built_from_configuration(code: ModuleType) -> Iterator[None]:
    """Let the authors' module build the frozen vision transformer from its configuration, without a download."""
    transformer = code.Qwen2VisionTransformerPretrainedModel

    def build(name: str, attn_implementation: str) -> nn.Module:
        config = code.Qwen2VLVisionConfig()
        config._attn_implementation = attn_implementation
        built: nn.Module = transformer(config)
        return built

    own = transformer.__dict__.get("from_pretrained")
    transformer.from_pretrained = build
    try:
        yield
    finally:
        if own is None:
            del transformer.from_pretrained
        else:
            transformer.from_pretrained = own


def load(variant: AdapterConfig, device: str) -> OfficialDualViTok:
    """Load the authors' model. Raises MissingWeights if their code or the weights are not available."""
    code = import_upstream(variant, "tokenizer.dualvitok_model")
    builder = import_upstream(variant, "tokenizer.builder")
    nested = import_upstream(variant, "utils.registry_utils").DotDict.convert
    import_upstream(variant, "tokenizer.quantizer")  # registers SimVQ
    state, found = tensors(variant, "model", ("ema", "model", "state_dict"))
    given = variant.config["official"]["model"]
    with silent(), _built_from_configuration(code):
        net: nn.Module = builder.build_vq_model(nested({"type": "DualViTok", "config": given}))
    codes = {name: given[f"{name}_quantizer"]["codebook_size"] for name in SIDES}
    return OfficialDualViTok(variant.name, load_checkpoint(variant, net, state, found).to(device), codes)
