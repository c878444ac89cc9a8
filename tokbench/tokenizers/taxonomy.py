"""The taxonomy of tokenizers: quantizer, codebooks, causality, training paradigm and domain.

The terms are those of the survey of discrete audio tokens (Mousavi et al., arXiv:2506.10274), for tokenizers of all
kinds of data. Imports no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tokbench.errors import AdapterError
from tokbench.results.taxonomy import TAXONOMY_COLUMNS
from tokbench.tokenizers.spec import TokenizerSpec
from tokbench.validate import convert, unknown_keys


@dataclass(frozen=True)
class Taxonomy:
    """What is not in a tokenizer's spec; "" where it is unknown or does not apply.

    quantizer: for example VQ, RVQ (residual), product VQ, FSQ, LFQ, or KL and none for continuous latents.
    training: `joint` if encoder, quantizer and decoder are trained together, `separate` if the quantizer or the decoder
    is fitted to another, frozen model, `fitted` for statistics without gradients, `none` for codecs; `+ semantic` if
    features, labels or captions supervise the tokens. domain: what the training data show.
    """

    quantizer: str = ""
    training: str = ""
    domain: str = ""


@dataclass(frozen=True)
class _Tables:
    taxonomy: Taxonomy = field(default_factory=Taxonomy)


_SEMANTIC = "joint + semantic"

_TABLE: dict[str, Taxonomy] = {
    name: Taxonomy(quantizer, training)
    for quantizer, training, names in (
        ("VQ", "joint", "vqgan titok one_d_piece robustok d_ar longtextar.f8b12_vq instella_t2i.n16vq"),
        ("VQ", "separate", "karl layton robustok.p8_post robustok.p8_post_own"),
        ("VQ", _SEMANTIC, "gigatok seed tokenflow hita illume_plus.f8_vq ett"),
        ("VQ", "joint", "gigatok.n32_plain tokenflow.f8_pixel ett.f8_before ett.f8_frozen ett.f8_indices hita.n64"),
        ("multi-scale VQ", _SEMANTIC, "tokenflow.s8"),
        ("SimVQ", _SEMANTIC, "illume_plus"),
        ("SimVQ", "joint", "illume_plus.f8_pixel"),
        ("product VQ", _SEMANTIC, "fqgan glotok meditok"),
        ("product VQ", "joint", "fqgan.f8x2_plain"),
        ("RVQ", _SEMANTIC, "dualtoken"),
        ("RVQ", "joint", "dualtoken.p8_pixel"),
        ("FSQ", "joint", "fsq longtextar.f8b12_fsq"),
        ("FSQ", "separate", "flextok"),
        ("LFQ", "joint", "longtextar wetok.f8one"),
        ("product LFQ", "joint", "wetok"),
        ("Bernoulli bits", "joint", "instella_t2i"),
        ("scalar bins", "separate", "tokenbridge"),
        ("k-means", "fitted", "kmeans"),
        ("rounding", "none", "toy"),
        ("KL", "joint", "kl vitok hieratok rectok.p8c64_plain textok taef2 titok.official-bl128-vae"),
        ("KL", _SEMANTIC, "rectok vl_gpt"),
        ("none", _SEMANTIC, "vtp uniflow"),
        ("none", "joint", "vtp.p8c16_ae vtp.p8c16_ae_short uniflow.p8c16_plain"),
        ("none", "fitted", "pca"),
        ("none", "none", "identity resize"),
        ("", "", "vl_gpt.n16_next vl_gpt.n16_both_next"),  # generators
        ("codec", "none", "jpeg webp avif h264 jpeg2000 jxl opus mp3 pcm voxels octree"),
    )
    for name in names.split()
}
"""The entries of families, and of variants that differ from their family, whose TOML files state none."""

_DOMAINS = {
    "longtextar": "photos and text",
    "longtextar.f8b12_photos": "photos",
    "longtextar.f8b12_text": "text",
    "meditok.official-simple-v1": "medical images",
}
"""The domains of families and variants that are trained on more than their training data."""

PHOTOS = "photos"

_DOMAIN_OF_DATA = {
    "tiny-imagenet": PHOTOS,
    "scenes": "drawn scenes",
    "textured": "drawn objects",
    "phantoms": "phantoms",
    "tones": "synthetic sound",
    "spoken-digits": "speech",
}
"""The domain of datasets, by the beginning of their names; other datasets are a domain of their own."""


def taxonomy_of(name: str, config: dict[str, Any]) -> Taxonomy:
    """Return the taxonomy of an adapter from its name and its TOML, whose table [taxonomy] replaces single entries.

    config: the parsed TOML, or {} for adapters without one. Raises AdapterError if the table is invalid.
    """
    if unknown := unknown_keys(config.get("taxonomy"), Taxonomy):
        raise AdapterError(f"{name}: [taxonomy] has no entry {unknown[0]!r}; give quantizer, training or domain")
    stated = convert(config, _Tables, name, AdapterError, "; [taxonomy] has strings").taxonomy
    family = name.partition(".")[0]
    found = _TABLE.get(name, _TABLE.get(family, Taxonomy()))
    if found.quantizer and {"training", "weights", "base"} & config.keys():
        data = config.get("training", {}).get("data", "tiny-imagenet")
        by_data = next((domain for start, domain in _DOMAIN_OF_DATA.items() if str(data).startswith(start)), str(data))
        found = replace(found, domain=_DOMAINS.get(name, _DOMAINS.get(family, by_data)))
    return replace(found, **{key: value for key, value in asdict(stated).items() if value})


def described(taxonomy: Taxonomy, spec: TokenizerSpec) -> dict[str, str]:
    """Return the entries of a result: the taxonomy, the number of codebooks (indices per token, over all streams) and
    whether outputs depend only on earlier input, each only where it is known."""
    codebooks = len(spec.codebook) * (spec.groups or 1)
    causal = {None: "", True: "yes", False: "no"}[spec.causal]
    entries = asdict(taxonomy) | {"codebooks": str(codebooks) if codebooks else "", "causal": causal}
    return {key: entries[key] for key in TAXONOMY_COLUMNS if entries[key]}
