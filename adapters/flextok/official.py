"""The authors' FlexTok checkpoints (apple/ml-flextok, commit 87d00cc; weights: Apple's research licence).

Sources: flextok/flextok_wrapper.py, vae_wrapper.py, flow_matching/pipelines.py and utils/checkpoint.py. Images are in
[-1, 1], 256 px. `tokenize` returns a list of indices (1, N), `detokenize` takes a list of (1, k). The metadata of the
safetensors file contain the config as text of Python literals; Hydra imports and calls its `_target_` entries.
"""

from __future__ import annotations

import ast
import importlib
import math
from collections.abc import Sequence
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from tokbench.errors import AdapterError, MissingWeights
from tokbench.tokenizers.base import Tokenizer
from tokbench.tokenizers.builtin.diffusers_files import locate
from tokbench.tokenizers.config import AdapterConfig
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.tokenizers.third_party import import_upstream, load_checkpoint, tensors
from tokbench.tokenizers.tokens import Tokens
from tokbench.weights.registry import LocalWeights

SIZE = 256


class OfficialFlexTok(Tokenizer):
    """The authors' tokenizer: N indices, any first k of which can be decoded by a flow over a VAE's latents.

    The flow's noise comes from the seed of each image. steps, guidance: number of steps and scale of the adaptive
    projected guidance (arXiv:2410.02416), as in the authors' README.md.
    """

    def __init__(self, name: str, net: Any, steps: int, guidance: float) -> None:
        self.module, self._net, self._steps, self._guidance = net, net, steps, guidance
        net.vae.sample_posterior = False  # encode with the posterior's mean, which is deterministic
        self._codes, self._latent = int(net.regularizer.codebook_size), SIZE // net.downsample_factor
        self.spec = TokenizerSpec(
            name,
            kind="discrete",
            range=(-1.0, 1.0),
            size=SIZE,
            num_tokens=net.encoder.module_dict["enc_register_module"].n_max,
            codebook={"codes": self._codes},
            bits_per_token=math.log2(self._codes),
            prefixes=True,
        )

    def encode(self, images: Tensor) -> Tokens:
        """Encode (B, 3, 256, 256) in [-1, 1] to indices (B, N).

        Images are encoded one by one: a batch would be packed into one sequence, and rounding would depend on it.
        """
        rows = [self._net.tokenize(image[None])[0] for image in images]
        return Tokens.from_indices(torch.cat(rows), self._codes)

    def decode(self, tokens: Tokens, seeds: Sequence[int]) -> Tensor:
        """Decode indices (B, k); the tokens after the k-th are replaced by the learned mask token."""
        images = [
            self._net.detokenize(
                [row[None]],
                vae_image_sizes=self._latent,
                timesteps=self._steps,
                generator=torch.Generator(row.device).manual_seed(seed),
                verbose=False,
                guidance_scale=self._guidance,
                perform_norm_guidance=True,
            )
            for row, seed in zip(tokens.tensor, seeds, strict=True)
        ]
        return torch.cat(images)


def load(variant: AdapterConfig, device: str) -> OfficialFlexTok:
    """Load the authors' model.

    Raises MissingWeights if their code or the weights are not available, AdapterError if the config names functions
    that are not part of FlexTok.
    """
    code, given = import_upstream(variant, "flextok.flextok_wrapper"), variant.config["official"]
    state, found = tensors(variant, "model")
    net: nn.Module = code.FlexTokFromHub(_config(variant, found))
    if torch.device(device).type == "cpu":
        _without_compiling(net)
    net = load_checkpoint(variant, net, state, found).to(device)
    return OfficialFlexTok(variant.name, net, given["steps"], given["guidance"])


def _config(variant: AdapterConfig, found: LocalWeights) -> dict[str, Any]:
    with safe_open(found.path, framework="pt") as file:
        metadata = file.metadata() or {}
    config: dict[str, Any] = {}
    for key, text in metadata.items():
        try:
            config[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            config[key] = text
    if not {"vae", "encoder", "decoder", "regularizer", "pipeline"} <= config.keys():
        raise MissingWeights(
            f"{variant.name}: {found.path} has no config in its metadata; get the file from {found.source.get}"
        )
    _check_targets(variant, config)
    hub = config["vae"].get("hf_hub_path")
    if hub is not None:  # its constructor would download the VAE
        try:
            config["vae"]["hf_hub_path"] = str(locate(hub, {}, variant.allow_download).folder)
        except AdapterError as error:
            raise MissingWeights(f"{variant.name} needs its VAE: {error}") from error
    return config


def _check_targets(variant: AdapterConfig, part: Any) -> None:
    """Raise AdapterError if the config names a callable that flextok's modules do not define themselves.

    A weight file must not be able to run arbitrary code.
    """
    if isinstance(part, dict):
        target = part.get("_target_")
        if target is not None and not _defined_here(target):
            raise AdapterError(f"{variant.name}: the config in its weights calls {target!r}, not a part of FlexTok")
    children = part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ()
    for child in children:
        _check_targets(variant, child)


def _defined_here(target: Any) -> bool:
    module, _, name = str(target).rpartition(".")
    parts = ("flextok.flextok_wrapper", "flextok.vae_wrapper", "flextok.flow_matching.", "flextok.model.")
    if not module.startswith((*parts, "flextok.regularizers.")):
        return False
    try:
        return getattr(getattr(importlib.import_module(module), name, None), "__module__", None) == module
    except ImportError:
        return False


def _without_compiling(net: nn.Module) -> None:
    """Use plain attention with an explicit mask, since FlexAttention is compiled for GPUs only."""
    for part in net.modules():
        if hasattr(part, "use_flex_attention"):
            part.use_flex_attention = False
        if hasattr(part, "return_materialized_mask"):
            part.return_materialized_mask, part.compile_block_mask = True, False
