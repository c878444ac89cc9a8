"""The words of captions and their numbers, for text encoders."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from tokbench.errors import DataError

PADDING, UNKNOWN = 0, 1
"""The numbers of an empty place after the last word, and of a word that is not in WORDS."""

LENGTH = 20
"""Largest number of words of a caption; the longest caption of tokbench's datasets has 14."""

# Trained weights depend on the numbers: append new words at the end, and do not sort or delete.
_LIST = """
a abacus above academic acorn albatross alligator altar an apron arch baboon background backpack bag ball banana
banister barbershop barn barrel basketball bathtub beaker bear bee beer bell below bighorn bikini binoculars
birdhouse bison black bleed blue boa book bottle bow box brace brain brass bridge broom brown bucket bullet
bullfrog bus butcher butterfly camel candle candy cannon car cardigan cash cat cauliflower cd centipede chain chair
chest chihuahua chimpanzee christmas circle circles cliff coat cockroach comic compass computer constrictor control
convertible coral cougar crane cream cross crosses ct cucumber cup cyan cyst dam desk diamond diamonds dining dog
dragonfly drumstick dugong dumbbell dwelling egg egyptian elephant espresso fence fire five flagpole fly fountain
four freight frog frying fur gas gazelle german go golden goldfish gondola goose gown grasshopper green grey
guacamole guinea hat heater hourglass ice ipod jellyfish jug kart key keyboard kimono king koala labrador ladybug
lake lampshade large lawn left lemon lesion lifeboat lighthouse limousine lion loaf lobster lolly machine mantis
map mashed mask maypole meat meter military miniskirt missile monarch mostly mountain moving mower mushroom nail
neck obelisk oboe of on orange orangutan organ ox pan panda parking pay penguin pepper persian pet phantom phone
photo picket pie pig pill pink pipe pizza plaque plate player plunger pole police pomegranate poncho poodle pop pot
potato potter pretzel punching purple red reef reel refrigerator remote retriever rickshaw right ring rings rocking
roof rugby salamander sandal school scoreboard scorpion sea sewing sheep shepherd shop shore slug small snail
snorkel sock sombrero space spider spiny spoon sports square squares standard station steel stick stocking
stopwatch store stork sulphur sun sunglasses suspension swimming syringe t1 t2 tabby table tailed tarantula tea
teapot teddy terrier thatched the three tie torch tower tractor train triangle triangles trilobite triumphal
trolleybus trunks tumour turnstile two umbrella uniform van vestment viaduct volleyball wagon walking water web
wheel white widow with without wok wooden word yellow yorkshire
"""

WORDS = tuple(_LIST.split())
"""The words of the captions of tokbench's own datasets. A word's number is its position here plus 2."""

SIZE = len(WORDS) + 2
"""Number of different numbers."""

_NUMBERS = {word: number for number, word in enumerate(WORDS, 2)}


def split_words(caption: str) -> list[str]:
    """Return the words of a caption in lower case, without punctuation."""
    return re.findall(r"[a-z0-9]+", caption.lower())


def encode_captions(captions: Sequence[str]) -> Tensor:
    """Return the numbers of the words of captions, int64 (B, LENGTH), padded with PADDING.

    Words outside the vocabulary become UNKNOWN. Raises DataError if a caption has no word or more than LENGTH words.
    """
    rows = torch.full((len(captions), LENGTH), PADDING)
    for row, caption in zip(rows, captions, strict=True):
        words = split_words(caption)
        if not 0 < len(words) <= LENGTH:
            raise DataError(f"the caption {caption[:200]!r} has {len(words)} words; give 1 to {LENGTH}")
        row[: len(words)] = torch.tensor([_NUMBERS.get(word, UNKNOWN) for word in words])
    return rows


def decode_captions(rows: Tensor) -> list[str]:
    """Return the captions of numbers (B, L), up to the first PADDING; an UNKNOWN word is `?`."""
    names = ("", "?", *WORDS)
    captions = []
    for row in rows.tolist():
        end = row.index(PADDING) if PADDING in row else len(row)
        captions.append(" ".join(names[number] for number in row[:end]))
    return captions


def mirror_captions(rows: Tensor) -> Tensor:
    """Return the captions (B, LENGTH) of the mirrored images: `left` and `right` are exchanged."""
    left, right = _NUMBERS["left"], _NUMBERS["right"]
    return torch.where(rows == left, right, torch.where(rows == right, left, rows))
