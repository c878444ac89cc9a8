"""The specs of tokbench's own metrics, in the order of lists and tables. This module does not import torch."""

from __future__ import annotations

from dataclasses import replace

from tokbench.metric_names.constants import (
    BITS,
    EXACT,
    FACE_DISTANCE,
    GPT,
    LATENT,
    MODEL,
    PAIRS,
    PROBE,
    SHARE,
    SIMILARITY,
)
from tokbench.metric_names.latent_specs import latent_specs
from tokbench.metric_names.modality_specs import shape_specs, sound_specs, video_specs
from tokbench.metric_names.paired_specs import decoder_specs, pixels_specs, semantics_specs
from tokbench.metric_names.set_specs import distances_specs, samples_specs
from tokbench.metric_names.spec import EVERY_MODALITY, MetricSpec, NumberSpec, Section, Tolerance


def _rate() -> MetricSpec:
    return MetricSpec(
        "rate",
        "tokens and bits per image, bpp, compression ratio",
        (
            NumberSpec("tokens_per_image", "tokens/image", 0, None, EXACT, unit="tokens/image"),
            NumberSpec("bits_per_image", "bits/image", 0, False, BITS, unit="bits/image"),
            NumberSpec("bpp", "bpp", 3, False, BITS, unit="bits/pixel"),
            NumberSpec("compression_ratio", "compression ratio", 1, True, BITS),
        ),
        "tokbench.metrics.rate:Rate",
        requires=("tokens", "image"),
        paired=None,
        default_for=("reconstruct", "truncate"),
        section=Section.RATE,
    )


def _codes() -> list[MetricSpec]:
    codebook = MetricSpec(
        "codebook",
        "usage, perplexity and entropy of the codebook, per stream",
        (
            NumberSpec("codebook_usage", "codebook usage", 4, True, Tolerance(absolute=1e-4)),
            NumberSpec("perplexity", "perplexity", 1, True, Tolerance(relative=1e-3)),
            NumberSpec("codebook_entropy", "codebook entropy", 3, None, Tolerance(absolute=1e-3), unit="bits"),
        ),
        "tokbench.metrics.codebook:Codebook",
        requires=("tokens",),
        paired=None,
        default_for=("reconstruct", "truncate", "generate"),
        needs_codebook=True,
        section=Section.CODES,
    )
    coding = MetricSpec(
        "coding",
        "bits per image of losslessly coded indices: order-0 and byte-pair coding",
        (
            NumberSpec(
                "order0_bits_per_image", "order-0 bits/image", 0, False, Tolerance(relative=1e-3), unit="bits/image"
            ),
            NumberSpec("bpe_bits_per_image", "BPE bits/image", 0, False, PAIRS, unit="bits/image"),
            NumberSpec("bpe_tokens_per_image", "BPE tokens/image", 1, None, PAIRS, unit="tokens/image"),
            NumberSpec("order0_model_bytes", "order-0 model bytes", 0, None, MODEL, unit="bytes"),
            NumberSpec("bpe_model_bytes", "BPE model bytes", 0, None, MODEL, unit="bytes"),
        ),
        "tokbench.metrics.compressibility:Coding",
        requires=("tokens",),
        paired=None,
        needs_codebook=True,
        section=Section.CODES,
    )
    code_prediction = MetricSpec(
        "code_prediction",
        "bits per token of a small GPT that is trained on the indices",
        (
            NumberSpec("gpt_bits_per_token", "GPT bits/token", 3, False, GPT, unit="bits/token"),
            NumberSpec("gpt_bits_share", "GPT bits / nominal", 4, False, GPT),
            NumberSpec("gpt_order0_share", "GPT bits / order-0", 4, False, GPT),
        ),
        "tokbench.metrics.code_prediction:CodePrediction",
        requires=("tokens",),
        paired=None,
        needs_codebook=True,
        section=Section.CODES,
    )
    uniformity = MetricSpec(
        "uniformity",
        "how evenly codes are used: density CV, normalised entropy and Gini coefficient, per stream",
        (
            NumberSpec("code_density_cv", "code density CV", 4, False, Tolerance(relative=1e-3)),
            NumberSpec("normalized_entropy", "normalized entropy", 4, True, Tolerance(absolute=1e-4)),
            NumberSpec("code_gini", "code Gini", 4, False, Tolerance(absolute=1e-4)),
        ),
        "tokbench.metrics.uniformity:Uniformity",
        requires=("tokens",),
        paired=None,
        needs_codebook=True,
        section=Section.CODES,
    )
    swap = MetricSpec(
        "swap",
        "share of the colours that holistic tokens carry, by swapping them between images",
        (NumberSpec("holistic_transfer", "holistic transfer", 4, None, SHARE),),
        "tokbench.metrics.swap:Swap",
        wants=("model", "device"),
        requires=("image", "tokens"),
        needs_codebook=True,
        section=Section.CODES,
    )
    return [*(replace(one, modalities=EVERY_MODALITY) for one in (codebook, coding, code_prediction, uniformity)), swap]


