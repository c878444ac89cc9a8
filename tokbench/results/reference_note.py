"""Describes the reference that distributions are compared with, if it is not the crops of the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokbench.metric_names import MetricName
from tokbench.results.result import Result


def reference_note(results: Sequence[Result]) -> str:
    """Return one sentence per reference of the results; empty if all are the crops or no distributions are compared."""
    sentences: dict[str, None] = {}
    for result in results:
        provenance, compared = result.provenance, [metric for metric in result.metrics if _has_reference(metric)]
        if compared and provenance.get("reference"):
            sentences[f" Distributions are compared with {describe_statistics(provenance['reference'])}."] = None
            if any("reference" not in provenance["metrics"].get(metric, {}) for metric in compared):
                images = f"the {provenance['data'].get('available', 0):,} images in the same file"
                sentences[f" Precision, recall and KID, which need images, are of {images}."] = None
        elif compared and provenance["protocol"].get("reference") == "original":
            sentences[" Distributions are compared with the whole original files."] = None
    return "".join(sentences)


def _has_reference(metric: str) -> bool:
    spec = MetricName.parse(metric).spec
    return spec is not None and "reference" in spec.reads


def describe_statistics(reference: Mapping[str, Any]) -> str:
    """Return the name and hash of a statistics file, and the properties of its images.

    reference: `provenance.reference` of a result. The text states which properties are unknown, which ones the user
    stated, and which ones differ from those of the evaluated images.
    """
    whole, size = bool(reference.get("original")), reference.get("width")
    known = [f"{reference['count']:,} images" if reference.get("count") else "an unknown number of images"]
    known += [f"of {reference['dataset']}"] if reference.get("dataset") else []
    known += ["as their whole files"] if whole else [f"of {size}x{reference.get('height')} px"] if size else []
    known += [f"under protocol `{reference['protocol']}`"] if reference.get("protocol") else []
    parts = [" ".join(known)]
    unknown = [*([] if size or whole else ["size"]), *([] if reference.get("protocol") else ["protocol"])]
    if unknown:
        parts.append(f"{' and '.join(unknown)} of the reference {'is' if len(unknown) == 1 else 'are'} unknown")
    if stated := reference.get("stated"):
        parts.append(f"{', '.join(stated)} stated by the user, not by the file")
    if mismatch := reference.get("mismatch"):
        parts.append(f"{' and '.join(mismatch)} not {'that' if len(mismatch) == 1 else 'those'} of the images here")
    return f"the statistics file {reference['file']} ({reference['sha256'][:8]}: {'; '.join(parts)})"
