"""Vision-language models of Hugging Face's transformers, from folders that users have: LLaVA, Qwen2.5-VL, SmolVLM."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokbench.data.dataset import Dataset
from tokbench.data.synthetic.scenes import COUNTS
from tokbench.errors import MissingWeights, UsageError
from tokbench.io.hashing import sha256_of
from tokbench.pruning.vit import Attended
from tokbench.pruning.vlm.mini import scene_questions
from tokbench.pruning.vlm.model import Asked, DecoderSizes, Prompt, VisionLanguageModel, Visual

PREFIX = "hf:"

FAMILIES = ("llava", "llava_next", "qwen2_5_vl", "smolvlm")
"""Values of `model_type` in the config.json of supported models."""

INSTRUCTION = "Answer with one word."

SIDES = (1.0, 0.75, 0.5, 0.35, 0.25)
"""Sides of smaller images, in shares of the model's, that the control at lower resolution can use."""

ANSWER_TOKENS = 5
"""Tokens that are generated; the answer is their first word."""

_DIGITS = {"1": "one"} | {str(count): word for count, word in COUNTS.items()}


class _Captured(Exception):
    """Ends a forward pass as soon as the decoder's inputs are known."""


class HfModel(VisionLanguageModel):
    """A model of transformers with its processor. Prompts are run one by one, since their lengths differ."""

    def __init__(self, name: str, model: Any, processor: Any, device: str, weights: dict[str, str]) -> None:
        config = model.config
        if config.model_type not in FAMILIES:
            raise UsageError(f"{name} is a {config.model_type}; supported are {', '.join(FAMILIES)}")
        inner = model.model
        self.text = getattr(inner, "language_model", None) or inner.text_model
        first = self.text.layers[0].self_attn
        if any(getattr(layer.self_attn, "sliding_window", None) for layer in self.text.layers):
            raise UsageError(f"{name} has layers with a sliding window, in which tokens cannot be removed")
        parameter = next(model.parameters())
        text = config.get_text_config()
        sizes = DecoderSizes(
            len(self.text.layers), text.hidden_size, first.q_proj.out_features, first.k_proj.out_features,
            text.intermediate_size, 3, parameter.element_size(),
        )  # fmt: skip
        vision = config.vision_config
        super().__init__(name, sizes, int(getattr(vision, "image_size", 448)), device, weights)
        self.model, self.processor, self.dtype = (
            model.to(device).eval().requires_grad_(False),
            processor,
            parameter.dtype,
        )
        self.image_token = getattr(config, "image_token_id", None) or config.image_token_index
        parameters = inspect.signature(type(self.text.layers[0]).forward).parameters
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"  # its name before transformers 5.24

    def questions(self, dataset: Dataset, batch: int) -> Iterator[Asked]:
        for asked in scene_questions(dataset, batch, self.device):
            for place in range(len(asked.ids)):
                yield asked.at(place)

    def embed(self, asked: Asked, side: int) -> Prompt:
        """Return one embedded prompt. Raises UsageError if its image tokens cannot be found."""
        pixels = ((asked.images[0, 0] + 1) / 2).clamp(0, 1)
        given = self._inputs(pixels, " ".join(asked.texts[0][0]), side)
        hidden, positions, vision = self._captured(given)
        image = (given["input_ids"] == self.image_token).to(hidden.device)
        if not image.any():
            raise UsageError(f"{self.name}: the prompt has no image tokens with the number {self.image_token}")
        starts = image & ~torch.nn.functional.pad(image[:, :-1], (1, 0), value=False)
        run = starts.long().cumsum(1) - 1  # each run of image tokens, such as a tile, is reduced on its own
        counts = torch.bincount(run[image]).tolist()
        visual = tuple(self._visual(pixels, count, vision if len(counts) == 1 else None) for count in counts)
        last = positions.amax(-1, keepdim=True) + 1
        return Prompt(hidden, positions, run.masked_fill(~image, -1), run, visual, asked.seeds, following=last)

    def _inputs(self, pixels: Tensor, question: str, side: int) -> dict[str, Tensor]:
        from torchvision.transforms.functional import resize, to_pil_image

        picture = to_pil_image(resize(pixels.cpu(), [side, side], antialias=True).clamp(0, 1))
        content = [{"type": "image"}, {"type": "text", "text": f"{question} {INSTRUCTION}"}]
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        found = self.processor(images=[picture], text=[text], return_tensors="pt")
        return {
            key: value.to(self.device, self.dtype) if value.is_floating_point() else value.to(self.device)
            for key, value in found.items()
        }

    def _captured(self, given: dict[str, Tensor]) -> tuple[Tensor, Tensor, tuple[Any, Tensor] | None]:
        """Return the decoder's inputs and positions, and the image encoder's last used attention with its inputs."""
        found: dict[str, Any] = {}

        def stop(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            found.update(kwargs)
            raise _Captured

        def keep(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            found["vision"] = (module, kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])

        hooks = [self.text.register_forward_pre_hook(stop, with_kwargs=True)]
        if (attention := self._vision_attention()) is not None:
            hooks.append(attention.register_forward_pre_hook(keep, with_kwargs=True))
        try:
            self.model(**given)
        except _Captured:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        hidden, positions = found["inputs_embeds"], found.get("position_ids")
        if positions is None:
            positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        return hidden, positions, found.get("vision")

    def _vision_attention(self) -> Any:
        """Return the attention of the last used layer of a CLIP encoder, which has a CLS token; None for others."""
        tower = getattr(self.model.model, "vision_tower", None)
        layer = getattr(self.model.config, "vision_feature_layer", None)
        if tower is None or not isinstance(layer, int) or "clip" not in tower.config.model_type:
            return None
        return getattr(tower, "vision_model", tower).encoder.layers[layer if layer < 0 else layer - 1].self_attn

    def _visual(self, pixels: Tensor, count: int, vision: tuple[Any, Tensor] | None) -> Visual:
        side = round(count**0.5)
        grid = (side, side) if side * side == count else (1, count)
        if vision is None or vision[1].shape[:2] != (1, count + 1):
            return Visual(None, 0, pixels[None], grid)
        attention, hidden = vision
        heads = [
            projection(hidden).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        ]
        return Visual(Attended(*heads), 1, pixels[None], grid)

    def sides(self) -> Sequence[tuple[int, int]]:
        blank = torch.zeros(3, self.side, self.side)
        sides = [int(self.side * share) for share in SIDES]
        return [(side, int((self._inputs(blank, "?", side)["input_ids"] == self.image_token).sum())) for side in sides]

    def cache(self) -> Any:
        return importlib.import_module("transformers").DynamicCache()

    def split_cache(self, cache: Any, rows: Tensor) -> Any:
        raise AssertionError("prompts are run one by one")

    def fork_cache(self, cache: Any) -> Any:
        copy = self.cache()
        for index, layer in enumerate(cache.layers):
            copy.update(layer.keys, layer.values, index)
        return copy

    def layer(self, index: int, hidden: Tensor, positions: Tensor, cache: Any) -> Tensor:
        rotary = self.text.rotary_emb(hidden, position_ids=positions)
        mask, n = None, hidden.shape[1]
        if n > 1:
            mask = torch.ones(n, n, dtype=torch.bool, device=hidden.device).tril()[None, None]
            if self.text.config._attn_implementation == "eager":
                mask = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(~mask, torch.finfo(hidden.dtype).min)
        found = self.text.layers[index](
            hidden, attention_mask=mask, position_embeddings=rotary, use_cache=True, **{self._cache_name: cache}
        )
        return found if isinstance(found, Tensor) else found[0]

    def attended(self, index: int, hidden: Tensor, positions: Tensor) -> Attended:
        layer = self.text.layers[index]
        attention, normed = layer.self_attn, layer.input_layernorm(hidden)
        query, key, value = (
            projection(normed).unflatten(2, (-1, attention.head_dim)).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
        query, key = rotate(query, key, *self.text.rotary_emb(hidden, position_ids=positions))
        groups = query.shape[1] // key.shape[1]
        return Attended(query, key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1))

    def norm(self, hidden: Tensor) -> Tensor:
        return self.text.norm(hidden)

    def logits(self, features: Tensor) -> Tensor:
        return self.model.lm_head(features)

    def embed_next(self, words: Tensor, prompt: Prompt, step: int) -> tuple[Tensor, Tensor]:
        return self.text.embed_tokens(words[:, None]), prompt.following + step

    def read(self, generate: Any, first: Tensor) -> list[str]:
        return [first_word(self.processor.decode(row, skip_special_tokens=True)) for row in generate(ANSWER_TOKENS)]


def first_word(text: str) -> str:
    """Return the first word of an answer in lower case; numbers are words."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    return _DIGITS.get(words[0], words[0]) if words else ""


def load_hf(name: str, device: str) -> HfModel:
    """Load `hf:FOLDER`, a model with its processor as transformers saves them, without any download.

    Raises UsageError if transformers is missing or the model is not supported, MissingWeights if the folder cannot be
    read. Weights are read from safetensors only.
    """
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise UsageError(f"{name} needs transformers ({error}); pip install 'tokbench[vlm]'") from error
    folder = Path(name.removeprefix(PREFIX)).expanduser()
    if not (folder / "config.json").is_file():
        raise MissingWeights(f"{name}: {folder} has no config.json; give the folder of a model that was downloaded")
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype="float32" if device == "cpu" else "auto"
        )
    except Exception as error:  # readers of configurations and weights raise many classes
        raise MissingWeights(
            f"{name} cannot be read ({str(error).splitlines()[0][:200]}); download it again"
        ) from error
    weights = {path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))}
    return HfModel(name, model, processor, device, weights)