def _token_probes() -> list[MetricSpec]:
    probe = MetricSpec(
        "probe",
        "accuracy of linear probes and of nearest neighbours on tokens, for datasets with labels",
        (
            NumberSpec("probe_linear", "linear probe", 4, True, PROBE),
            NumberSpec("probe_linear_pooled", "linear probe, pooled", 4, True, PROBE),
            NumberSpec("probe_knn", "kNN", 4, True, PROBE),
            NumberSpec("probe_knn_pooled", "kNN, pooled", 4, True, PROBE),
            NumberSpec("probe_knn_noisy", "kNN, half noise", 4, True, PROBE),
        ),
        "tokbench.metrics.probe:Probe",
        wants=("model",),
        requires=("tokens", "labels"),
        section=Section.CODES,
        modalities=EVERY_MODALITY,
        group=LATENT,
    )
    retrieval = MetricSpec(
        "retrieval",
        "recall of captions by tokens and of tokens by captions, for tokenizers that embed both",
        (
            NumberSpec("image_to_caption_r1", "image to caption R@1", 4, True, SHARE),
            NumberSpec("image_to_caption_r5", "image to caption R@5", 4, True, SHARE),
            NumberSpec("caption_to_image_r1", "caption to image R@1", 4, True, SHARE),
            NumberSpec("caption_to_image_r5", "caption to image R@5", 4, True, SHARE),
        ),
        "tokbench.metrics.retrieval:Retrieval",
        wants=("model",),
        requires=("tokens", "captions"),
        section=Section.CODES,
    )
    zero_shot = MetricSpec(
        "zero_shot",
        "share of images whose class is found by captions of all classes, for tokenizers that embed both",
        (NumberSpec("zero_shot_top1", "zero-shot top-1", 4, True, SHARE),),
        "tokbench.metrics.zero_shot:ZeroShot",
        wants=("model",),
        requires=("tokens", "captions"),
        section=Section.CODES,
    )
    caption_accuracy = MetricSpec(
        "caption_accuracy",
        "share of the words and of the captions that are written as they are, for tokenizers that write captions",
        (
            NumberSpec("caption_words", "caption words", 4, True, SHARE),
            NumberSpec("caption_exact", "exact captions", 4, True, SHARE),
        ),
        "tokbench.metrics.caption_accuracy:CaptionAccuracy",
        wants=("model",),
        requires=("tokens", "captions"),
        section=Section.CODES,
    )
    return [probe, retrieval, zero_shot, caption_accuracy]


TEXT_SCORES = (
    NumberSpec("t_acc", "T-ACC", 4, True, SHARE, scored=True),
    NumberSpec("t_ned", "T-NED", 4, True, SHARE, scored=True),
    NumberSpec("cer", "CER", 4, False, SHARE, scored=True),
)
FACE_SCORES = (
    NumberSpec("f_sim", "F-Sim", 4, True, SIMILARITY, scored=True),
    NumberSpec("f_distance", "face distance", 4, False, FACE_DISTANCE, scored=True),
    NumberSpec("f_detected", "faces found", 4, True, SHARE, scored=True),
    NumberSpec("f_rank1", "rank-1 identity", 4, True, SHARE, scored=True),
)


def _annotated(reader: str, suffix: str, title: str, summary: str) -> MetricSpec:
    """Return the spec of the text or face metric of one recognizer. The default recognizer has no suffix."""
    words = reader in ("rapidocr", "easyocr", "parseq")
    counts = ("words", "words filtered") if words else ("faces",)
    numbers = (
        *(TEXT_SCORES if words else FACE_SCORES),
        *(NumberSpec(count.replace(" ", "_"), count, 0, None, EXACT) for count in counts),
    )
    return MetricSpec(
        f"{'text' if words else 'faces'}{suffix}", summary, numbers,
        "tokbench.metrics.text:Text" if words else "tokbench.metrics.faces:Faces", wants=("protocol",),
        requires=("reference", "image", "marked"), reader=reader, suffix=suffix, reader_title=title,
        section=Section.ANNOTATED,
    )  # fmt: skip


