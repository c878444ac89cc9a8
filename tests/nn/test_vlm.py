"""The vision-language models: packed questions do not see one another, the loss falls, episodes need their context."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tokbench.data.questions import NONSENSE, encode_words, questions_of
from tokbench.data.synthetic.raster import Draws
from tokbench.data.synthetic.scenes import caption_of, draw, make_scene
from tokbench.data.vocabulary import encode_captions
from tokbench.errors import DataError
from tokbench.nn.trainable import TrainingBatch
from tokbench.nn.vlm import (
    DEMONSTRATIONS,
    InContextVLM,
    MiniVLM,
    VlmShape,
    answer_targets,
    episode,
    pack,
    packed_mask,
)

SMALL = VlmShape(width=24, depth=2, heads=2, vision_width=16, vision_depth=1, vision_heads=2)


def scenes_batch(count: int) -> TrainingBatch:
    scenes = [make_scene("train", place) for place in range(count)]
    pixels = torch.stack([torch.from_numpy(draw(scene)).permute(2, 0, 1) for scene in scenes])
    return TrainingBatch(pixels / 127.5 - 1, captions=encode_captions([caption_of(scene) for scene in scenes]))


@pytest.fixture(scope="module")
def batch() -> TrainingBatch:
    return scenes_batch(40)


def test_a_packed_question_gets_the_answer_that_it_gets_alone(batch: TrainingBatch) -> None:
    torch.manual_seed(0)
    model = MiniVLM(SMALL).eval()
    asked = questions_of(caption_of(make_scene("train", 0)), Draws("0"))
    visual = torch.randn(1, 5, 24)

    def features(questions: list) -> torch.Tensor:
        words, segments, places = pack([questions])
        text = model.decoder.words[words] + model.decoder.places[places]
        mask = packed_mask(5, segments)
        answers, ends = answer_targets(words, segments)
        assert answers[answers >= 0].tolist() == encode_words(one.answer for one in questions)
        assert words[ends].tolist() == answers[answers >= 0].tolist()
        return model.decoder(torch.cat([visual, text], 1), mask)[:, 5:][answers >= 0]

    together = features(asked)
    assert len(together) == len(asked) >= 2
    for place, one in enumerate(asked):
        torch.testing.assert_close(features([one])[0], together[place])


def test_training_reduces_both_losses(batch: TrainingBatch) -> None:
    torch.manual_seed(0)
    model = MiniVLM(SMALL)
    model.ready("cpu")
    assert batch.captions is not None
    few = TrainingBatch(batch.images[:12], captions=batch.captions[:12])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    found = []
    for _ in range(12):
        terms = model.loss(few, 0.0)
        optimiser.zero_grad()
        sum(terms.values()).backward()
        optimiser.step()
        found.append({name: float(term.detach()) for name, term in terms.items()})
    assert found[-1]["answers"] < 0.8 * found[0]["answers"]
    assert found[-1]["caption"] < 0.8 * found[0]["caption"]
    with pytest.raises(DataError, match="needs captions"):
        model.loss(TrainingBatch(batch.images), 0.0)


def test_both_models_fit_into_three_mebibytes_of_int8() -> None:
    base = MiniVLM(VlmShape())
    count = sum(value.numel() for model in (base, InContextVLM(base)) for value in model.state_dict().values())
    assert count < 0.985 * 3 * 2**20  # names, and scales of the rows, take the rest


def test_the_words_of_an_episode_say_nothing_about_its_images() -> None:
    colours = [make_scene("train", place).main.colour for place in range(64)]
    pairs, places = Counter[tuple[str, str]](), Counter[int]()
    for seed in range(3000):
        query = seed % 64
        one = episode(colours, query, Draws(f"{seed}"))
        assert one is not None
        shown = [colours[place] for place in one.places[:-1]]
        assert len(set(shown)) == len(set(one.words[:-1])) == DEMONSTRATIONS
        right = one.words[:-1].index(one.words[-1])
        assert shown[right] == colours[query] and query not in one.places[:-1]
        pairs[colours[query], one.words[-1]] += 1
        places[right] += 1
    assert all(0.2 < count / 3000 < 0.3 for count in places.values())  # no position is better than another
    for colour in set(colours):
        total = sum(pairs[colour, word] for word in NONSENSE)
        assert max(pairs[colour, word] for word in NONSENSE) / total < 2.5 / len(NONSENSE)
    assert episode(["red", "blue"], 0, Draws("0")) is None


def test_in_context_training_leaves_the_encoder_as_it_is(batch: TrainingBatch) -> None:
    torch.manual_seed(0)
    base = MiniVLM(SMALL)
    model = InContextVLM(base, share=0.2)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    terms = model.loss(batch, 0.0)
    sum(terms.values()).backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if "head" in name)
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    assert all(parameter.grad is None for parameter in base.parameters())
    assert not any(name.startswith("base") for name in model.state_dict())
    with pytest.raises(DataError, match="larger batches"):
        model.loss(scenes_batch(2), 0.0)
