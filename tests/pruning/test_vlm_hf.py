"""Models of transformers with small random weights: the same logits and words as their own code, and reduced tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from tokbench.errors import MissingWeights, UsageError
from tokbench.pruning.vlm.hf import HfModel, first_word, load_hf
from tokbench.pruning.vlm.methods import METHODS
from tokbench.pruning.vlm.model import Asked
from tokbench.pruning.vlm.prefill import generate, prefill

IMAGE = 10
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip


class Processor:
    """Stands in for a processor: a few words around `count` image tokens, and the pixels that the model takes."""

    def __init__(self, count: int, pixels: dict[str, Tensor]) -> None:
        self.count, self.pixels = count, pixels

    def apply_chat_template(self, messages: Any, add_generation_prompt: bool) -> str:
        assert add_generation_prompt and messages[0]["content"][0] == {"type": "image"}
        return str(messages[0]["content"][1]["text"])

    def __call__(self, images: Any, text: list[str], return_tensors: str) -> dict[str, Tensor]:
        words = [20 + len(word) for word in text[0].split()]
        numbers = torch.tensor([[1, 5, *[IMAGE] * self.count, *words]])
        return {"input_ids": numbers, "attention_mask": torch.ones_like(numbers)} | self.pixels

    def decode(self, row: Tensor, skip_special_tokens: bool) -> str:
        return " ".join(map(str, row.tolist()))


def llava() -> HfModel:
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION), text_config=hf.LlamaConfig(**TEXT), image_token_id=IMAGE
    )
    return built(hf.LlavaForConditionalGeneration(config), 16, {"pixel_values": pixels(1, 3, 32, 32)})


def llava_next() -> HfModel:
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VISION), text_config=hf.LlamaConfig(**TEXT), image_token_id=IMAGE,
        image_grid_pinpoints=[[32, 32]],
    )  # fmt: skip
    given = {"pixel_values": pixels(1, 2, 3, 32, 32), "image_sizes": torch.tensor([[32, 32]])}
    return built(hf.LlavaNextForConditionalGeneration(config), 16 + 16 + 4, given)  # a base image, a tile, line ends


def qwen() -> HfModel:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {
        "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4, "window_size": 16,
        "out_hidden_size": 32, "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = hf.Qwen2_5_VLConfig(
        vision_config=vision, text_config=TEXT | {"rope_parameters": rope}, image_token_id=IMAGE,
        vision_start_token_id=5,
    )  # fmt: skip
    given = {"pixel_values": pixels(64, 3 * 2 * 4 * 4), "image_grid_thw": torch.tensor([[1, 8, 8]])}
    model = built(hf.Qwen2_5_VLForConditionalGeneration(config), 16, given)
    inner = model.processor

    class Typed(Processor):
        def __call__(self, images: Any, text: list[str], return_tensors: str) -> dict[str, Tensor]:
            found = super().__call__(images, text, return_tensors)
            return found | {"mm_token_type_ids": (found["input_ids"] == IMAGE).int()}

    model.processor = Typed(inner.count, inner.pixels)
    return model


def smolvlm() -> HfModel:
    config = hf.SmolVLMConfig(
        vision_config=VISION, text_config=hf.LlamaConfig(**TEXT), image_token_id=IMAGE, scale_factor=2
    )
    return built(hf.SmolVLMForConditionalGeneration(config), 4, {"pixel_values": pixels(1, 1, 3, 32, 32)})


def pixels(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def built(model: Any, count: int, given: dict[str, Tensor]) -> HfModel:
    return HfModel("small", model, Processor(count, given), "cpu", {})


MAKERS = {make.__name__: make for make in (llava, llava_next, qwen, smolvlm)}
ASKED = Asked(
    "colour", ("a",), torch.zeros(1, 1, 3, 32, 32), ((("what", "colour", "?"),),), ("red",), torch.tensor([7])
)


@pytest.mark.parametrize("family", MAKERS)
def test_all_tokens_give_what_the_models_own_code_gives(family: str) -> None:
    torch.manual_seed(0)
    model = MAKERS[family]()
    given = model._inputs(torch.zeros(3, 32, 32), "what colour ?", 32)
    prompt = model.embed(ASKED, model.side)
    with torch.inference_mode():
        theirs = model.model(**given).logits[:, -1]
        words = model.model.generate(**given, max_new_tokens=4, do_sample=False, eos_token_id=None)
    whole = prefill(model, prompt, None, 1.0)
    torch.testing.assert_close(model.logits(whole.features), theirs, rtol=1e-4, atol=1e-5)
    assert generate(model, whole, 4).tolist() == words[:, given["input_ids"].shape[1] :].tolist()
    assert torch.equal(prefill(model, prompt, METHODS["random"](), 1.0).features, whole.features)
    total = model.processor.count
    assert (whole.visual == total).all() and prompt.total == total
    for name in ("random", "strided", "divprune", "fastv", "catp", "topk_cls", "todre"):
        if name in ("topk_cls", "todre") and family != "llava":
            with pytest.raises(UsageError, match="this model has none"):
                prefill(model, prompt, METHODS[name](), 0.5)
            continue
        found = prefill(model, prompt, METHODS[name](), 0.5)
        assert found.visual[0, -1] in (total // 2, 0)  # ToDRE may remove all in the last layer
        assert found.lengths[0, -1] == prompt.hidden.shape[1] - total + found.visual[0, -1]
        cache = found.caches[0][1]
        assert [layer.keys.shape[2] for layer in cache.layers] == found.lengths[0].tolist()
        generate(model, found, 3)
        assert cache.layers[0].keys.shape[2] == found.lengths[0, 0]  # the state can be used again


def test_the_attention_of_llavas_encoder_is_its_own() -> None:
    torch.manual_seed(0)
    model = llava()
    tower = model.model.model.vision_tower
    tower.set_attn_implementation("eager")
    (visual,) = model.embed(ASKED, model.side).visual
    assert visual.seen is not None
    with torch.inference_mode():
        theirs = tower(model.processor.pixels["pixel_values"], output_attentions=True).attentions[-2]
    torch.testing.assert_close(visual.seen.map(), theirs)


def test_a_folder_is_read_without_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingWeights, match=r"has no config\.json"):
        load_hf(f"hf:{tmp_path}", "cpu")
    model = llava()
    model.model.save_pretrained(tmp_path)
    with pytest.raises(MissingWeights, match="cannot be read"):  # no processor
        load_hf(f"hf:{tmp_path}", "cpu")
    monkeypatch.setattr(hf.AutoProcessor, "from_pretrained", lambda folder, local_files_only: model.processor)
    read = load_hf(f"hf:{tmp_path}", "cpu")
    assert list(read.weights) == ["model.safetensors"]
    ours, theirs = (prefill(one, one.embed(ASKED, 32), None, 1.0).features for one in (model, read))
    assert torch.equal(ours, theirs)
    with pytest.raises(UsageError, match="is a clip"):
        HfModel(
            "x",
            hf.CLIPModel(hf.CLIPConfig(text_config={"num_hidden_layers": 1}, vision_config=VISION)),
            None,
            "cpu",
            {},
        )


@pytest.mark.parametrize("text, word", [(" Red.", "red"), ("2 circles", "two"), ("", ""), ("There are 5", "there")])
def test_the_first_word_of_an_answer_counts(text: str, word: str) -> None:
    assert first_word(text) == word