def _page_text() -> MetricSpec:
    """Return the spec of the text of whole pages."""
    return MetricSpec(
        "text_pages",
        "NED of the text that RapidOCR's PP-OCRv6 finds and reads in whole pages",
        (
            NumberSpec("page_ned", "NED", 4, True, SHARE),
            NumberSpec("page_ned_truth", "NED to the true text", 4, True, SHARE),
            NumberSpec("page_ned_original", "NED to the true text, original", 4, None, SHARE),
        ),
        "tokbench.metrics.page_text:PageText",
        wants=("protocol",),
        reader="rapidocr-page",
        section=Section.ANNOTATED,
    )


def _machine() -> list[MetricSpec]:
    cost = MetricSpec(
        "cost",
        "of samples: network evaluations, GFLOPs per image, latency in ms",
        (
            NumberSpec("network_evaluations", "network evaluations", 0, False, unit="evaluations"),
            NumberSpec("gflops_per_image", "GFLOPs/image", 2, False, unit="GFLOP/image"),
            NumberSpec("decode_gflops_per_image", "decode GFLOPs/image", 2, False, unit="GFLOP/image"),
            NumberSpec("sample_latency_ms", "sample ms", 1, False, unit="ms"),
            NumberSpec("decode_latency_ms", "decode ms", 1, False, unit="ms"),
            NumberSpec("saturated_samples_per_second", "samples/s, saturated", 1, True, unit="images/s"),
            NumberSpec("saturated_decodes_per_second", "decodes/s, saturated", 1, True, unit="images/s"),
        ),
        "tokbench.metrics.generation_cost:Cost",
        wants=("model", "device", "guidance"),
        requires=(),
        paired=False,
        default_for=("generate",),
        timed=True,
        section=Section.COST,
    )
    speed = MetricSpec(
        "speed",
        "parameters, encode and decode images/s, peak memory",
        (
            NumberSpec("parameters", "parameters", 0, section=Section.SIZE),
            NumberSpec("encode_images_per_second", "encode images/s", 1, True, unit="images/s"),
            NumberSpec("sample_images_per_second", "sample images/s", 1, True, unit="images/s"),
            NumberSpec("decode_images_per_second", "decode images/s", 1, True, unit="images/s"),
            NumberSpec("peak_memory_mib", "peak memory MiB", 0, False, unit="MiB"),
        ),
        "tokbench.metrics.throughput:Throughput",
        wants=("model", "device", "batch_size"),
        requires=("timing",),
        paired=None,
        default_for=("reconstruct", "truncate", "generate", "decode"),
        timed=True,
        section=Section.SPEED,
        modalities=EVERY_MODALITY,
    )
    return [cost, speed]


BUILTIN: tuple[MetricSpec, ...] = (
    _rate(),
    *pixels_specs(),
    *decoder_specs(),
    *distances_specs(),
    *semantics_specs(),
    *samples_specs(),
    *_codes(),
    *_token_probes(),
    *latent_specs(),
    _annotated("rapidocr", "", "", "T-ACC, T-NED and CER of words, by RapidOCR's PP-OCRv6"),
    _annotated("easyocr", "_easyocr", " EasyOCR", "T-ACC, T-NED and CER of words, by EasyOCR"),
    _annotated("parseq", "_parseq", " PARSeq", "T-ACC, T-NED and CER of words, by docTR's PARSeq, as in TokBench"),
    _page_text(),
    _annotated("dlib", "", "", "F-Sim, detection and rank-1 identity of faces, by dlib's network"),
    _annotated(
        "insightface",
        "_insightface",
        " antelopev2",
        "F-Sim, detection and rank-1 identity of faces, by antelopev2, as in TokBench",
    ),
    _annotated(
        "buffalo_l",
        "_buffalo_l",
        " buffalo_l",
        "F-Sim, detection and rank-1 identity of faces, by InsightFace's buffalo_l",
    ),
    *_machine(),
    *video_specs(),
    *sound_specs(),
    *shape_specs(),
)
