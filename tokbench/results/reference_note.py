"""What tables say of the reference of distributions, wherever it is not the images' own crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokbench.metric_names import MetricName
from tokbench.results.result import Result


def against(results: Sequence[Result]) -> str:
    """Sentences that name it, one for each that the results have; none where it is the crops or nothing is compared."""
    said: dict[str, None] = {}
    for result in results:
        told, compared = result.provenance, [number for number in result.metrics if _compares(number)]
        if compared and told.get("reference"):
            said[f" Distributions are compared with {file(told['reference'])}."] = None
            if any("reference" not in told["metrics"].get(number, {}) for number in compared):
                images = f"the {told['data'].get('available', 0):,} images in the same file"
                said[f" Precision, recall and KID, which need images, are of {images}."] = None
        elif compared and told["protocol"].get("reference") == "original":
            said[" Distributions are compared with the whole original files."] = None
    return "".join(said)


def _compares(number: str) -> bool:
    spec = MetricName.parse(number).spec
    return spec is not None and "reference" in spec.reads


def file(told: Mapping[str, Any]) -> str:
    """A statistics file by name and hash, with what is known of its images, who says so, and what differs."""
    whole, size = bool(told.get("original")), told.get("width")
    known = [f"{told['count']:,} images" if told.get("count") else "an unknown number of images"]
    known += [f"of {told['dataset']}"] if told.get("dataset") else []
    known += ["as their whole files"] if whole else [f"of {size}x{told.get('height')} px"] if size else []
    known += [f"under protocol `{told['protocol']}`"] if told.get("protocol") else []
    parts = [" ".join(known)]
    unknown = [*([] if size or whole else ["size"]), *([] if told.get("protocol") else ["protocol"])]
    if unknown:
        parts.append(f"{' and '.join(unknown)} of the reference {'is' if len(unknown) == 1 else 'are'} unknown")
    if stated := told.get("stated"):
        parts.append(f"{', '.join(stated)} stated by the user, not by the file")
    if mismatch := told.get("mismatch"):
        parts.append(f"{' and '.join(mismatch)} not {'that' if len(mismatch) == 1 else 'those'} of the images here")
    return f"the statistics file {told['file']} ({told['sha256'][:8]}: {'; '.join(parts)})"
