"""MetricName: the grammar of the names of numbers in results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from tokbench.metric_names.perturbation import EXTENSIONS, PerturbationNaming
from tokbench.metric_names.registry import METRICS, perturbable
from tokbench.metric_names.spec import MetricSpec, NumberSpec, Span, Version, form_name
from tokbench.stats.naming import INFINITY


@dataclass(frozen=True)
class MetricName:
    """The parsed name of a number. `str()` returns the name as text.

    number: the name in its NumberSpec, or the whole text before the dot if no metric computes such a number.
    naming: the key of EXTENSIONS if tokens were perturbed (`grouped` in `pfid_768_grouped`), else None.
    version, span, reader: these exist for scores of words and faces (`ratio`, `all` and `_easyocr` in
    `t_acc_ratio_all_easyocr`).
    infinite: whether the number is extrapolated to infinitely many images.
    part: the text after the dot, which names a cell of perturbed tokens (`a0.9-d10`), a bin of sizes (`small`) or a
    stream of codes (`sem`). It is empty if there is no dot.
    """

    number: str
    naming: str | None = None
    version: Version = ""
    span: Span = ""
    reader: str = ""
    infinite: bool = False
    part: str = ""

    @classmethod
    def parse(cls, text: str) -> MetricName:
        """Parse a name. Every text is a valid name; its `metric` is None if no metric computes such a number."""
        return _parse(text)

    def __str__(self) -> str:
        return f"{self.base}{INFINITY if self.infinite else ''}{f'.{self.part}' if self.part else ''}"

    @property
    def base(self) -> str:
        """The name without part and extrapolation: `pfid_768_grouped` for `pfid_768_grouped.a0.9-d10`."""
        if self.naming is not None:
            return EXTENSIONS[self.naming].apply(perturbable()[self.number])
        return form_name(self.number, self.version, self.span, self.reader)

    @property
    def finite(self) -> str:
        """The name without the mark of extrapolation: `rfid` for `rfid_infinity`."""
        return f"{self.base}{f'.{self.part}' if self.part else ''}"

    @property
    def spec(self) -> MetricSpec | None:
        """The spec of the metric that computes the number, or None."""
        return found[0] if (found := _numbers().get(self.base)) else None

    @property
    def number_spec(self) -> NumberSpec | None:
        """The spec of the number, or None if no metric computes it."""
        return found[1] if (found := _numbers().get(self.base)) else None

    @property
    def metric(self) -> str | None:
        """The name of the metric that computes the number, or None: `rfid` for `pfid.a0.9-d10`."""
        return self.spec.name if self.spec else None

    @property
    def is_cell(self) -> bool:
        """Whether this is the number of a single cell of perturbed tokens."""
        return bool(self.part) and self.naming is not None

    @property
    def is_part(self) -> bool:
        """Whether this is the number of a single cell of perturbed tokens or of a single bin of word or face sizes.

        The mean over the cells or bins is a number, too.
        """
        return self.is_cell or (bool(self.part) and self.spec is not None and self.spec.reader is not None)

    @property
    def is_detail(self) -> bool:
        """Whether only the CSV shows the number: a point of a curve, a bin of a ceiling or ratio, or a single cell."""
        return self.is_cell or self.span == "curve" or bool(self.part and self.version)


@cache
def _parse(text: str) -> MetricName:
    before, _, part = text.partition(".")
    infinite = before.endswith(INFINITY)
    base = before.removesuffix(INFINITY)
    if text.endswith("."):  # a trailing dot belongs to the name
        return MetricName(text)
    known = _numbers()[base][2] if base in _numbers() else MetricName(base)
    return replace(known, infinite=infinite, part=part)


@cache
def _numbers() -> dict[str, tuple[MetricSpec, NumberSpec, MetricName]]:
    """Return the metric's spec, the number's spec and the parsed name for every base name that a metric computes."""
    found = {}
    for spec in METRICS.values():
        for number in spec.numbers:
            for version, span in number.forms():
                name = MetricName(number.name, None, version, span, spec.suffix)
                found[form_name(number.name, version, span, spec.suffix)] = (spec, number, name)
            for key, naming in EXTENSIONS.items():
                if number.perturbed:
                    found[naming.apply(number.perturbed)] = (spec, number, MetricName(number.name, key))
    return found


def _forget() -> None:
    for derived in (_parse, _numbers):
        derived.cache_clear()


METRICS.listeners.append(_forget)


def perturbed_name(number: str, naming: PerturbationNaming) -> str | None:
    """Return the name of a number for perturbed tokens (`pfid_768` for `rfid_768`), or None if it does not exist."""
    form = perturbable().get(number)
    return naming.apply(form) if form else None


def metric_of(number: str) -> str | None:
    """Return the metric that computes a number, or None: `psnr` for `exact`, `rfid` for `rfid_infinity` and `pfid`."""
    return MetricName.parse(number).metric


def base_metric(number: str) -> str | None:
    """Return the name of a number without perturbation, or None if its tokens were not perturbed.

    `rfid_768` is returned for `pfid_768_grouped`, `pfid_768.a0.9-d10` and `pfid_768_infinity`.
    """
    name = MetricName.parse(number)
    return None if name.naming is None else name.number


def is_single_cell(number: str) -> bool:
    """Return whether a number belongs to a single cell, such as `pfid_768.a0.9-d10`."""
    return MetricName.parse(number).is_cell
